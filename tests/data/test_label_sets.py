"""Rows with any number of labels: lists, texts and columns give the same, and what is malformed is named."""

import json

import datasets
import numpy as np
import pytest
from reviews import TOPICS, topic_rows

from finetune.data import load_file, load_rows, load_splits
from finetune.data.splits import _strata as strata
from finetune.data.splits import label_array, rows_fingerprint, stratified_order
from finetune.errors import UserError
from finetune.recipe import Data

ROWS = topic_rows(200)
COLUMNS = tuple(TOPICS)


def write_jsonl(path, rows):
    path.write_text(
        "".join(json.dumps({"text": text, "label": labels}, ensure_ascii=False) + "\n" for text, labels in rows),
        encoding="utf-8",
    )
    return str(path)


def write_lines(path, header, lines):
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return str(path)


def write_csv(path, rows, separator="|"):
    return write_lines(path, "text,label", [f"{text},{separator.join(labels)}" for text, labels in rows])


def write_columns(path, rows):
    bits = [f"{text}," + ",".join(str(int(name in labels)) for name in COLUMNS) for text, labels in rows]
    return write_lines(path, ",".join(["text", *COLUMNS]), bits)


def splits_of(file, **fields):
    return load_splits(Data(train_file=file, **fields), "multi_label")


def refusal(file, **fields):
    with pytest.raises(UserError) as error:
        splits_of(file, **fields)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_all_forms_give_the_same_rows(tmp_path):
    expected = splits_of(write_jsonl(tmp_path / "a.jsonl", ROWS))
    frame = {"text": [text for text, _ in ROWS], "label": [labels for _, labels in ROWS]}
    datasets.Dataset.from_dict(frame).to_parquet(tmp_path / "a.parquet")
    others = [
        splits_of(write_csv(tmp_path / "a.csv", ROWS)),
        splits_of(write_csv(tmp_path / "b.csv", ROWS, " / "), label_separator="/"),
        splits_of(write_columns(tmp_path / "c.csv", ROWS), label_columns=COLUMNS),
        splits_of(str(tmp_path / "a.parquet")),
    ]
    assert expected.labels == list(COLUMNS)
    said = {row["text"]: row["label"] for split in ("train", "validation", "test") for row in expected[split]}
    assert said == {text: [float(name in labels) for name in COLUMNS] for text, labels in ROWS}
    for other in others:
        assert other.labels == expected.labels
        for split in ("train", "validation", "test"):
            assert other[split][:] == expected[split][:]
            fingerprints = [s.report["splits"][split]["rows_fingerprint"] for s in (other, expected)]
            assert fingerprints[0] == fingerprints[1]


def test_rows_without_labels_survive_and_are_counted(tmp_path):
    bare = sum(not labels for _, labels in ROWS)
    assert bare > 20
    for file in (write_csv(tmp_path / "a.csv", ROWS), write_jsonl(tmp_path / "a.jsonl", ROWS)):
        report = splits_of(file).report["splits"]
        assert sum(split["count"] for split in report.values()) == len(ROWS)
        assert sum(split["without_labels"] for split in report.values()) == bare
        counted = {name: sum(split["label_counts"][name] for split in report.values()) for name in COLUMNS}
        assert counted == {name: sum(name in labels for _, labels in ROWS) for name in COLUMNS}
    nothing = write_lines(
        tmp_path / "n.jsonl", '{"text": "물", "label": null}', ['{"text": "불", "label": ["a", "b"]}']
    )
    rows, names, _ = load_rows(Data(train_file=nothing), "multi_label")
    assert names == ["a", "b"]
    assert rows["label"] == [[0.0, 0.0], [1.0, 1.0]]


def test_other_labels_make_another_fingerprint(tmp_path):
    prints = []
    for name, labels in (("a", ["음악"]), ("b", ["연기"]), ("c", ["음악"])):
        file = write_csv(tmp_path / f"{name}.csv", [*ROWS, ("물", labels)])
        rows, names, _ = load_rows(Data(train_file=file), "multi_label")
        prints.append(rows_fingerprint(rows, names))
    assert prints[0] != prints[1]
    assert prints[0] == prints[2]


