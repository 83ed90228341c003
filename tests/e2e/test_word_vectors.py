"""From text to word vectors, and from these to a classifier, as a user types it."""

import hashlib
import json
import re
import shutil

import pytest
from command_line import fails
from kill_loop import outcome
from reviews import write_csv

from finetune.cli import main
from finetune.hub.stage import copy_account
from finetune.run import RunDirectory
from finetune.training import loop

VECTORS = """
name: vectors
task: word_vectors
data: {dataset_name: embedded:reviews-ko, max_train_rows: 1500, max_validation_rows: 20, max_test_rows: 20}
text: {unit: word, vocabulary_size: 2000, max_length: 64}
model: {family: word_vectors, dimensions: 16, min_count: 2}
training: {num_train_epochs: 3, threads: 1}
"""
CLASSIFIER = """
name: classifier
data: {train_file: reviews.csv}
text: {unit: word, max_length: 32}
model:
  family: recurrent
  cell: gru
  embedding_size: 16
  hidden_size: 16
  initial_embeddings: runs/vectors
  freeze_embeddings: true
training: {num_train_epochs: 3, batch_size: 16, learning_rate: 1e-2, threads: 1, logging_steps: 2, save_steps: 3}
evaluation: {bootstrap_samples: 100}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("vectors")
    write_csv(directory / "reviews.csv", 160)
    (directory / "vectors.yaml").write_text(VECTORS, encoding="utf-8")
    (directory / "classifier.yaml").write_text(CLASSIFIER, encoding="utf-8")
    return directory


@pytest.fixture(autouse=True)
def working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def vectors(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["pretrain", "vectors.yaml"]) == 0
    shutil.copytree(folder / "runs" / "vectors", folder / "runs" / "copy")
    return RunDirectory(folder / "runs" / "vectors")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_run_directory_tells_what_was_learnt(vectors):
    files = {path.relative_to(vectors.path).as_posix() for path in vectors.path.rglob("*") if path.is_file()}
    assert files == {
        *("recipe.yaml", "environment.json", "data.json", "scores.json", "word_vectors.md"),
        *("model/word_vectors.safetensors", "model/word_vectors.json", "model/tokenizer.json"),
        "model/tokenizer_config.json",
    }
    scores = vectors.scores()
    assert len(scores["neighbours"]) == 20
    assert scores["analogies"]["language"] == "ko"
    assert scores["analogies"]["count"] >= 60
    assert scores["analogies"]["covered"] > 0
    settings = vectors.vectors_settings()
    assert settings["tokens_with_vector"] == scores["cost"]["tokens_with_vector"] > 100
    assert settings["model_type"] == "finetune_word_vectors"
    assert scores["cost"]["training_tokens"] > 3 * 1000
    assert scores["cost"]["parameters"] == 16 * settings["vocabulary_size"]
    report = vectors.vectors_report_file.read_text(encoding="utf-8")
    for entry in scores["neighbours"]:
        assert f"| {entry['word']} | {entry['count']:,} | {entry['neighbours'][0]['word']} (" in report
    assert f"{scores['analogies']['covered']} are covered" in report


def test_a_killed_run_begins_again_and_ends_in_the_same_bytes(vectors, capsys):
    again = RunDirectory(vectors.path.parent / "again")
    shutil.copytree(vectors.path, again.path)
    environment = json.loads(again.environment_file.read_text(encoding="utf-8"))
    again.environment_file.write_text(json.dumps({**environment, "end": None}), encoding="utf-8")
    again.vectors_file.write_bytes(b"torn")
    capsys.readouterr()
    assert main(["pretrain", "vectors.yaml", "--name", "again", "--resume"]) == 0
    assert "it begins again" in capsys.readouterr().err
    assert sha256(again.vectors_file) == sha256(vectors.vectors_file)
    assert again.vectors_report_file.read_text().partition("\n## ")[2]
    assert len(again.environment()["resumed"]) == 1
    assert main(["pretrain", "vectors.yaml", "--name", "again", "--resume"]) == 0
    assert "is finished already" in capsys.readouterr().err


def matched(capsys):
    """(tokens with a vector, tokens) of the classifier that was begun last."""
    line = re.search(r"initial embeddings: ([\d,]+) of ([\d,]+) tokens have a vector", capsys.readouterr().err)
    return tuple(int(count.replace(",", "")) for count in line.groups())


def test_a_killed_classifier_goes_on_with_its_frozen_vectors(vectors, monkeypatch, capsys):
    """The tokenizer is named by the run of the vectors."""
    command = ["train", "classifier.yaml", "--text.tokenizer_name_or_path", "runs/vectors"]
    capsys.readouterr()
    assert main([*command, "--name", "undisturbed"]) == 0
    settings = vectors.vectors_settings()
    assert matched(capsys) == (settings["tokens_with_vector"], settings["vocabulary_size"])
    original = loop._training_record

    def dying(job, state, *rest):
        if state.step >= 8:
            raise KeyboardInterrupt
        return original(job, state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_training_record", dying)
        assert main([*command, "--name", "killed"]) == 130
    assert main([*command, "--name", "killed", "--resume"]) == 0
    runs = vectors.path.parent
    assert outcome(runs / "killed") == outcome(runs / "undisturbed")
    assert main(["predict", "runs/killed", "정말 재미있다"]) == 0


def test_a_published_classifier_names_no_place_of_this_machine(vectors, folder, tmp_path, capsys):
    capsys.readouterr()
    assert main(["train", "classifier.yaml", "--name", "mine", "--training.max_steps", "2"]) == 0
    count, total = matched(capsys)  # with a vocabulary of its own
    assert 0 < count < total != vectors.vectors_settings()["vocabulary_size"]
    run = RunDirectory(folder / "runs" / "mine")
    assert "../vectors" in run.recipe_file.read_text(encoding="utf-8")
    assert main(["card", "runs/mine"]) == 0
    assert "It began with word vectors for embeddings, which stayed as they were," in run.card_file.read_text()
    copy_account(run, tmp_path)
    texts = [run.card_file.read_text(encoding="utf-8")]
    texts += [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()]
    assert len(texts) > 4
    assert not [text for text in texts if str(folder) in text]
    assert any("initial_embeddings: ./vectors" in text for text in texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "runs/vectors", "글"], "begin a recurrent model with them"),
        (["predict", "runs/vectors", "--input", "reviews.csv", "--output", "labels.csv"], "begin a recurrent model"),
        (["generate", "runs/vectors", "글"], "begin a recurrent model with them"),
        (["evaluate", "runs/vectors", "--split", "test"], "begin a recurrent model with them"),
        (["evaluate", "runs/vectors", "--data", "reviews.csv", "--output", "scored"], "begin a recurrent model"),
        (["compare", "runs/vectors", "runs/copy", "--output", "report"], "begin a recurrent model with them"),
        (["card", "runs/vectors"], "begin a recurrent model with them"),
        (["push", "runs/vectors", "--repo", "user/vectors", "--dry-run"], "begin a recurrent model with them"),
        (["push", "runs/vectors", "--space", "user/vectors", "--dry-run"], "begin a recurrent model with them"),
        (["export", "runs/vectors"], "begin a recurrent model with them"),
        (["lr-range", "vectors.yaml", "--output", "range"], "word vectors have a learning rate of their own"),
        (["curve", "vectors.yaml", "--sizes", "100", "--output", "curve"], "only"),
        (["gradients", "vectors.yaml", "--output", "gradients"], "recurrent models and encoders"),
        (["train", "vectors.yaml"], "task word_vectors is for `finetune pretrain vectors.yaml`"),
        (["pretrain", "vectors.yaml"], "exists; choose another --name"),
        (["pretrain", "vectors.yaml", "--name", "new", "--training.learning_rate", "1"], "training.learning_rate is"),
        (["pretrain", "vectors.yaml", "--name", "rare", "--model.min_count", "99999"], "no token stands so often"),
        (["pretrain", "vectors.yaml", "--name", "new", "--model", "{family: encoder, from_scratch: {}}"], "is for"),
        (["pretrain", "vectors.yaml", "--name", "new", "--task", "classify"], "model.family word_vectors is for task"),
        (["train", "classifier.yaml", "--name", "new", "--model.embedding_size", "8"], "embedding_size 8 is not"),
        (["train", "classifier.yaml", "--name", "new", "--model.initial_embeddings", "nothing"], "nothing: no word_"),
        (["train", "classifier.yaml", "--name", "new", "--model.initial_embeddings", "./runs"], "no word_vectors."),
    ],
)
def test_a_users_error_is_one_line(vectors, folder, capsys, arguments, message):
    assert message in fails(capsys, *arguments)
    assert not (folder / "report").exists()
    assert not (folder / "runs" / "new").exists()
    assert not vectors.card_file.exists()


def test_the_doctor_reads_the_recipe(vectors, capsys):
    assert main(["doctor", "vectors.yaml"]) == 0
    assert "unknown tokens" in capsys.readouterr().out
