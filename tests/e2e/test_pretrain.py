"""From text without labels to a pretrained encoder, and from there to a classifier, as a user types it."""

import json
import lzma
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from command_line import fails
from reviews import review_rows, write_csv
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from finetune.cli import main

TEXTS = [text for text, _ in review_rows(400)]
RECIPE = """
name: small
task: masked_lm
data: {train_file: texts.txt.xz, validation_fraction: 0.1, test_fraction: 0.1}
text: {unit: unigram, vocabulary_size: 300, max_length: 32}
masking: {rate: 0.3, whole_words: true}
model:
  family: encoder
  from_scratch:
    {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64, initial_embeddings: ppmi}
  dropout: 0
training: {num_train_epochs: 2, batch_size: 16, learning_rate: 5e-3, threads: 1, eval_steps: 10}
evaluation: {bootstrap_samples: 100}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pretrain")
    lines = "".join(f"{text}\n" for text in [*TEXTS[:300], "", "  "])
    (directory / "texts.txt.xz").write_bytes(lzma.compress(lines.encode()))
    pq.write_table(pa.table({"text": TEXTS[300:]}), directory / "more.parquet")
    (directory / "small.yaml").write_text(RECIPE, encoding="utf-8")
    write_csv(directory / "reviews.csv", 200)
    return directory


@pytest.fixture(autouse=True)
def working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def pretrained(folder):
    """The run directory of a pretrained encoder, and its tokenizer trained as a step of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        more = ("--data.more_train_files", "[more.parquet]")
        assert main(["tokenizer", "small.yaml", "--output", "tokenizer", *more]) == 0
        assert main(["pretrain", "small.yaml", "--text.tokenizer_name_or_path", "./tokenizer", *more]) == 0
    return folder / "runs" / "small"


def test_the_run_directory_tells_what_was_learnt(pretrained):
    data = json.loads((pretrained / "data.json").read_text(encoding="utf-8"))
    assert sum(split["count"] for split in data["splits"].values()) == len(TEXTS)
    assert data["splits"]["train"]["dropped"] == {"empty": 2}
    assert [file["name"] for file in data["more_train_files"]] == ["more.parquet"]
    test = json.loads((pretrained / "scores.json").read_text(encoding="utf-8"))["splits"]["test"]
    assert test["times_scored"] == 1
    for name in ("loss", "masked_accuracy", "bits_per_byte"):
        assert test["metrics"][name]["low"] <= test["metrics"][name]["value"] <= test["metrics"][name]["high"]
    rows = pq.read_table(pretrained / "predictions" / "test.parquet").to_pydict()
    assert set(rows) == {"id", "nats", "correct", "tokens", "bytes"}
    assert sum(rows["nats"]) / sum(rows["tokens"]) == pytest.approx(test["metrics"]["loss"]["value"])
    records = [json.loads(line) for line in (pretrained / "train_log.jsonl").read_text().splitlines()]
    validations = [record["validation"] for record in records if "validation" in record]
    assert validations[-1]["loss"] < validations[0]["loss"]
    assert validations[0].keys() == {"loss", "masked_accuracy", "bits_per_byte"}
    cost = json.loads((pretrained / "scores.json").read_text(encoding="utf-8"))["cost"]
    assert cost["training_tokens"] > 0
    assert cost["training_tokens_per_second"] > 0


def test_plain_transformers_fills_masks(pretrained):
    model = AutoModelForMaskedLM.from_pretrained(pretrained / "model")
    tokenizer = AutoTokenizer.from_pretrained(pretrained / "model")
    assert type(model).__name__ == "BertForMaskedLM"
    assert model.dtype == torch.float32
    answers = pipeline("fill-mask", model=model, tokenizer=tokenizer)(f"배우 {tokenizer.mask_token} 좋다")
    assert len(answers) == 5


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_it_is_fine_tuned_from(pretrained, tuning, capsys):
    recipe = f"name: {tuning}\ndata: {{train_file: reviews.csv}}\ntext: {{max_length: 32}}\n"
    recipe += f"model: {{family: encoder, model_name_or_path: ./runs/small/model, tuning: {tuning}}}\n"
    recipe += "training: {num_train_epochs: 1, batch_size: 16, learning_rate: 1e-3, threads: 1}\n"
    (pretrained.parent.parent / f"{tuning}.yaml").write_text(recipe, encoding="utf-8")
    assert main(["train", f"{tuning}.yaml"]) == 0
    before = load_file(pretrained / "model" / "model.safetensors")
    after = load_file(pretrained.parent / tuning / "model" / "model.safetensors")
    shared = [name for name in before if name in after]
    assert len(shared) > 10
    changed = [name for name in shared if not torch.equal(before[name], after[name])]
    # Unused token types and positions have no gradient, and no decay either.
    assert (len(changed) == 0) if tuning == "frozen" else (len(changed) > 0.8 * len(shared))
    cost = json.loads((pretrained.parent / tuning / "scores.json").read_text(encoding="utf-8"))["cost"]
    assert (cost["trainable_parameters"] < 0.3 * cost["parameters"]) == (tuning == "frozen")
    assert main(["predict", f"runs/{tuning}", "너무 지루하다"]) == 0


