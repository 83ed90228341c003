"""Runs that tell texts unlike their training texts: the command, its page, and what predict then says."""

import csv
import html
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import fails
from reviews import write_csv, write_ratings
from sklearn.metrics import roc_auc_score

from finetune.cli import main
from finetune.data import load_splits
from finetune.data.sources import FileOptions, embedded_file, read_file
from finetune.data.splits import column
from finetune.demo.models import models_of, predict_one
from finetune.hub.pull import MODEL_FILES
from finetune.models.novelty import NOVELTY_FILE, load_novelty
from finetune.predict import load_classifier
from finetune.recipe import load_recipe
from finetune.reporting.novelty import sentences
from finetune.run import open_run

RECIPE = """
name: gru
data: {train_file: reviews.csv, validation_fraction: 0.2}
text: {vocabulary_size: 200, min_frequency: 1, max_length: 48}
model: {family: recurrent, cell: gru, embedding_size: 24, hidden_size: 24, pooling: mean, dropout: 0.0}
training: {num_train_epochs: 2, batch_size: 16, learning_rate: 1e-2, threads: 1}
evaluation: {bootstrap_samples: 100}
"""
ARGUMENTS = ("runs/gru", "--against", "numbers.csv", "--text_column", "number", "--output", "report", "--rows", "300")
ODD = "0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("novelty")
    write_csv(directory / "reviews.csv", 800)
    with (directory / "numbers.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["number"], *([f"{i * 7919 % 100000} {i} {i * i}"] for i in range(200)), [""]])
    (directory / "gru.yaml").write_text(RECIPE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert main(["train", "gru.yaml"]) == 0
        shutil.copytree("runs/gru", "runs/before")
        assert main(["novelty", *ARGUMENTS]) == 0
    return directory


@pytest.fixture(autouse=True)
def working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def content(folder):
    return json.loads((folder / "report" / "novelty.json").read_text(encoding="utf-8"))


def test_the_areas_are_those_of_the_detector_that_is_kept(content):
    assert (content["method"], content["features"]) == ("mahalanobis", 24)
    assert [part["name"] for part in content["unlike"]] == ["their characters shuffled", "English reviews", "numbers"]
    classifier = load_classifier("runs/gru")
    test = column(load_splits(load_recipe("runs/gru/recipe.yaml").data).test, "text")
    assert content["test_rows"] == len(test)
    _, ordinary = classifier.classify_with_novelty(test)
    novel = classifier.is_novel(ordinary)
    assert content["test"]["mahalanobis"]["value"] == novel.mean() < 0.2
    numbers = content["unlike"][2]
    assert numbers["rows"] == 200
    assert numbers["auroc"]["mahalanobis"]["low"] > 0.9
    assert numbers["flagged"]["mahalanobis"]["value"] > 0.5
    assert set(numbers["auroc"]) == {"autoencoder", "mahalanobis", "doubt"}
    for part in content["unlike"]:
        for area in part["auroc"].values():
            assert area["low"] <= area["value"] <= area["high"]
        lead = part["auroc"]["autoencoder"]["value"] - part["auroc"]["mahalanobis"]["value"]
        assert part["lead"]["value"] == pytest.approx(lead)


def test_the_area_is_sklearns(content):
    classifier = load_classifier("runs/gru")
    detector = load_novelty(Path("runs/gru/model"), 24)
    test = column(load_splits(load_recipe("runs/gru/recipe.yaml").data).test, "text")
    english = read_file(embedded_file("reviews-en", "test"), FileOptions(), ["text"])["text"]
    part = content["unlike"][1]
    assert part["rows"] == len(english)
    scores = [detector.scores(classifier.features(list(texts))[1]) for texts in (test, english)]
    expected = roc_auc_score(np.repeat([0, 1], [len(test), len(english)]), np.concatenate(scores))
    assert part["auroc"]["mahalanobis"]["value"] == pytest.approx(expected)


@pytest.fixture
def ordinary():
    """The test text that is least novel."""
    test = column(load_splits(load_recipe("runs/gru/recipe.yaml").data).test, "text")
    return test[load_classifier("runs/gru").classify_with_novelty(test)[1].argmin()]


def test_predict_says_what_is_unlike(ordinary, capsys):
    capsys.readouterr()
    assert main(["predict", "runs/gru", ordinary, ODD]) == 0
    first, odd = capsys.readouterr().out.splitlines()
    assert first.endswith(f"\t{ordinary}")
    assert f"\t{ODD}\t(unlike the training texts, more so than " in odd
    assert main(["predict", "runs/before", ODD]) == 0
    label, sure, text = capsys.readouterr().out.strip().split("\t")
    assert text == ODD
    assert odd.split("\t")[:2] == [label, sure]  # what is said of the text itself is as it was


def test_a_file_gets_two_columns_more_and_the_same_predictions(folder):
    for run in ("gru", "before"):
        assert main(["predict", f"runs/{run}", "--input", "reviews.csv", "--output", f"{run}.parquet"]) == 0
    found, before = (pq.read_table(f"{run}.parquet").to_pydict() for run in ("gru", "before"))
    assert set(found) - set(before) == {"novelty", "is_novel"}
    assert all(found[name] == before[name] for name in before)
    threshold = load_novelty(Path("runs/gru/model"), 24).threshold
    assert found["is_novel"] == [share >= threshold - 1e-6 for share in found["novelty"]]
    assert 0 < sum(found["is_novel"]) < 0.2 * len(found["is_novel"])


def test_the_page_says_so_too(ordinary):
    (predictor, *_), _ = (list(models.values()) for models in models_of(["runs/gru"]))
    classifier = predictor.classifier.get()
    odd = predict_one(classifier, ODD)
    assert odd.is_novel
    assert not predict_one(classifier, ordinary).is_novel
    assert odd.novelty == pytest.approx(classifier.classify_with_novelty([ODD])[1][0])
    assert list(odd.probabilities.values()) == classifier.classify([ODD])[0].tolist()
    (plain, *_), _ = (list(models.values()) for models in models_of(["runs/before"]))
    assert predict_one(plain.classifier.get(), ODD).novelty is None


def test_the_report(folder, content):
    said = sentences(content)
    page = html.unescape((folder / "report" / "novelty.html").read_text(encoding="utf-8"))
    markdown = (folder / "report" / "novelty.md").read_text(encoding="utf-8")
    assert said[0].startswith("gru: the Mahalanobis distance that is kept calls ")
    assert len(said) == 4
    for sentence in said:
        assert sentence in page
    assert "| numbers | 200 | " in markdown
    assert "<script" not in page
    shares = [one["share"] for one in content["most_novel"]]
    assert "- " + content["most_novel"][0]["text"] in markdown
    assert shares == sorted(shares, reverse=True)
    assert content["most_novel"][0]["text"] in page


def test_the_other_method_takes_the_place_of_the_first(folder):
    shutil.copytree("runs/gru", "runs/again")
    arguments = ("novelty", "runs/again", "--method", "autoencoder", "--false_alarms", "0.1", "--rows", "50")
    assert main([*arguments, "--output", "again"]) == 0
    kept = load_novelty(Path("runs/again/model"), 24)
    assert (kept.method, kept.false_alarms) == ("autoencoder", 0.1)
    assert {file.name for file in (folder / "runs/again/model").iterdir()} == {
        file.name for file in (folder / "runs/gru/model").iterdir()
    }
    assert NOVELTY_FILE in MODEL_FILES  # it goes to the Hub with the weights
    assert open_run("runs/again").scores() == open_run("runs/before").scores()


def test_ratings_have_it_without_a_doubt_of_their_own(folder, capsys):
    write_ratings(folder / "ratings.csv", 400)
    recipe = RECIPE.replace("name: gru", "name: rater\ntask: rate").replace("reviews.csv", "ratings.csv")
    (folder / "rater.yaml").write_text(recipe, encoding="utf-8")
    assert main(["train", "rater.yaml"]) == 0
    assert main(["novelty", "runs/rater", "--output", "rater", "--rows", "50"]) == 0
    content = json.loads((folder / "rater" / "novelty.json").read_text(encoding="utf-8"))
    assert all(set(part["auroc"]) == {"autoencoder", "mahalanobis"} for part in content["unlike"])
    assert main(["predict", "runs/rater", ODD]) == 0
    assert ODD in capsys.readouterr().out


def test_what_cannot_be_done_is_refused(folder, capsys):
    output = ("--output", "other")
    assert "no such file" in fails(capsys, "novelty", "runs/gru", "--against", "nothing.csv", *output)
    assert "text" in fails(capsys, "novelty", "runs/gru", "--against", "numbers.csv", *output)
    assert "--false_alarms 0.7" in fails(capsys, "novelty", "runs/gru", "--false_alarms", "0.7", *output)
    assert "--rows 0" in fails(capsys, "novelty", "runs/gru", "--rows", "0", *output)
    error = fails(capsys, "novelty", "runs/gru", "--false_alarms", "0.001", *output)
    assert "validation texts: 999 are needed" in error
    tfidf = RECIPE.split("model:")[0].replace("gru", "floor") + "model: {family: tfidf}\n"
    (folder / "floor.yaml").write_text(tfidf, encoding="utf-8")
    assert main(["train", "floor.yaml"]) == 0
    assert "a floor keeps no model" in fails(capsys, "novelty", "runs/floor", *output)
    shutil.copytree("runs/gru", "runs/damaged")
    (folder / "runs/damaged/model" / NOVELTY_FILE).write_bytes(b"nothing")
    assert f"{NOVELTY_FILE}: no novelty detector of this model" in fails(capsys, "predict", "runs/damaged", ODD)
    assert not (folder / "other").exists()
