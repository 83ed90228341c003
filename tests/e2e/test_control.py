"""Whether models that write by label write what was asked for: the command, its page, and what it refuses."""

import html
import json

import pytest
from command_line import fails
from reviews import write_csv

from finetune.cli import main
from finetune.data import load_splits
from finetune.data.splits import column, normalized_key
from finetune.evaluation.writing import ngrams, units
from finetune.generate import load_generator
from finetune.predict import load_classifier
from finetune.recipe import Data, load_recipe
from finetune.reporting.control import sentences
from finetune.significance import wilson_interval

WRITER = """
name: writer
task: generate
data: {train_file: reviews.csv, prompt_column: label, train_part: 1/2}
text: {vocabulary_size: 200, min_frequency: 1, max_length: 48}
model: {family: seq2seq, embedding_size: 32, hidden_size: 64, input_feeding: false, dropout: 0.0}
training: {num_train_epochs: 15, batch_size: 16, learning_rate: 1e-2, eval_steps: 1000, threads: 1}
evaluation: {bootstrap_samples: 100}
generation: {samples: 0, max_new_tokens: 24}
"""
JUDGE = """
name: judge
data: {train_file: reviews.csv, train_part: 2/2}
text: {vocabulary_size: 200, min_frequency: 1, max_length: 48}
model: {family: recurrent, embedding_size: 32, hidden_size: 32, dropout: 0.0}
training: {num_train_epochs: 3, batch_size: 16, learning_rate: 1e-2, threads: 1}
evaluation: {bootstrap_samples: 100}
"""
LABELS = ["negative", "positive"]
ARGUMENTS = ("--classifier", "runs/judge", "--output", "report", "--samples", "24", "--seed", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("control")
    write_csv(directory / "reviews.csv", 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for name, recipe in (("writer", WRITER), ("judge", JUDGE)):
            (directory / f"{name}.yaml").write_text(recipe, encoding="utf-8")
            assert main(["train", f"{name}.yaml"]) == 0
        assert main(["control", "runs/writer", *ARGUMENTS, "--temperature", "0.7"]) == 0
    return directory


@pytest.fixture(autouse=True)
def working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def content(folder):
    return json.loads((folder / "report" / "control.json").read_text(encoding="utf-8"))


def test_parts_share_no_text_and_are_all_of_it(folder):
    whole = load_splits(Data(train_file="reviews.csv"))
    parts = [load_splits(Data(train_file="reviews.csv", train_part=f"{i}/3")) for i in (1, 2, 3)]
    ids = [set(column(part.train, "id")) for part in parts]
    assert set.union(*ids) == set(column(whole.train, "id"))
    assert sum(map(len, ids)) == len(whole.train)
    assert min(map(len, ids)) > len(whole.train) / 5
    keys = [{normalized_key(text) for text in column(part.train, "text")} for part in parts]
    assert not keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2]
    assert all(column(part.test, "id") == column(whole.test, "id") for part in parts)
    # Whatever is learnt of a text, it is in the same part.
    as_text = load_splits(Data(train_file="reviews.csv", train_part="1/3", prompt_column="label"), "generate")
    assert set(column(as_text.train, "text")) & set(column(parts[1].train, "text")) == set()


def test_the_shares_are_what_the_classifier_says(content):
    found = content["writers"]["writer"]
    assert content["labels"] == LABELS
    generator, judge = load_generator("runs/writer"), load_classifier("runs/judge")
    settings = {"do_sample": True, "max_new_tokens": 24, "temperature": 0.7, "top_p": 0.95}
    assert found["settings"] == settings
    recipe = load_recipe("runs/writer/recipe.yaml")
    training = column(load_splits(recipe.data, recipe.task).train, "text")
    seen = {gram for text in training for gram in ngrams(units(text), 4)}
    hits = 0
    for number, label in enumerate(LABELS):
        part = found["labels"][label]
        written = generator.generate([label] * 24, settings, seed=3 + 1_000_003 * number)
        texts = [of_row[0].text.strip() for of_row in written]
        given = [judge.labels[i] for i in judge.classify(texts).argmax(axis=1)]
        assert part["given"] == {name: given.count(name) for name in LABELS}
        assert part["texts"] == [{"text": text, "given": name} for text, name in zip(texts, given, strict=True)][:5]
        interval = wilson_interval(given.count(label), 24)
        assert part["rate"] == {"value": interval.value, "low": interval.low, "high": interval.high}
        copies = {normalized_key(text) for text in training}
        assert part["copies"]["value"] == sum(normalized_key(text) in copies for text in texts) / 24
        grams = [gram for text in texts for gram in ngrams(units(text), 4)]
        assert part["new_ngrams"] == pytest.approx(sum(gram not in seen for gram in grams) / len(grams))
        hits += given.count(label)
    assert found["rate"]["value"] == hits / 48
    assert found["shared_with_classifier"] == 0
    assert found["rate"]["value"] > 0.7  # it has learnt what its prompts mean


def test_the_real_texts_are_the_test_rows(content):
    found = content["writers"]["writer"]
    recipe = load_recipe("runs/writer/recipe.yaml")
    test = load_splits(recipe.data, recipe.task).test
    prompts = column(test, "prompt")
    for label in LABELS:
        assert found["labels"][label]["real_rows"] <= prompts.count(label)
        assert found["labels"][label]["real_rows"] > 0
    assert found["real"]["value"] > 0.9


def test_the_page_the_table_and_the_words(folder, content):
    said = sentences(content)
    page = html.unescape((folder / "report" / "control.html").read_text(encoding="utf-8"))
    markdown = (folder / "report" / "control.md").read_text(encoding="utf-8")
    assert said[0].startswith("writer: in ")
    assert said[0] in page
    assert "| writer | negative | " in markdown
    for label in LABELS:
        part = content["writers"]["writer"]["labels"][label]
        assert f"{100 * part['rate']['value']:.1f} %" in page
        assert f">{part['given'][label]:,}" in page
    assert "<script" not in page


def test_what_cannot_be_judged_is_refused(folder, capsys):
    error = fails(capsys, "control", "runs/judge", *ARGUMENTS)
    assert "runs/judge: task classify; it does not write text" in error
    arguments = ("--classifier", "runs/writer", "--output", "other")
    assert "task generate; a run that gives one label" in fails(capsys, "control", "runs/writer", *arguments)
    assert "--samples 0" in fails(capsys, "control", "runs/writer", *ARGUMENTS[:4], "--samples", "0")
    assert "no field of GenerationConfig" in fails(capsys, "control", "runs/writer", *ARGUMENTS, "--hotness", "1")
    assert main(["train", "judge.yaml", "--name", "knows-all", "--data", "{train_file: reviews.csv}"]) == 0
    arguments = ("--classifier", "runs/knows-all", "--output", "other")
    assert "--data.train_part 1/2" in fails(capsys, "control", "runs/writer", *arguments)
    assert not (folder / "other").exists()
    assert "there are 2 parts" in fails(capsys, "train", "judge.yaml", "--name", "x", "--data.train_part", "3/2")
    labels = ["--data.labels", "{negative: bad, positive: good}"]
    assert main(["train", "judge.yaml", "--name", "other-words", *labels]) == 0
    error = fails(capsys, "control", "runs/writer", "--classifier", "runs/other-words", "--output", "other")
    assert "it writes by negative, positive; the classifier gives bad, good" in error