def test_the_same_seed_gives_the_same_encoder(pretrained):
    for name in ("once", "again"):
        assert main(["pretrain", "small.yaml", "--name", name, "--training.num_train_epochs", "1"]) == 0
    once, again = ((pretrained.parent / name / "model") for name in ("once", "again"))
    for file in ("model.safetensors", "tokenizer.json"):
        assert (once / file).read_bytes() == (again / file).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "small.yaml"], "task masked_lm is for `finetune pretrain small.yaml`"),
        (["pretrain", "nsmc-lstm"], "task classify is for `finetune train nsmc-lstm`"),
        (["pretrain", "small.yaml", "--model", "{family: recurrent}"], "is for models of family encoder;"),
        (["pretrain", "small.yaml", "--data.labels", "{a: a, b: b}"], "needs no labels"),
        (["pretrain", "small.yaml", "--name", "new", "--data.train_file", "none.txt"], "none.txt: no such file"),
        (
            ["pretrain", "small.yaml", "--name", "new", "--text.vocabulary_size", "30"],
            "text.vocabulary_size 30 is too small",
        ),
        (["tokenizer", "small.yaml", "--output", "small.yaml"], "small.yaml exists"),
        (["pretrain", "small.yaml", "--name", "new", "--text.unit", "word"], "do not show where a word begins"),
        (["pretrain", "small.yaml", "--name", "new", "--text.vocabulary_size", "4"], "SentencePiece cannot make 4"),
        (["pretrain", "small.yaml", "--evaluation.score_test", "false"], "leave score_test true"),
        (["pretrain", "small.yaml", "--resume", "--text.tokenizer_name_or_path", "./other"], "tokenizer_name_or_path"),
        (["predict", "runs/small", "글"], "a pretrained model has no labels yet"),
        (["predict", "runs/small/model", "글"], "it has no trained classification head"),
        (["evaluate", "runs/small", "--split", "test"], "a pretrained model has no labels yet"),
        (["compare", "runs/small", "runs/full", "--output", "report"], "masked_lm"),
        (["doctor", "small.yaml", "--model.model_name_or_path", "embedded:none"], "set exactly one of"),
    ],
)
def test_a_users_error_is_one_line(pretrained, capsys, arguments, message):
    assert message in fails(capsys, *arguments)
    assert not (pretrained.parent.parent / "report").exists()
    assert not (pretrained.parent / "new").exists()


def test_the_doctor_reads_text_without_labels(pretrained, capsys):
    for data in (["small.yaml"], ["texts.txt.xz", "--task", "masked_lm", "--text.vocabulary_size", "300"]):
        assert main(["doctor", *data]) == 0
        assert "unknown tokens" in capsys.readouterr().out


def test_a_tokenizer_that_changed_is_noticed_on_resume(folder, capsys):
    arguments = ["pretrain", "small.yaml", "--name", "stopped", "--text.tokenizer_name_or_path", "./swapped"]
    assert main(["tokenizer", "small.yaml", "--output", "swapped"]) == 0
    assert main([*arguments, "--training.num_train_epochs", "1"]) == 0
    environment = folder / "runs" / "stopped" / "environment.json"
    environment.write_text(json.dumps({**json.loads(environment.read_text()), "end": None}))  # as if it had not ended
    shutil.rmtree(folder / "swapped")
    assert main(["tokenizer", "small.yaml", "--output", "swapped", "--text.lowercase", "true"]) == 0
    message = fails(capsys, *arguments, "--training.num_train_epochs", "1", "--resume")
    assert "needs the tokenizer that the run began with" in message


def test_a_tokenizer_is_trained_whatever_the_recipe_names(folder):
    named = ("--text.tokenizer_name_or_path", "./nowhere")
    assert main(["tokenizer", "small.yaml", "--output", "named", *named]) == 0
    assert len(AutoTokenizer.from_pretrained(folder / "named")) <= 300
