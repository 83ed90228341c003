"""Recipes by training size and seed: tuned on validation alone, nested samples, paired intervals, cells resumed."""

import json

import numpy as np
import pytest
from command_line import fails
from reviews import review_rows, write_csv

from finetune.cli import main
from finetune.data import load_splits
from finetune.data.splits import column
from finetune.errors import UserError
from finetune.recipe import load_recipe
from finetune.reporting.curve_page import render_curve_page
from finetune.reporting.learning_curve import bootstrap_scores, curve_markdown

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
            assert values["by_seed"] == pytest.approx(accuracies)
            assert values["accuracy"]["value"] == pytest.approx(np.mean(accuracies))
            assert values["accuracy"]["low"] <= values["accuracy"]["value"] <= values["accuracy"]["high"]
            for other, gap in values["difference"].items():
                back = entry["recipes"][other]["difference"][name]
                assert gap["value"] == pytest.approx(-back["value"])
                assert gap["low"] == pytest.approx(-back["high"])
    page = (folder / "curve" / "curve.md").read_text(encoding="utf-8")
    first = 100 * summary["by_size"][0]["recipes"]["gru"]["accuracy"]["value"]
    assert f"| gru | {first:.1f} [" in page
    assert "| gru − tfidf | " in page


def test_the_page_holds_all_of_it_and_needs_nothing_else(folder):
    page = (folder / "curve" / "curve.html").read_text(encoding="utf-8")
    summary = json.loads((folder / "curve" / "curve.json").read_text(encoding="utf-8"))
    for entry in summary["by_size"]:
        for values in entry["recipes"].values():
            assert f"{100 * values['accuracy']['value']:.1f} <span" in page
    for gap in summary["by_size"][0]["recipes"]["gru"]["difference"].values():
        assert f"{100 * gap['value']:+.1f} <span" in page
    assert 'aria-labelledby="sizes-title' in page
    assert "http" not in page.replace("http-equiv", "")
    drawing = (folder / "curve" / "curve.svg").read_text(encoding="utf-8")
    assert all(f">{name}</text>" in drawing for name in summary["recipes"])
    # These trainings take too short a time for the second plot; longer ones have it.
    for entry in summary["by_size"]:
        entry["recipes"]["gru"]["training_seconds"] = [3.0, 4.0]
    assert 'aria-labelledby="times-title' in render_curve_page(summary)


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


def test_a_comparison_of_its_runs_says_how_they_were_tuned(folder, tmp_path):
    entry = json.loads((folder / "curve" / "curve.json").read_text(encoding="utf-8"))["by_size"][1]
    found = {name: entry["recipes"][name]["factor"] for name in ("gru", "tfidf")}
    runs = [f"curve/runs/{name}-80-seed1-x{factor:.2g}" for name, factor in found.items()]
    assert main(["compare", *runs, "curve/runs/majority-80-seed1", "--output", str(tmp_path / "report")]) == 0
    for page in ("comparison.md", "index.html"):
        said = (tmp_path / "report" / page).read_text(encoding="utf-8").replace("&#39;", "'").replace("\\_", "_")
        for name, factor in found.items():
            own = {"gru": 0.01, "tfidf": load_recipe("tfidf.yaml").model.regularization}[name]
            field = {"gru": "training.learning_rate", "tfidf": "model.regularization"}[name]
            assert f"{name}-80-seed1-x{factor:.2g}'s {field} ({own * factor:.2g}) among 3 with 80 training rows" in said
        assert "not the same chance" not in said  # the majority has nothing to choose


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
    rows_only, seeds_only = (
        bootstrap_scores("classify", np.stack([correct, np.ones_like(correct)], axis=-1))[:, 0]
        for correct in (alike, differing)
    )
    assert rows_only.std() == pytest.approx(alike.std() / 500**0.5, rel=0.1)
    assert seeds_only.std() == pytest.approx(np.std([0.6, 0.7, 0.8, 0.9]) / 2, rel=0.1)


