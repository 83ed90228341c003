"""Recipes by training size and seed: tuned on validation alone, nested samples, paired intervals, cells resumed."""

import json

import numpy as np
import pytest
from command_line import fails
from reviews import write_csv

from finetune.cli import main
from finetune.data import load_splits
from finetune.data.splits import column
from finetune.errors import UserError
from finetune.recipe import load_recipe
from finetune.reporting.learning_curve import _bootstrap

RNN = """
name: gru
data: {train_file: reviews.csv}
text: {vocabulary_size: 200, max_length: 16}
model: {family: recurrent, cell: gru, embedding_size: 8, hidden_size: 8}
training: {num_train_epochs: 1, batch_size: 16, learning_rate: 1e-2, threads: 1}
evaluation: {bootstrap_samples: 100}
"""
FLOOR = "name: {name}\ndata: {{train_file: reviews.csv}}\nmodel: {{family: {family}}}\n"
ARGUMENTS = (
    "curve",
    "gru.yaml",
    "tfidf.yaml",
    "majority.yaml",
    "--sizes",
    "40,80",
    "--seeds",
    "2",
    "--output",
    "curve",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("curve")
    write_csv(directory / "reviews.csv", 300)
    (directory / "gru.yaml").write_text(RNN, encoding="utf-8")
    for family in ("tfidf", "majority"):
        (directory / f"{family}.yaml").write_text(FLOOR.format(name=family, family=family), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert main(ARGUMENTS) == 0
    return directory


@pytest.fixture(autouse=True)
def working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)


def cell_names(folder):
    """The runs in the table, seed by seed."""
    summary = json.loads((folder / "curve" / "curve.json").read_text(encoding="utf-8"))
    for entry in summary["by_size"]:
        for name, values in entry["recipes"].items():
            tuned = "" if name == "majority" else f"-x{values['factor']:.2g}"
            yield from (f"{name}-{entry['size']}-seed{seed}{tuned}" for seed in range(2))


def test_every_cell_is_a_run_and_tuning_leaves_the_test_sealed(folder):
    runs = {path.name: path for path in (folder / "curve" / "runs").iterdir()}
    cells = set(cell_names(folder))
    tried = {f"{r}-{n}-seed0-x{x}" for r in ("gru", "tfidf") for n in (40, 80) for x in ("0.33", "1", "3")}
    assert set(runs) == cells | tried  # the majority has nothing to tune
    for name, path in runs.items():
        splits = json.loads((path / "scores.json").read_text())["splits"]
        assert ("test" in splits) == (path / "predictions" / "test.parquet").exists() == (name in cells)
        assert splits.get("test", {"times_scored": 1})["times_scored"] == 1
        assert not (path / "checkpoints").exists()


def test_the_table_says_what_the_runs_scored(folder):
    summary = json.loads((folder / "curve" / "curve.json").read_text(encoding="utf-8"))
    assert summary["sizes"] == [40, 80]
    for entry in summary["by_size"]:
        for name, values in entry["recipes"].items():
            accuracies = []
            for cell in (cell for cell in cell_names(folder) if cell.startswith(f"{name}-{entry['size']}-")):
                scores = (folder / "curve" / "runs" / cell / "scores.json").read_text()
                accuracies.append(json.loads(scores)["splits"]["test"]["metrics"]["accuracy"]["value"])
            assert values["accuracy_by_seed"] == pytest.approx(accuracies)
            assert values["accuracy"]["value"] == pytest.approx(np.mean(accuracies))
            assert values["accuracy"]["low"] <= values["accuracy"]["value"] <= values["accuracy"]["high"]
            for other, lead in values["lead"].items():
                back = entry["recipes"][other]["lead"][name]
                assert lead["value"] == pytest.approx(-back["value"])
                assert lead["low"] == pytest.approx(-back["high"])
    page = (folder / "curve" / "curve.md").read_text(encoding="utf-8")
    first = 100 * summary["by_size"][0]["recipes"]["gru"]["accuracy"]["value"]
    assert f"| gru | {first:.1f} [" in page
    assert "| gru − tfidf | " in page


def test_the_factor_is_the_best_on_validation(folder):
    summary = json.loads((folder / "curve" / "curve.json").read_text(encoding="utf-8"))
    for entry in summary["by_size"]:
        for name in ("gru", "tfidf"):
            found = {}
            for factor in summary["tuning"]["factors"]:
                run = folder / "curve" / "runs" / f"{name}-{entry['size']}-seed0-x{factor:.2g}"
                scores = json.loads((run / "scores.json").read_text())
                found[factor] = scores["splits"]["validation"]["metrics"]["accuracy"]["value"]
            assert found[entry["recipes"][name]["factor"]] == max(found.values())


def test_seeds_have_samples_of_their_own_and_sizes_nest():
    def texts(size, seed):
        overrides = [("data.max_train_rows", str(size)), ("data.train_sample_seed", str(seed))]
        splits = load_splits(load_recipe("gru.yaml", overrides).data)
        return set(column(splits.train, "id")), column(splits.test, "id"), column(splits.validation, "id")

    small, test, validation = texts(40, 0)
    large, same_test, same_validation = texts(80, 0)
    other, other_test, other_validation = texts(40, 1)
    assert small < large
    assert small != other
    assert test == same_test == other_test
    assert validation == same_validation == other_validation


def test_a_second_call_trains_nothing(folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in (folder / "curve" / "runs").rglob("*.json")}
    page = (folder / "curve" / "curve.md").read_text(encoding="utf-8")
    assert main(ARGUMENTS) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (folder / "curve" / "curve.md").read_text(encoding="utf-8") == page


def test_leaks_are_dropped_alike_at_every_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "reviews.csv", 200)
    write_csv(tmp_path / "test.csv", 60)  # begins as the training file does
    (tmp_path / "gru.yaml").write_text(RNN, encoding="utf-8")
    tests = []
    for size in (20, 150):
        overrides = [("data.test_file", "test.csv"), ("data.max_train_rows", str(size))]
        whole = load_splits(load_recipe("gru.yaml", overrides).data)
        assert whole.leaked_test_ids
        with pytest.raises(UserError, match="every test row"):
            load_splits(load_recipe("gru.yaml", [*overrides, ("data.leaked_test_rows", "drop")]).data)
        tests.append(column(whole.test, "id"))
    assert tests[0] == tests[1]


