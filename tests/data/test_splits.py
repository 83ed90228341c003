"""Splits: what is set aside, counted, dropped and refused."""

import numpy as np
import pytest
from reviews import review_rows, write_csv

from finetune.data import load_splits
from finetune.data.splits import column, further_column, label_array, normalized_key, stratified_order
from finetune.errors import UserError
from finetune.recipe import Data


def write_rows(path, rows):
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return str(path)


def refusal(**fields):
    with pytest.raises(UserError) as caught:
        load_splits(Data(**fields))
    return str(caught.value)


def test_validation_and_test_are_set_aside_stratified_and_apart(tmp_path):
    data = Data(train_file=str(write_csv(tmp_path / "a.csv", 200)), test_fraction=0.2, validation_fraction=0.1)
    splits = load_splits(data)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [144, 16, 40]
    ids = [set(column(splits[name], "id")) for name in ("train", "validation", "test")]
    assert len(set.union(*ids)) == 200
    for name in ("train", "validation", "test"):
        assert abs(label_array(splits[name]).mean() - 0.5) <= 0.07
    assert splits.labels == ["negative", "positive"]
    assert splits.report["set_aside_from_train"] == ["validation", "test"]


def test_equal_seeds_give_equal_splits_and_other_seeds_others(tmp_path):
    path = str(write_csv(tmp_path / "a.csv", 100))
    first, again, other = (load_splits(Data(train_file=path, split_seed=seed)) for seed in (1, 1, 2))
    assert first.report["splits"] == again.report["splits"]
    assert first.report["splits"]["test"] != other.report["splits"]["test"]


def test_repeats_of_a_text_stay_on_one_side(tmp_path):
    rows = [(f"{text}", label) for text, label in review_rows(60) for _ in range(3)]
    splits = load_splits(Data(train_file=write_rows(tmp_path / "a.csv", rows)))
    texts = [set(column(splits[name], "text")) for name in ("train", "validation", "test")]
    assert not (texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2])
    assert splits.report["leaked_test_rows"] == {"exact": 0, "normalized": 0}
    assert splits.report["repeated_train_rows"] > 0


def test_leaks_between_given_files_are_found(tmp_path):
    train = write_rows(tmp_path / "a.csv", [*review_rows(20), ("Good Film!", "positive"), ("same", "negative")])
    test = write_rows(tmp_path / "b.csv", [("good film", "positive"), ("same", "negative"), ("new", "negative")])
    splits = load_splits(Data(train_file=train, test_file=test))
    assert splits.report["leaked_test_rows"] == {"exact": 1, "normalized": 2}
    assert splits.leaked_test_ids == {"test-0", "test-1"}


def test_limits_give_nested_stratified_samples(tmp_path):
    path = str(write_csv(tmp_path / "a.csv", 200))
    small, large = (load_splits(Data(train_file=path, max_train_rows=size)) for size in (20, 60))
    assert set(column(small.train, "id")) < set(column(large.train, "id"))
    assert label_array(small.train).mean() == 0.5
    assert column(small.test, "id") == column(large.test, "id")


def test_stratified_order_keeps_proportions_in_every_prefix():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    order = stratified_order(labels, seed=3)
    assert sorted(order) == list(range(1000))
    for size in (50, 100, 500):
        counts = np.bincount(labels[order[:size]], minlength=3)
        assert np.abs(counts - size * np.array([0.6, 0.3, 0.1])).max() <= 1.01


def test_labels_are_mapped_merged_and_ordered_by_the_recipe(tmp_path):
    rows = [(f"text {i}", label) for i, label in enumerate(["5", "4", "3", "2", "1"] * 20)]
    labels = {"1": "bad", "2": "bad", "3": "middling", "4": "good", "5": "good"}
    splits = load_splits(Data(train_file=write_rows(tmp_path / "a.csv", rows), labels=labels))
    assert splits.labels == ["bad", "middling", "good"]
    total = dict.fromkeys(splits.labels, 0)
    for split in splits.report["splits"].values():
        for name, count in split["label_counts"].items():
            total[name] += count
    assert total == {"bad": 40, "middling": 20, "good": 40}


def test_number_labels_sort_as_numbers(tmp_path):
    rows = [(f"text {i}", str(i % 11)) for i in range(220)]
    splits = load_splits(Data(train_file=write_rows(tmp_path / "a.csv", rows)))
    assert splits.labels == [str(i) for i in range(11)]


def test_empty_texts_are_dropped_and_counted(tmp_path):
    rows = [*review_rows(40), ("", "positive"), ("   ", "negative")]
    splits = load_splits(Data(train_file=write_rows(tmp_path / "a.csv", rows)))
    assert splits.report["splits"]["train"]["dropped"] == {"empty": 2}