def test_the_words_say_who_is_ahead_and_who_loses(folder):
    """On figures made up: ahead, behind, and not told apart, where more is better and where less is."""

    def said(task, metric, gaps):
        entries = []
        for size, gap in enumerate(gaps, start=1):
            score, difference, back = ({"value": v, "low": v - 0.01, "high": v + 0.01} for v in (0.5, gap, -gap))
            rival = {"value": 0.5 - gap, "low": 0.5 - gap, "high": 0.5 - gap}
            of_first = {metric: score, "difference": {"b": difference}, "factor": 1.0, "by_seed": [0.5, 0.5]}
            of_rival = {metric: rival, "difference": {"a": back}, "factor": 1.0, "by_seed": [0.5, 0.5]}
            entries.append({"size": size, "recipes": {"a": of_first, "b": of_rival}})
        tuning = {"factors": [1.0], "fields": {}, "values": {}}
        about = {"test_rows": 9, "confidence_level": 0.95, "bootstrap_samples": 10}
        return curve_markdown({"task": task, "recipes": ["a", "b"], "by_size": entries, "tuning": tuning, **about})

    accuracy = said("classify", "accuracy", [0.04, -0.04, 0.005])
    assert "- 1 rows: a is 4.0 [3.0, 5.0] points ahead of b." in accuracy
    assert "- 2 rows: a loses: it is 4.0 [3.0, 5.0] points behind b." in accuracy
    assert "- 3 rows: a is not told apart from b: +0.5 [-0.5, +1.5] points." in accuracy
    bits = said("generate", "bits_per_byte", [0.04, -0.04, 0.005])
    assert "- 1 rows: a loses: it is 0.040 [0.030, 0.050] bits per byte behind b." in bits
    assert "- 2 rows: a is 0.040 [0.030, 0.050] bits per byte ahead of b." in bits
    assert "- 3 rows: a is not told apart from b: +0.005 [-0.005, +0.015] bits per byte." in bits
    assert "less is better" in bits
    assert "less is better" not in accuracy


WRITER = """
name: {name}
task: generate
data: {{train_file: texts.txt}}
text: {{vocabulary_size: 200, max_length: 16}}
model: {{family: recurrent, cell: gru, embedding_size: 8, hidden_size: 8}}
training: {{num_train_epochs: 1, batch_size: 16, learning_rate: 1e-2, max_steps: {steps}, threads: 1}}
evaluation: {{bootstrap_samples: 100}}
"""


def test_models_that_write_have_a_curve_in_bits_per_byte(folder, capsys):
    (folder / "texts.txt").write_text("\n".join(text for text, _ in review_rows(300)), encoding="utf-8")
    for name, steps in (("learns", "null"), ("as-it-is", 0)):
        (folder / f"{name}.yaml").write_text(WRITER.format(name=name, steps=steps), encoding="utf-8")
    arguments = ["learns.yaml", "as-it-is.yaml", "--sizes", "40,all", "--seeds", "2,1", "--tuned_up_to", "40"]
    assert main(["curve", *arguments, "--output", "texts"]) == 0
    printed = capsys.readouterr().out
    assert "learns − as-it-is" in printed
    assert "Means over 2, 1 seeds, each with a training sample of its own (but for " in printed
    assert "of rows alone where there is one seed" in printed
    summary = json.loads((folder / "texts" / "curve.json").read_text(encoding="utf-8"))
    assert summary["sizes"] == [40, len(load_splits(load_recipe("learns.yaml").data, "generate").train)]
    assert list(summary["tuning"]["fields"]) == ["learns"]  # nothing is tuned where nothing is learnt
    for entry in summary["by_size"]:
        for name, values in entry["recipes"].items():
            tuned = "" if name == "as-it-is" else f"-x{values['factor']:.2g}"
            assert len(values["by_seed"]) == (2 if entry["size"] == 40 else 1)
            for seed, score in enumerate(values["by_seed"]):
                run = folder / "texts" / "runs" / f"{name}-{entry['size']}-seed{seed}{tuned}"
                scores = json.loads((run / "scores.json").read_text())["splits"]["test"]
                assert not (run / "samples.jsonl").exists()  # they follow prompts of the test split
                assert scores["times_scored"] == 1
                assert score == pytest.approx(scores["metrics"]["bits_per_byte"]["value"])
    found = {}
    for factor in summary["tuning"]["factors"]:
        run = folder / "texts" / "runs" / f"learns-40-seed0-x{factor:.2g}"
        scores = json.loads((run / "scores.json").read_text())["splits"]["validation"]
        found[factor] = scores["metrics"]["bits_per_byte"]["value"]
    chosen = [entry["recipes"]["learns"]["factor"] for entry in summary["by_size"]]
    assert found[chosen[0]] == min(found.values())
    assert chosen[1] == chosen[0]  # above --tuned_up_to
    assert len(list((folder / "texts" / "runs").glob(f"learns-{summary['sizes'][1]}-*"))) == 1
    assert f"{summary['sizes'][1]} rows took what 40 chose." in printed
    whole = summary["by_size"][1]["recipes"]["learns"]
    assert whole["difference"]["as-it-is"]["high"] < 0  # some learning is better than none


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gru.yaml", "gru.yaml", "--sizes", "40"], "two recipes have one name"),
        (["gru.yaml", "--sizes", "many"], "whole numbers are needed"),
        (["gru.yaml", "--sizes", "0"], "whole numbers from 1 on"),
        (["gru.yaml", "--sizes", "40", "--seeds", "0"], "whole numbers from 1 on"),
        (["gru.yaml", "--sizes", "40", "--tuned_up_to", "0"], "whole numbers from 1 on"),
        (["gru.yaml", "--sizes", "40", "--seeds", "some"], "whole numbers are needed, such as 3 or 3,3,1"),
        (["gru.yaml", "--sizes", "40", "--tuned_up_to", "all"], "a whole number is needed, such as 10000"),
        (["gru.yaml", "--sizes", "40", "--seeds", "2,1"], "give one, or one for each of the 1 sizes"),
        (["gru.yaml", "--sizes", "216,all", "--seeds", "2,1"], "(216 rows are all); give each size once"),
        (["gru.yaml", "--sizes", "40,1000"], "--sizes 1000 is more than the 216 training rows"),
        (["gru.yaml", "--sizes", "40", "--seed", "7", "--nonsense", "1"], "unknown key"),
        (["gru.yaml", "--sizes", "40", "--task", "rate"], "only classify and generate have a curve"),
        (["gru.yaml", "mini-gpt-ko", "--sizes", "40"], "mini-gpt-ko has task generate and gru classify"),
        (["gru.yaml", "quickstart-tfidf", "--sizes", "40"], "different data"),
    ],
)
def test_a_users_error_is_one_line(capsys, arguments, message):
    assert message in fails(capsys, "curve", *arguments, "--output", "refused")