def test_rows_that_change_are_read_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gru.yaml").write_text(RNN, encoding="utf-8")
    counts = []
    for rows in (100, 200):
        write_csv(tmp_path / "reviews.csv", rows)
        counts.append(len(load_splits(load_recipe("gru.yaml").data).train))
    assert counts[0] < counts[1]


def test_intervals_have_seeds_and_rows_in_them():
    generator = np.random.default_rng(1)
    alike = np.repeat(generator.random((1, 1, 500)) < 0.8, 4, axis=1).astype(float)
    differing = np.stack([np.full(500, share) for share in (0.6, 0.7, 0.8, 0.9)])[None]
    rows_only, seeds_only = _bootstrap(alike)[:, 0], _bootstrap(differing)[:, 0]
    assert rows_only.std() == pytest.approx(alike.std() / 500**0.5, rel=0.1)
    assert seeds_only.std() == pytest.approx(np.std([0.6, 0.7, 0.8, 0.9]) / 2, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gru.yaml", "gru.yaml", "--sizes", "40"], "two recipes have one name"),
        (["gru.yaml", "--sizes", "many"], "whole numbers are needed"),
        (["gru.yaml", "--sizes", "0"], "whole numbers from 1 on"),
        (["gru.yaml", "--sizes", "40,1000"], "--sizes 1000 is more than the 216 training rows"),
        (["gru.yaml", "--sizes", "40", "--seed", "7", "--nonsense", "1"], "unknown key"),
        (["gru.yaml", "--sizes", "40", "--task", "rate"], "only classify has a curve"),
        (["gru.yaml", "quickstart-tfidf", "--sizes", "40"], "different data"),
    ],
)
def test_a_users_error_is_one_line(capsys, arguments, message):
    assert message in fails(capsys, "curve", *arguments, "--output", "refused")