def test_bad_rows_are_refused_by_file_and_row(tmp_path):
    rows = review_rows(20)
    missing = write_rows(tmp_path / "a.csv", [*rows, ("text", "")])
    assert f"{missing}, row 22: no label" in refusal(train_file=missing)
    strange = write_rows(tmp_path / "b.csv", [*rows, ("text", "maybe")])
    labels = {"positive": "p", "negative": "n"}
    assert f"{strange}, row 22: the label 'maybe' is not among positive, negative" in refusal(
        train_file=strange, labels=labels
    )
    constant = write_rows(tmp_path / "c.csv", [("a", "1"), ("b", "1")])
    assert "two labels or more are needed in 'label', found ['1']" in refusal(train_file=constant)
    twice = tmp_path / "d.csv"
    twice.write_text("key,text,label\n7,a,0\n7,b,1\n")
    assert "the id '7' in 'key' stands twice" in refusal(train_file=str(twice), id_column="key")
    texts = write_rows(tmp_path / "e.csv", [(str(i), f"label {i}") for i in range(1200)])
    assert "is that the label column?" in refusal(train_file=texts)


def test_a_label_without_training_rows_is_refused(tmp_path):
    path = write_rows(tmp_path / "a.csv", review_rows(40))
    labels = {"negative": "n", "neutral": "0", "positive": "p"}
    assert "no training row has the label '0'" in refusal(train_file=path, labels=labels)


def test_a_missing_hub_data_set_is_one_line_without_a_network():
    message = refusal(dataset_name="nobody/nothing")
    assert "data set 'nobody/nothing', split 'train'" in message
    assert "HF_HUB_OFFLINE is set" in message


def test_normalized_key():
    assert normalized_key("Ｇｏｏｄ, 영화!! 1") == "good영화1"
    assert normalized_key("… !") == normalized_key("...!") != normalized_key("!!!")


def test_nsmc_flaws_are_counted(nsmc):
    splits = load_splits(
        Data(
            train_file=str(nsmc / "train.parquet"),
            test_file=str(nsmc / "test.parquet"),
            text_column="document",
            id_column="id",
            labels={"0": "negative", "1": "positive"},
        )
    )
    report = splits.report
    assert report["splits"]["train"]["dropped"] == {"empty": 5}
    assert report["splits"]["test"]["dropped"] == {"empty": 3}
    assert len(splits.train) + len(splits.validation) == 149_995
    # The published counts are 3,817, 1,571 and 2,569 with the empty rows, which repeat and overlap too.
    assert report["repeated_train_rows"] == 3_813
    assert report["leaked_test_rows"] == {"exact": 1_568, "normalized": 2_566}
    assert abs(len(splits.validation) - 15_000) < 100


def test_several_training_files_are_one_and_their_labels_too(tmp_path):
    good = write_rows(tmp_path / "good.csv", [(f"좋다 {n}", "positive") for n in range(30)])
    bad = write_rows(tmp_path / "bad.csv", [(f"싫다 {n}", "negative") for n in range(20)])
    splits = load_splits(Data(train_file=good, more_train_files=bad))
    assert splits.labels == ["negative", "positive"]
    assert sum(len(splits[name]) for name in ("train", "validation", "test")) == 50
    ids = [row_id for name in ("train", "validation", "test") for row_id in column(splits[name], "id")]
    assert len(set(ids)) == 50
    assert [file["name"] for file in splits.report["more_train_files"]] == ["bad.csv"]
    assert "together: the id" in refusal(train_file=good, more_train_files=[bad, good], id_column="text")
    with pytest.raises(ValueError, match="goes with train_file"):
        Data(dataset_name="a/b", more_train_files=(bad,))


def test_text_without_labels(tmp_path):
    (tmp_path / "a.txt").write_text("가\n\n나\n다\n", encoding="utf-8")
    data = Data(train_file=str(tmp_path / "a.txt"), validation_fraction=0.34, test_fraction=0.34)
    splits = load_splits(data, "masked_lm")
    assert splits.labels == []
    assert "label" not in splits.train.column_names
    assert sorted(text for name in ("train", "validation", "test") for text in column(splits[name], "text")) == [
        "가", "나", "다",
    ]  # fmt: skip
    assert splits.report["splits"]["train"]["dropped"] == {"empty": 1}
    # The same name with labels is a table.
    (tmp_path / "a.txt").write_text("text\tlabel\n가\t1\n나\t0\n", encoding="utf-8")
    assert "no rows" in refusal(train_file=str(tmp_path / "a.txt"), validation_fraction=0, test_fraction=0)


def test_a_further_column_keeps_to_its_rows_when_they_are_set_aside_and_dropped(tmp_path):
    rows = review_rows(60)
    for name, begin, end in (("a.csv", 0, 40), ("b.csv", 40, 60)):
        lines = [f"{'' if n % 7 == 3 else text},{label},{text.split()[-1]}" for n, (text, label) in enumerate(rows)]
        (tmp_path / name).write_text("text,label,number\n" + "\n".join(lines[begin:end]) + "\n", encoding="utf-8")
    data = Data(train_file=str(tmp_path / "a.csv"), more_train_files=(str(tmp_path / "b.csv"),), test_fraction=0.4)
    splits = load_splits(data)
    for split in ("train", "test"):
        numbers = further_column(data, splits, split, "number")
        assert numbers == [text.split()[-1] for text in column(splits[split], "text")]
    with pytest.raises(UserError, match=r"a.csv: no column 'numbr' among .*; did you mean 'number'"):
        further_column(data, splits, "test", "numbr")