def made_curve(first, other, task="classify", metric="accuracy"):
    """A summary with these scores at 100, 1,000 and 10,000 rows."""
    sizes = (100, 1000, 10_000)

    def entry(size, scores):
        return {
            "size": size,
            "tuned_at": size,
            "recipes": {
                name: {
                    metric: dict.fromkeys(("value", "low", "high"), value),
                    "by_seed": [value],
                    "factor": 1.0,
                    "difference": {
                        rival: dict.fromkeys(("value", "low", "high"), value - scores[rival])
                        for rival in scores
                        if rival != name
                    },
                }
                for name, value in scores.items()
            },
        }

    return {
        "task": task,
        "recipes": ["bert", "lstm"],
        "train_rows": 20_000,
        "test_rows": 500,
        "confidence_level": 0.95,
        "bootstrap_samples": 2000,
        "tuning": {"fields": {}},
        "by_size": [
            entry(size, {"bert": one, "lstm": two}) for size, one, two in zip(sizes, first, other, strict=False)
        ],
    }


@pytest.mark.parametrize(
    ("first", "other", "said"),
    [
        # Half way from 0.7 to 0.9 lies half way from 100 to 1,000 on the logarithm: 316, and rounded up.
        ((0.7, 0.9, 0.95), (0.5, 0.6, 0.8), "with some 320: 97% of the labels are saved."),
        ((0.85, 0.9, 0.95), (0.5, 0.6, 0.8), "with 100 rows or fewer."),
        (
            (0.5, 0.6, 0.7),
            (0.5, 0.7, 0.8),
            "No size of these lets bert reach what lstm reaches with 10,000 rows (80.0)",
        ),
    ],
)
def test_the_words_say_how_many_labels_are_saved(first, other, said):
    assert said in curve_markdown(made_curve(first, other))


def test_what_transfer_buys_is_held_against_what_starts_from_nothing():
    """The best rival is another pretrained recipe: it is named by itself, and does not hide the gain."""
    curve = made_curve((0.7, 0.9, 0.95), (0.5, 0.6, 0.8))
    for entry in curve["by_size"]:
        recipes = entry["recipes"]
        value = recipes["bert"]["accuracy"]["value"] + 0.02
        recipes["lora"] = {**recipes["bert"], "accuracy": {"value": value, "low": value, "high": value}}
        recipes["bert"]["difference"] = {
            "lstm": {"value": 0.2, "low": 0.1, "high": 0.3},
            "lora": {"value": -0.02, "low": -0.03, "high": -0.01},
        }
        for name in ("lstm", "lora"):
            gap = recipes["bert"]["difference"][name]
            recipes[name] = {**recipes[name], "difference": {"bert": {end: -value for end, value in gap.items()}}}
            low, high = recipes[name]["difference"]["bert"]["high"], recipes[name]["difference"]["bert"]["low"]
            recipes[name]["difference"]["bert"] |= {"low": low, "high": high}
    curve |= {"recipes": ["bert", "lora", "lstm"], "pretrained": ["bert", "lora"]}
    shown = curve_markdown(curve)
    assert "100 rows: bert is 20.0 [10.0, 30.0] points ahead of lstm; it is 2.0 [1.0, 3.0] points behind lora." in shown
    assert "what lstm reaches with 10,000 rows (80.0), the best that starts from nothing there, with some 320" in shown
    # Without knowing which are pretrained, all others are rivals alike.
    del curve["pretrained"]
    assert "100 rows: bert loses: it is 2.0 [1.0, 3.0] points behind the best of the others, lora." in curve_markdown(
        curve
    )


def test_texts_without_labels_save_none():
    assert "reaches" not in curve_markdown(made_curve((2.0, 1.6), (3.0, 1.8), "generate", "bits_per_byte"))
