"""Runs that differ in their seeds alone: found, named, and one recipe in every report."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from reporting.fake_runs import MakeRun, with_predictions

from finetune.recipe import Recipe, parse_recipe
from finetune.reporting.compare import compare_runs
from finetune.reporting.comparison import Comparison, read_comparison
from finetune.reporting.findings import describe_findings
from finetune.reporting.seeds import name_groups, summarize_seeds
from finetune.reporting.terminal import compare_and_print
from finetune.run import RunDirectory

ROWS = 1000


def recipe(seed: int, **fields: object) -> Recipe:
    data, model = {"train_file": f"/{seed}/x.csv"}, {"family": "recurrent"}
    return parse_recipe({"name": f"seed-{seed}", "seed": seed, "data": data, "model": model, **fields})


def repeated(make_run: MakeRun, model: str, *wrong: int, first: int = 0) -> list[RunDirectory]:
    """A run for each of `wrong`, wrong in so many rows; each seed misses other rows."""
    runs = []
    for seed, count in enumerate(wrong, start=1):
        run = make_run(f"{model}-seed{seed}", 1 - count / ROWS, model=model, seed=seed, count=ROWS)
        missed = {(first + 50 * seed + row) % ROWS for row in range(count)}
        runs.append(with_predictions(run, missed, ROWS))
    return runs


def compared(runs: Sequence[RunDirectory]) -> Comparison:
    return read_comparison([run.path for run in runs])


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ([["lstm-seed1", "lstm-seed2"], ["bert"]], ["lstm", "bert"]),
        ([["lstm", "lstm-seed1"]], ["lstm"]),
        ([["lstm-seed10", "lstm-seed11"]], ["lstm"]),
        ([["lstm_Seed_1", "lstm_Seed_2"]], ["lstm"]),
        ([["bert1", "bert12"]], ["bert"]),
        ([["lstm256", "lstm256-seed1"]], ["lstm256"]),
        ([["linseed-1", "linseed-2"]], ["linseed"]),
        ([["mine-2024-300-seed0", "mine-2024-300-seed1"]], ["mine-2024-300"]),
        ([["quickstart-lstm", "lstm-seed1"]], ["lstm"]),
        ([["seed1/lstm", "seed2/lstm"]], ["lstm"]),
        ([["1", "2"]], ["1"]),
        ([["한국어-seed1", "한국어-seed2"]], ["한국어"]),
        # A run alone keeps its own name, and no two names are equal.
        ([["a-seed1", "a-seed2"], ["a"]], ["a (2)", "a"]),
        ([["a-seed1", "a-seed2"], ["a-seed3", "a-seed4"], ["b-seed5"]], ["a", "a (2)", "b-seed5"]),
    ],
)
def test_names_of_groups(groups: list[list[str]], names: list[str]) -> None:
    assert name_groups(groups) == names


def test_runs_that_differ_in_seeds_and_names_alone_are_one_recipe() -> None:
    sampled = {"train_file": "x.csv", "max_train_rows": 10}
    recipes = {
        "a-1": recipe(1, output_dir="there"),
        "a-2": recipe(2),
        "a-again": recipe(2),
        "b": recipe(3, training={"learning_rate": 0.5}),
        "c-1": recipe(1, data={**sampled, "train_sample_seed": 1}),
        "c-2": recipe(1, data={**sampled, "train_sample_seed": 2}),
        "other-file": recipe(5),
        "pushed": recipe(4),
    }
    accounts = {name: {"files": {"train": {"sha256": "2" if name == "other-file" else "1"}}} for name in recipes}
    correct = {name: np.arange(20) % 7 != number for number, name in enumerate(recipes) if name != "pushed"}
    found = summarize_seeds(recipes, accounts, correct)
    assert found is not None
    assert {(of_recipe.name, of_recipe.runs) for of_recipe in found.recipes} == {
        ("a", ("a-1", "a-2")),
        ("b", ("b",)),
        ("c", ("c-1", "c-2")),
        ("other-file", ("other-file",)),
    }
    assert found.left_out == ("pushed",)
    assert found.repeated == ("a-again",)
    kept = {name: correct[name] for name in ("a-2", "a-again", "b")}
    assert summarize_seeds(recipes, accounts, kept) is None


def test_means_and_their_spread_over_seeds(make_run: MakeRun) -> None:
    lstm, bert = repeated(make_run, "gru", 150, 170, 190), repeated(make_run, "bert", 100, 120, first=400)
    found = compared([*lstm, *bert]).over_seeds
    assert found is not None
    best, other = found.recipes
    assert (best.name, other.name) == ("bert", "gru")
    assert best.by_seed == pytest.approx((0.9, 0.88))
    assert other.accuracy.value == pytest.approx(0.83)
    assert other.spread.deviation == pytest.approx(0.02)
    assert other.spread.of_seeds == pytest.approx(0.02 / 3**0.5)
    assert best.behind is None
    assert other.behind is not None
    assert other.behind.value == pytest.approx(0.06)
    assert other.behind.low < 0.06 < other.behind.high


def test_sentences_say_who_is_ahead_and_what_few_seeds_are_worth(make_run: MakeRun) -> None:
    runs = [
        *repeated(make_run, "gru", 300, 310, 320),
        *repeated(make_run, "bert", 100, 104),
        with_predictions(make_run("tfidf", 0.895, count=ROWS), range(0, 105), ROWS),
        with_predictions(make_run("scratch", 0.7, count=ROWS), range(0, 300), ROWS),
        make_run("bilstm", 0.6, count=ROWS),
    ]
    findings = describe_findings(compared(runs))
    lead, tfidf, *rest, account = findings.over_seeds
    assert re.fullmatch(
        r"Over seeds, bert \(2 seeds\) has the highest mean test accuracy: 89\.8 % \[8\d\.\d, 9\d\.\d\]\.", lead
    )
    assert re.fullmatch(
        r"tfidf \(a floor, 1 seed\) is 0\.3 points below bert \[-\d\.\d, \d\.\d\], which does not tell them apart\.",
        tfidf,
    )
    assert re.fullmatch(
        r"gru \(3 seeds\) is 20\.8 points below bert \[1\d\.\d, 2\d\.\d\], which tells them apart\.", rest[1]
    )
    assert "2,000 draws of seeds and of rows, paired" in account
    # TF-IDF trains on all rows: its seed changes nothing, so that nothing is missing.
    assert findings.cautions[:3] == (
        "The intervals of scratch and bilstm reflect the test rows only, not training seeds: the same recipe with "
        "another seed may score differently.",
        "One or two seeds say little about seeds, and an interval drawn from so few is too narrow: bert has 2 seeds "
        "and scratch has 1 seed.",
        "Without predictions of the test rows, not counted over seeds: bilstm.",
    )


def test_a_recipe_by_itself_and_enough_seeds(make_run: MakeRun) -> None:
    findings = describe_findings(compared(repeated(make_run, "gru", 300, 310, 320)))
    assert re.fullmatch(
        r"Over seeds, gru \(3 seeds\) has a mean test accuracy of 69\.0 % \[6\d\.\d, 7\d\.\d\]\.",
        findings.over_seeds[0],
    )
    assert len(findings.over_seeds) == 2
    assert not any("seeds" in caution for caution in findings.cautions)


def test_recipes_that_score_alike_share_the_lead(make_run: MakeRun) -> None:
    findings = describe_findings(
        compared([*repeated(make_run, "gru", 100, 120), *repeated(make_run, "bert", 120, 100)])
    )
    assert findings.over_seeds[0] == (
        "Over seeds, bert (2 seeds) and gru (2 seeds) share the highest mean test accuracy: 89.0 %."
    )
    assert findings.over_seeds[1].startswith("gru (2 seeds) has the same mean accuracy as bert [-")


def test_a_run_with_the_seed_of_another_counts_once(make_run: MakeRun) -> None:
    again = with_predictions(make_run("gru-seed9", 0.7, model="gru", seed=1, count=ROWS), range(300), ROWS)
    comparison = compared([*repeated(make_run, "gru", 300, 310), again])
    assert comparison.over_seeds is not None
    assert comparison.over_seeds.recipes[0].runs == ("gru-seed1", "gru-seed2")
    assert describe_findings(comparison).cautions[1] == (
        "With the recipe and the seed of another run, not counted over seeds: gru-seed9."
    )


def test_every_report_has_the_section(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [*repeated(make_run, "gru", 150, 170, 190), *repeated(make_run, "bert", 100, 120, 110)]
    compare_and_print([run.path for run in runs], tmp_path / "out")
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    markdown, page = ((tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("comparison.md", "index.html"))
    bert, gru = content["over_seeds"]["recipes"]
    assert content["format"] == 2
    assert content["over_seeds"]["confidence_level"] == 0.95
    assert gru["runs"] == ["gru-seed1", "gru-seed2", "gru-seed3"]
    assert gru["seeds"] == [1, 2, 3]
    assert set(gru["accuracy"]) == set(gru["behind"]) == {"value", "low", "high"}
    assert set(gru["spread"]) == {"deviation", "of_seeds", "of_rows"}
    assert bert["behind"] is None
    assert "## Over seeds\n\n| Recipe | Seeds | Mean test accuracy [95 % interval] | Below the best" in markdown
    assert re.search(r"\| gru \| 3 \(1,2,3\) \| 83\.0 % \[.*\| 2\.00 \| 1\.15 \| \d\.\d\d \|", markdown)
    assert '<h2 id="seeds">Over seeds</h2>' in page
    lead = content["findings"]["over_seeds"][0]
    assert lead.startswith("Over seeds, bert (3 seeds)")
    assert lead in markdown
    assert lead in page
    assert lead in printed
    assert "of rows," in printed


def test_the_order_of_the_runs_changes_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [*repeated(make_run, "gru", 150, 170, 190), *repeated(make_run, "bert", 100, 120)]
    compare_runs([run.path for run in runs], tmp_path / "one")
    compare_runs([run.path for run in runs[::-1]], tmp_path / "two")
    for name in ("comparison.json", "comparison.md", "index.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_without_several_seeds_nothing_is_said_of_them(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [with_predictions(make_run(name, 0.9, count=ROWS), range(100), ROWS) for name in ("gru", "bert")]
    comparison = compare_runs([run.path for run in runs], tmp_path / "out")
    assert isinstance(comparison, Comparison)
    assert describe_findings(comparison).cautions[0].startswith("The intervals reflect the test rows only")
    content = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert "over_seeds" not in content
    assert set(content["findings"]) == {"verdict", "against_best", "cautions"}
    for name in ("comparison.md", "index.html"):
        assert "Over seeds" not in (tmp_path / "out" / name).read_text(encoding="utf-8")
