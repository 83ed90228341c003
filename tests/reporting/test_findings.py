"""The words: who is first, what overlaps, and what a reader has to keep in mind."""

import re
from pathlib import Path

import pytest
from reporting.fake_runs import DATA, MakeRun, interval, with_predictions

from finetune.reporting.comparison import Metric, read_comparison
from finetune.reporting.findings import Findings, describe_findings, listed
from finetune.run import RunDirectory

UNSEARCHED = "No run's values were searched for: each took those of its recipe."


def findings(*runs: RunDirectory) -> Findings:
    return describe_findings(read_comparison([Path(run.path) for run in runs]))


@pytest.mark.parametrize(
    ("accuracy", "sentence"),
    [
        (0.866, "gru is 0.4 points below bilstm; the intervals overlap: these rows do not tell them apart."),
        (0.8639, "gru is 0.6 points below bilstm; the intervals do not overlap."),
        (0.8699, "gru is 0.01 points below bilstm; the intervals overlap: these rows do not tell them apart."),
        (
            0.86999,
            "gru is less than 0.01 points below bilstm; the intervals overlap: these rows do not tell them apart.",
        ),
        (0.87, "gru has the same accuracy as bilstm; the intervals overlap: these rows do not tell them apart."),
    ],
)
def test_overlap_with_the_best(make_run: MakeRun, accuracy: float, sentence: str) -> None:
    found = findings(make_run("bilstm", 0.87), make_run("gru", accuracy))
    assert found.against_best == (sentence,)
    assert any("paired test" in caution for caution in found.cautions) == ("do not tell" in sentence)


def test_intervals_that_touch_overlap() -> None:
    low, high = Metric(0.5, 0.25, 0.75), Metric(0.875, 0.75, 1.0)
    assert low.overlaps(high) is True
    assert high.overlaps(low) is True
    assert low.overlaps(Metric(0.9, 0.7501, 1.0)) is False
    assert low.overlaps(Metric(0.9, None, None)) is None


def test_a_floor_that_wins_is_said_to_win(make_run: MakeRun) -> None:
    found = findings(make_run("tfidf", 0.9), make_run("bilstm", 0.87), make_run("majority", 0.5))
    assert found.verdict == (
        "tfidf has the highest test accuracy: 90.0 % [89.7, 90.3].",
        "The floor wins: no neural model here has a higher accuracy than tfidf.",
    )
    assert found.against_best[1] == "majority (a floor) is 40.0 points below tfidf; the intervals do not overlap."


def test_a_floor_that_ties_is_said_to_tie(make_run: MakeRun) -> None:
    found = findings(make_run("tfidf", 0.87), make_run("bilstm", 0.87))
    assert found.verdict == (
        "bilstm and tfidf share the highest test accuracy: 87.0 %.",
        "The floor is not beaten: tfidf scores as high as the best neural model.",
    )


def test_floors_alone(make_run: MakeRun) -> None:
    assert findings(make_run("tfidf", 0.87), make_run("majority", 0.5)).verdict[1] == (
        "All of these runs are floors: there is no neural model among them."
    )


def test_no_accuracy_and_no_interval(make_run: MakeRun) -> None:
    none = findings(make_run("bilstm", None), make_run("gru", None))
    assert none.verdict == ("No run has a test accuracy, so none is best.",)
    assert none.against_best == ()
    bare = {"metrics": {"accuracy": {"value": 0.8, "low": None, "high": None}}}
    some = findings(make_run("tfidf", 0.87), make_run("scratch", test=bare), make_run("majority", None))
    assert some.against_best == (
        "scratch is 7.0 points below tfidf; one of them has no interval, so nothing more can be said.",
        "majority (a floor) has no test accuracy.",
    )


def test_intervals_are_said_to_leave_seeds_out(make_run: MakeRun) -> None:
    found = findings(make_run("bilstm", 0.9), make_run("gru", 0.8))
    assert found.cautions == (
        "The intervals reflect the test rows only, not training seeds: the same recipe with another seed may score "
        "differently.",
        UNSEARCHED,
    )


def test_a_run_that_was_tuned_beside_one_that_was_not(make_run: MakeRun) -> None:
    tuned = make_run("bilstm", 0.9)
    search = {"field": "training.learning_rate", "tried": [1e-3, 3e-3], "chosen": 3e-3, "seed": 0, "train_rows": 5000}
    tuned.write_json(tuned.tuning_file, search)
    found = findings(tuned, make_run("gru", 0.8), make_run("majority", 0.5))
    assert found.cautions[-1] == (
        "Chosen on validation: bilstm's training.learning_rate (0.003) among 2 with 5,000 training rows. Those of gru "
        "are the recipe's: not the same chance was given to all."
    )