def test_names_rename_order_and_merge(tmp_path):
    names = {"이야기": "story", "음악": "sound", "연기": "story"}
    for file, fields in (
        (write_csv(tmp_path / "a.csv", ROWS), {}),
        (write_columns(tmp_path / "c.csv", ROWS), {"label_columns": COLUMNS}),
    ):
        splits = splits_of(file, labels=names, **fields)
        assert splits.labels == ["story", "sound"]
        said = {row["text"]: row["label"] for row in splits.train}
        wanted = dict(ROWS)
        assert all(
            label == [float(bool({"이야기", "연기"} & set(wanted[text]))), float("음악" in wanted[text])]
            for text, label in said.items()
        )
    # A file from elsewhere may hold the names.
    other = write_lines(tmp_path / "d.csv", "text,label", ["물,sound|이야기", "불,"])
    data = Data(train_file=other, labels={"story": "story", "sound": "sound", **names})
    assert load_file(data, tmp_path / "d.csv", "multi_label")["label"] == [[1.0, 1.0], [0.0, 0.0]]


def test_class_labels_of_a_data_set_name_themselves(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=["z", "a", "m"]))}
    )
    rows = {"text": [f"글 {i}" for i in range(30)], "label": [[0], [1, 2], []] * 10}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "a.parquet")
    splits = splits_of(str(tmp_path / "a.parquet"))
    assert splits.labels == ["z", "a", "m"]
    assert {tuple(label) for label in splits.train["label"]} == {(1, 0, 0), (0, 1, 1), (0, 0, 0)}


@pytest.mark.parametrize(
    ("header", "line", "fields", "message"),
    [
        ("text,label", "x,a||b", {}, "row 5: an empty label in 'a||b', parted by '|'; mend the row"),
        ("text,label", "x,c", {"labels": {"a": "a", "b": "b"}}, "row 5: the label 'c' is not among a, b; mend the row"),
        (
            "text,a,b",
            "x,1,2",
            {"label_columns": ("a", "b")},
            "row 5: the column 'b' holds '2', not 0 or 1; mend the row",
        ),
        ("text,a,b", "x,1,", {"label_columns": ("a", "b")}, "row 5: the column 'b' holds nothing, not 0 or 1"),
        (
            "text,a,b",
            "x,0,1",
            {"label_columns": ("a", "bb")},
            "no column 'bb' among 'text', 'a', 'b'; did you mean 'b'?",
        ),
    ],
)
def test_what_is_malformed_is_named_with_its_row(tmp_path, header, line, fields, message):
    good = ["y,a|b", "z,a", "w,b"] if header == "text,label" else ["y,1,1", "z,1,0", "w,0,1"]
    said = refusal(write_lines(tmp_path / "bad.csv", header, [*good, line, *good]), **fields)
    assert message in said
    assert "bad.csv" in said


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('["a", null]', "row 2: None among the labels is no label; mend the row"),
        ('["a", [1]]', "bad.jsonl"),
        ('{"a": 1}', "row 2"),
        ('"b"', "row 2: 'label' is text here and a list in row 1; write it in one way"),
    ],
)
def test_lists_that_are_malformed_are_refused(tmp_path, value, message):
    lines = ['{"text": "y", "label": ["a", "b"]}', f'{{"text": "x", "label": {value}}}']
    said = refusal(write_lines(tmp_path / "bad.jsonl", lines[0], lines[1:]))
    assert message in said
    assert "bad.jsonl" in said


def test_labels_that_hold_the_separator_or_are_too_few_are_refused(tmp_path):
    rows = [("y", ["a|b", "c"]), ("z", ["c"])] * 5
    assert "'a|b' holds '|'" in refusal(write_jsonl(tmp_path / "a.jsonl", rows))
    assert "data.label_separator" in refusal(write_jsonl(tmp_path / "a.jsonl", rows))
    assert "two labels or more are needed" in refusal(write_jsonl(tmp_path / "b.jsonl", [("y", ["a"]), ("z", [])] * 5))
    never = {"연기": "연기", "음악": "음악", "이야기": "이야기", "편집": "편집"}
    assert "no training row has the label '편집'" in refusal(write_csv(tmp_path / "c.csv", ROWS), labels=never)


def test_what_is_set_aside_has_every_set_of_labels_in_proportion(tmp_path):
    rows = topic_rows(1000, seed=1, shares=(0.5, 0.3, 0.02))
    splits = splits_of(write_csv(tmp_path / "a.csv", rows))
    whole = np.array([[name in labels for name in splits.labels] for _, labels in rows]).mean(axis=0)
    for split in ("validation", "test"):
        shares = label_array(splits[split]).mean(axis=0)
        # By chance alone the second label would miss its share by 3 points in every third split.
        assert np.abs(shares - whole).max() < 0.012, (split, shares, whole)
    # Two of each rare label's rows are in every half of the order, whatever else they are labelled with.
    order = stratified_order(strata(splits.train), 0)
    rare = label_array(splits.train)[order][:, splits.labels.index("이야기")]
    first, second = rare[: len(rare) // 2].sum(), rare[len(rare) // 2 :].sum()
    assert abs(first - second) <= 2
