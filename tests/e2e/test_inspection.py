"""`finetune inspect`: slices add up, noise costs what it costs, and the rows behind are the right ones."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import fails
from reporting.test_page import Outline
from reviews import review_rows, small_recipe, write_csv, write_ratings

from finetune.cli import main
from finetune.predict import load_classifier
from finetune.reporting.inspection import inspection_markdown, inspection_page
from finetune.text.noise import noisy
from finetune.training import train

SHOPS = ("north", "south", "<b>east</b>", "", "서쪽")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs on the same reviews, five of whose labels are wrong, and what was found of them."""
    directory = tmp_path_factory.mktemp("inspect")
    rows = review_rows(400)
    other = {"positive": "negative", "negative": "positive"}
    lines = [
        f"{text},{SHOPS[number % 5]},{number % 30},{other[label] if number in range(300, 305) else label}"
        for number, (text, label) in enumerate(rows)
    ]
    (directory / "test.csv").write_text("text,shop,month,label\n" + "\n".join(lines[200:]) + "\n", encoding="utf-8")
    files = {
        "train_file": str(write_csv(directory / "train.csv", 200, seed=1)),
        "test_file": str(directory / "test.csv"),
    }
    for name, model in (("lstm", "lstm"), ("tfidf", {"family": "tfidf"})):
        training = {"num_train_epochs": 8}
        train(small_recipe(directory, model, name=name, data=files, training=training))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert (
            main(["inspect", "runs/lstm", "runs/tfidf", "--output", "found", "--rows", "150", "--by", "shop,month"])
            == 0
        )
    return directory


@pytest.fixture
def found(folder):
    return json.loads((folder / "found" / "inspection.json").read_text(encoding="utf-8"))


@pytest.fixture
def said(folder):
    return pq.read_table(folder / "runs" / "lstm" / "predictions" / "test.parquet").to_pylist()


def test_slices_hold_every_row_once_and_add_up(found, said):
    right = sum(row["reference"] == row["predicted"] for row in said)
    for slices in (found["lengths"], found["by_label"]):
        assert sum(part["rows"] for part in slices) == found["test_rows"] == 200
        assert sum(part["rows"] * part["accuracy"]["lstm"]["value"] for part in slices) == pytest.approx(right)
    assert found["lengths"][0]["from"] == 0
    assert found["lengths"][-1]["to"] is None