def test_cautions_about_repeated_scoring_and_unlike_conditions(make_run: MakeRun) -> None:
    splits = {**DATA["splits"], "train": {**DATA["splits"]["train"], "rows_fingerprint": "few"}}
    found = findings(
        make_run("bilstm", 0.9, test={"times_scored": 3}, data={"splits": splits}),
        make_run("gru", 0.8, test={"confidence_level": 0.9}, environment={"threads": 16}),
    )
    assert found.cautions[1:] == (
        "bilstm scored the test split 3 times: choices made after the first look can make its accuracy too good.",
        "The runs were not trained on the same rows: a difference may come from the data.",
        "The intervals have different confidence levels: bilstm 95 %, gru 90 %.",
        "The runs had different devices or thread counts: their speeds do not compare.",
        UNSEARCHED,
    )


def test_intervals_that_are_not_of_percentiles_are_said_to_be_others(make_run: MakeRun) -> None:
    bca = {"interval_method": "bca"}
    said = "are bias-corrected and accelerated (BCa); those of accuracy are Wilson's."
    bilstm, gru = make_run("bilstm", 0.9, test=bca), make_run("gru", 0.8, test=bca)
    assert findings(bilstm, gru).cautions[1] == f"The bootstrap intervals {said}"
    assert findings(bilstm, make_run("scratch", 0.8)).cautions[1] == f"The bootstrap intervals of bilstm {said}"


def without_leaks(accuracy: float) -> dict[str, object]:
    return {"without_leaked_rows": {"count": 900, "left_out": 100, "metrics": {"accuracy": interval(accuracy)}}}


@pytest.mark.parametrize(
    ("others", "ending"),
    [
        (0.7, " Without them, the highest accuracy is still that of bilstm."),
        (0.9, " Without them, the highest accuracy is that of gru."),
    ],
)
def test_leaked_rows(make_run: MakeRun, others: float, ending: str) -> None:
    data = {"leaked_test_rows": {"exact": 90, "normalized": 100}}
    found = findings(
        make_run("bilstm", 0.87, test=without_leaks(0.8), data=data),
        make_run("gru", 0.86, test=without_leaks(others), data=data),
    )
    assert found.cautions[1] == (f"100 of 49,997 test rows also stand among the training or validation rows.{ending}")


def test_leaked_rows_that_differ_between_runs(make_run: MakeRun) -> None:
    data = {"leaked_test_rows": {"exact": 90, "normalized": 100}}
    found = findings(make_run("bilstm", 0.9, test=without_leaks(0.8), data=data), make_run("gru", 0.86))
    assert found.cautions[1] == (
        "The test rows that also stand among training or validation rows differ between the runs "
        "(100 for bilstm, 0 for gru): accuracies without leaked rows are not over the same rows."
    )


def test_lists_of_names() -> None:
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_runs_are_told_apart_row_by_row(make_run: MakeRun) -> None:
    best = with_predictions(make_run("bilstm", 0.87, count=1000, half=0.02), range(130))
    near = with_predictions(make_run("gru", 0.86, count=1000, half=0.02), range(120, 260))
    nested = with_predictions(make_run("tfidf", 0.85, count=1000, half=0.02), range(150))
    bare = make_run("majority", 0.5, count=1000)
    found = findings(best, near, nested, bare)
    # Of 120 and 130 rows that only one has right nothing follows; 20 to none is clear, though the intervals overlap.
    assert re.match(
        r"gru is 1\.0 points below bilstm \[-2\.\d, 4\.\d\]: of the rows that only one has right, bilstm has 130 and "
        r"gru 120 \(McNemar's exact p = 0\.5",
        found.against_best[0],
    )
    assert "corrected for 2 comparisons" in found.against_best[0]
    assert re.search(r"these 1,000 rows do not tell them apart, some \d\d,000 would", found.against_best[0])
    assert found.against_best[1] == (
        "tfidf (a floor) is 2.0 points below bilstm [1.1, 2.9]: of the rows that only one has right, bilstm has 20 and "
        "tfidf 0 (McNemar's exact p < 0.001, corrected for 2 comparisons), which tells them apart."
    )
    assert found.against_best[2] == "majority (a floor) is 37.0 points below bilstm; the intervals do not overlap."
    assert not any("Overlap is" in caution for caution in found.cautions)


def test_runs_that_answer_alike_are_not_told_apart(make_run: MakeRun) -> None:
    best, same = (with_predictions(make_run(name, 0.87, count=1000), range(130)) for name in ("bilstm", "gru"))
    (sentence,) = findings(best, same).against_best
    assert sentence == (
        "gru has the same accuracy as bilstm [0.0, 0.0]: of the rows that only one has right, bilstm has 0 and gru 0 "
        "(McNemar's exact p = 1.000); these rows do not tell them apart."
    )
