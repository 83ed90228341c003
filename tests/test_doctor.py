"""The doctor: each finding on a small set made for it, and the known flaws of NSMC where it is present."""

import json

import pytest
from reviews import review_rows, write_csv

from finetune.cli import main
from finetune.data import load_splits
from finetune.doctor import diagnose, examine_splits, summarize
from finetune.recipe import Data, recipe_for_file
from finetune.text import train_tokenizer
from finetune.training import train as run_recipe


def write(path, rows, header="text,label"):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return str(path)


def found(report, check):
    return [finding for finding in report["findings"] if finding["check"] == check]


def diagnose_rows(tmp_path, rows):
    return diagnose(recipe_for_file(write(tmp_path / "rows.csv", rows)))


def test_a_clean_file_has_no_findings(tmp_path):
    report = diagnose_rows(tmp_path, review_rows(100))
    assert report["findings"] == []
    assert report["splits"]["rows"]["rows"] == 100


def test_repeats_conflicts_and_empty_rows_are_counted(tmp_path):
    rows = [
        *review_rows(20),
        ("Good film", "positive"),
        ("good film!", "negative"),
        ("Good film", "negative"),
        (" ", "positive"),
    ]
    report = diagnose_rows(tmp_path, rows)
    measured = report["splits"]["rows"]
    assert (measured["rows"], measured["empty"]) == (23, 1)
    assert measured["repeats"] == {"exact": 1, "normalized": 2}
    assert found(report, "conflicts")[0]["examples"] == ["row-20", "row-22"]
    assert found(report, "empty")[0]["grade"] == "note"


def test_overlaps_count_validation_as_seen_and_empty_rows_of_the_files(tmp_path):
    train = write(tmp_path / "train.csv", [*review_rows(20), ("only in train", "positive"), ("", "positive")])
    validation = write(tmp_path / "validation.csv", [*review_rows(4, seed=5), ("in validation", "negative")])
    test = write(
        tmp_path / "test.csv",
        [("only in train", "positive"), ("In Validation?", "negative"), ("", "negative"), ("new", "positive")],
    )
    data = {"train_file": train, "validation_file": validation, "test_file": test}
    report = diagnose(recipe_for_file(train, [(f"data.{name}", path) for name, path in data.items()]))
    assert report["overlaps"]["test"] == {"in": ["train", "validation"], "exact": 2, "normalized": 3, "empty": 1}
    in_test = next(finding for finding in found(report, "overlap") if finding["message"].startswith("test: "))
    assert "(1 of them empty), 66.7% of the rows with text" in in_test["message"]  # the empty row is left out
    splits = load_splits(Data(**data, leaked_test_rows="drop"))
    assert [row["text"] for row in splits.test] == ["new"]
    assert splits.report["splits"]["test"]["dropped"] == {"empty": 1, "leaked": 2}
    assert len(load_splits(Data(**data)).leaked_test_ids) == 2


def test_imbalance_and_an_absent_label(tmp_path):
    rows = [(f"좋은 영화 {i}", "positive") for i in range(60)] + [("나쁜 영화", "negative")]
    assert "read macro F1" in found(diagnose_rows(tmp_path, rows), "balance")[0]["message"]


def test_a_tokenizer_of_another_language_is_an_alarm(tmp_path):
    english = train_tokenizer(
        ["an english text about films", "another one"] * 50,
        unit="subword", vocabulary_size=200, min_frequency=1, lowercase=False, max_length=32, begin_token=True,
    )  # fmt: skip
    splits = load_splits(Data(train_file=str(write_csv(tmp_path / "a.csv", 100))))
    report = examine_splits(splits, english, 32)
    unknown = found(report, "unknown")
    assert {finding["grade"] for finding in unknown} == {"alarm"}
    assert "unknown to the tokenizer" in summarize(report)[0]
    assert report["splits"]["train"]["lengths"]["most_unknown"]


def test_texts_that_are_cut(tmp_path):
    rows = [
        (" ".join(["길다"] * (50 if i % 4 == 0 else 3)) + f" {i}", label)
        for i, (_, label) in enumerate(review_rows(100))
    ]
    splits = load_splits(Data(train_file=write(tmp_path / "a.csv", rows)))
    tokenizer = train_tokenizer(
        (text for text, _ in rows), unit="word", vocabulary_size=200, min_frequency=1, lowercase=False, max_length=16,
        begin_token=False,
    )  # fmt: skip
    report = examine_splits(splits, tokenizer, 16)
    assert all("longer than text.max_length 16" in finding["message"] for finding in found(report, "length"))
    assert 0.15 < report["splits"]["train"]["lengths"]["truncated"] < 0.35


def test_scripts_and_signs_of_a_wrong_encoding(tmp_path):
    rows = [
        *review_rows(80),
        *((f"an english text {i}", "positive") for i in range(20)),
        ("깨진 � 글", "negative"),
        ("a\x07b", "negative"),
    ]
    report = diagnose_rows(tmp_path, rows)
    scripts = found(report, "scripts")[0]
    assert scripts["grade"] == "warning"
    assert "Hangul" in scripts["message"]
    assert "Latin" in scripts["message"]
    wrong, control = found(report, "encoding")
    assert (wrong["examples"], control["examples"]) == (["row-100"], ["row-101"])


def test_the_page_and_the_json(tmp_path, capsys):
    path = write(tmp_path / "rows.csv", [*review_rows(40), ("같은 글", "positive"), ("같은 글", "positive")], "글,라벨")
    arguments = ["doctor", path, "--data.text_column", "글", "--data.label_column", "라벨"]
    assert main(arguments) == 0
    page = capsys.readouterr().out
    assert "label negative" in page
    assert "1 rows repeat another's text" in page
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["rows"]["repeats"]["exact"] == 1
    assert main(["doctor", path]) == 2
    assert "no column 'text'" in capsys.readouterr().err


def test_findings_go_into_the_run(tmp_path):
    train = write(tmp_path / "a.csv", [*review_rows(60), ("같은 글", "positive"), ("같은 글!", "negative")])
    data = run_recipe(recipe_for_file(train, [("output_dir", str(tmp_path / "runs"))])).data()
    assert data["doctor"]["splits"]["train"]["rows"] == data["splits"]["train"]["count"]


@pytest.mark.slow
def test_the_known_flaws_of_nsmc(nsmc):
    files = {name: str(nsmc / f"{name}.parquet") for name in ("train", "test")}
    overrides = [("data.test_file", files["test"]), ("data.text_column", "document"), ("data.id_column", "id")]
    report = diagnose(recipe_for_file(files["train"], overrides))
    assert (report["overlaps"]["test"]["exact"], report["overlaps"]["test"]["normalized"]) == (1571, 2569)
    assert [report["splits"][name]["empty"] for name in ("train", "test")] == [5, 3]