def test_values_of_a_column_are_slices_held_against_all_other_rows(folder, found, said):
    shop, month = found["columns"]
    assert [(part["value"], part["rows"]) for part in shop["slices"]] == [(name, 40) for name in sorted(SHOPS)]
    is_right = {int(row["id"].removeprefix("test-")): row["reference"] == row["predicted"] for row in said}
    south = [right for number, right in is_right.items() if number % 5 == 1]
    rest = [right for number, right in is_right.items() if number % 5 != 1]
    of_south = next(part for part in shop["slices"] if part["value"] == "south")
    assert of_south["accuracy"]["lstm"]["value"] == pytest.approx(np.mean(south))
    difference = of_south["difference"]["lstm"]
    assert difference["value"] == pytest.approx(np.mean(south) - np.mean(rest))
    assert difference["low"] < difference["value"] < difference["high"]
    assert (shop["others"]["values"], month["values"], len(month["slices"])) == (0, 30, 20)
    assert month["others"] == {"values": 10, "rows": 200 - sum(part["rows"] for part in month["slices"])}
    page = (folder / "found" / "inspection.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;east" in page
    assert "(empty)" in page
    assert "30 values: the 20 with the most rows are shown, and not 10 others with" in page


def test_noise_is_scored_on_the_rows_that_it_changes(folder, found):
    kinds = {entry["noise"]: entry for entry in found["noise"]}
    assert {"spaces_removed", "jamo_typos", "laughter"} <= kinds.keys()
    assert "typos" not in kinds  # there is no Latin word
    texts = [line.split(",")[::3] for line in (folder / "test.csv").read_text(encoding="utf-8").splitlines()[1:]]
    chosen = np.random.default_rng(0).permutation(200)[:150]
    changed = [
        (new, texts[place][1])
        for row, place in enumerate(chosen.tolist())
        if (new := noisy(texts[place][0], "jamo_typos", f"0 row {row}")) != texts[place][0]
    ]
    entry = kinds["jamo_typos"]
    assert entry["rows"] == len(changed)
    classifier = load_classifier(str(folder / "runs" / "lstm"))
    answers = classifier.answers(classifier.classify([text for text, _ in changed]))
    right = sum(answer == label for answer, (_, label) in zip(answers, changed, strict=True))
    of_run = entry["runs"]["lstm"]
    assert of_run["accuracy"]["value"] == pytest.approx(right / len(changed))
    assert of_run["drop"]["value"] == pytest.approx(of_run["clean"]["value"] - of_run["accuracy"]["value"])
    assert of_run["drop"]["low"] <= of_run["drop"]["value"] <= of_run["drop"]["high"]


def test_mistakes_are_the_surest_and_wrong_labels_are_suspected(found, said):
    mistakes = found["mistakes"]["lstm"]
    assert all(row["reference"] != row["predicted"] for row in mistakes)
    probabilities = [row["probability"] for row in mistakes]
    assert probabilities == sorted(probabilities, reverse=True)
    assert probabilities[0] == max(max(row["scores"]) for row in said if row["reference"] != row["predicted"])
    shown = {row["text"].rsplit(" ", 1)[1] for row in found["suspects"]["rows"][:6]}
    assert len({str(number) for number in range(300, 305)} & shown) >= 4


def test_the_surest_mistakes_of_a_model_say_what_they_rest_on(folder, found):
    rows = found["mistakes"]["lstm"]
    assert [("attribution" in row) for row in rows] == [number < 5 for number in range(len(rows))]
    assert not any("attribution" in row for row in found["mistakes"]["tfidf"])
    for row in rows[:5]:
        told = row["attribution"]
        assert told["label"] == row["predicted"] != row["reference"]
        assert told["value"] == pytest.approx(row["probability"], abs=1e-4)
        sum_of_scores = sum(token["score"] for token in told["tokens"])
        assert told["baseline"] + sum_of_scores + told["error"] == pytest.approx(told["value"], abs=1e-4)
        assert all(row["text"][token["start"] : token["end"]] == token["text"] for token in told["tokens"])
    strongest = max(rows[0]["attribution"]["tokens"], key=lambda token: token["score"])
    shown = f"{strongest['text']} {strongest['score']:+.3f}"
    assert f"| {shown}" in (folder / "found" / "inspection.md").read_text(encoding="utf-8")
    page = (folder / "found" / "inspection.html").read_text(encoding="utf-8")
    assert f"most for it: {shown}" in page
    assert 'class="for" style="--share: 1.000"' in page
    assert "n-grams overlap" in page


def test_the_page_shows_all_of_it(folder, found):
    page = (folder / "found" / "inspection.md").read_text(encoding="utf-8")
    assert "| Noise | Rows | lstm | Drop points | tfidf | Drop points |" in page
    assert "## Labels that may be wrong" in page
    assert found["suspects"]["rows"][0]["text"] in page


def test_the_html_page_is_whole_escaped_and_alone(folder, found):
    page = (folder / "found" / "inspection.html").read_text(encoding="utf-8")
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    assert set(outline.references) <= set(outline.ids)
    assert re.findall(r"https?://|<script|<link|<img|@import|url\((?!#)", page) == []
    assert found["mistakes"]["lstm"][0]["text"] in page
    assert outline.tags.count("figure") == 2
    assert "Accuracy under noise, and on the same rows as they are" in page
    hostile = "</p><img src=x onerror=alert(1)>\"'"
    for rows in (*found["mistakes"].values(), found["disagreements"], found["suspects"]["rows"]):
        rows[0].update(text=hostile, id=hostile, reference=hostile)
    found["by_label"][0]["label"] = found["noise"][0]["noise"] = hostile
    assert "<img" not in inspection_page(found)
    assert "<img" not in inspection_markdown(found)


def test_it_says_how_right_each_run_is_and_where_the_page_lies(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["inspect", "runs/tfidf", "--output", "alone", "--rows", "20"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert re.match(r"tfidf has [\d.]+ % \[.*\] of 200 test rows right; ", printed[0])
    assert printed[-1] == "Report: alone/inspection.html"
    assert "differ" not in (folder / "alone" / "inspection.html").read_text(encoding="utf-8")


def test_it_leaves_the_count_of_looks_alone(folder):
    for name in ("lstm", "tfidf"):
        scores = json.loads((folder / "runs" / name / "scores.json").read_text(encoding="utf-8"))
        assert scores["splits"]["test"]["times_scored"] == 1


def test_users_mistakes(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert "are the same run directory" in fails(capsys, "inspect", "runs/lstm", "runs/lstm", "--output", "x")
    assert "--rows is a whole number" in fails(capsys, "inspect", "runs/lstm", "--output", "x", "--rows", "0")
    shown = fails(capsys, "inspect", "runs/tfidf", "--output", "x", "--by", "shop,mont")
    assert "no column 'mont' among" in shown
    assert "did you mean 'month'?" in shown
    shown = fails(capsys, "inspect", "runs/tfidf", "--output", "x", "--by", "text")
    assert "each of the 200 test rows has a value of its own" in shown
    assert not (folder / "x").exists()
    stars = train(
        small_recipe(tmp_path, "lstm", task="rate", data={"train_file": str(write_ratings(tmp_path / "stars.csv", 60))})
    )
    assert "inspect is for runs that give one label" in fails(capsys, "inspect", str(stars.path), "--output", "x")
    (tmp_path / "other").mkdir()
    other = train(small_recipe(tmp_path / "other", "lstm", rows=60))
    assert "are not those of the first run" in fails(capsys, "inspect", "runs/lstm", str(other.path), "--output", "x")
