"""A comparison -> words: what its numbers allow one to say, and what they do not."""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.reporting.comparison import Comparison, RunSummary
from finetune.reporting.tables import interval_text, percent, round_up
from finetune.significance import PairedTest, rows_to_tell_apart


@dataclass(frozen=True)
class Findings:
    """Plain sentences: who is first, how each other run stands to it, and what to keep in mind."""

    verdict: tuple[str, ...]
    against_best: tuple[str, ...]
    cautions: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        return (*self.verdict, *self.against_best, *self.cautions)


def describe_findings(comparison: Comparison) -> Findings:
    """What may be said about `comparison`: by paired tests where the rows' predictions are there, else by intervals."""
    leaders = [run for run in comparison.runs if run.accuracy.value == comparison.runs[0].accuracy.value]
    if comparison.runs[0].accuracy.value is None:
        verdict, against_best = ["No run has a test accuracy, so none is best."], []
    else:
        verdict = _verdict(leaders, comparison)
        tested = sum(run.paired is not None for run in comparison.runs)
        against_best = [_against_best(leaders[0], run, tested) for run in comparison.runs[1:]]
    return Findings(tuple(verdict), tuple(against_best), tuple(_cautions(comparison)))


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _verdict(leaders: Sequence[RunSummary], comparison: Comparison) -> list[str]:
    names, score = listed([run.name for run in leaders]), interval_text(leaders[0].accuracy)
    if len(leaders) == 1:
        sentences = [f"{names} has the highest test accuracy: {score}."]
    else:
        sentences = [f"{names} share the highest test accuracy: {percent(leaders[0].accuracy.value)}."]
    floors = [run.name for run in leaders if run.is_floor]
    if all(run.is_floor for run in comparison.runs):
        sentences.append("All of these runs are floors: there is no neural model among them.")
    elif len(floors) == len(leaders):
        sentences.append(f"The floor wins: no neural model here has a higher accuracy than {floors[0]}.")
    elif floors:
        sentences.append(f"The floor is not beaten: {listed(floors)} scores as high as the best neural model.")
    return sentences


def _against_best(best: RunSummary, run: RunSummary, tested: int) -> str:
    name = f"{run.name} (a floor)" if run.is_floor else run.name
    if best.accuracy.value is None or run.accuracy.value is None:
        return f"{name} has no test accuracy."
    gap = 100 * (best.accuracy.value - run.accuracy.value)
    if gap == 0:
        standing = f"{name} has the same accuracy as {best.name}"
    else:
        points = f"{gap:.1f}" if gap >= 0.05 else f"{gap:.2f}" if gap >= 0.005 else "less than 0.01"
        standing = f"{name} is {points} points below {best.name}"
    if run.paired is not None:
        return f"{standing}{_told_by_test(best, run, run.paired, tested)}"
    match best.accuracy.overlaps(run.accuracy):
        case True:
            return f"{standing}; the intervals overlap: these rows do not tell them apart."
        case False:
            return f"{standing}; the intervals do not overlap."
        case None:
            return f"{standing}; one of them has no interval, so nothing more can be said."


def _told_by_test(best: RunSummary, run: RunSummary, test: PairedTest, tested: int) -> str:
    """The rest of the sentence, after the standing: the interval, what McNemar's test says, and what it would take."""
    low, high = (100 * end for end in (test.difference.low, test.difference.high))
    p_value = "p < 0.001" if test.adjusted < 0.001 else f"p = {test.adjusted:.3f}"
    several = f", corrected for {tested} comparisons" if tested > 1 else ""
    rows = (
        f"of the rows that only one has right, {best.name} has {test.first_only:,} and {run.name} {test.second_only:,}"
    )
    said = f" [{low:.1f}, {high:.1f}]: {rows} (McNemar's exact {p_value}{several})"
    if test.is_told_apart():
        return f"{said}, which tells them apart."
    needed = rows_to_tell_apart(test.first_only, test.second_only, test.rows)
    if needed is None:
        return f"{said}; these rows do not tell them apart."
    # At so many rows the test would find it four times in five; fewer say nothing new.
    more = (
        f"some {round_up(needed):,} would, were the difference what it seems"
        if needed > test.rows
        else ("without the correction they might")
    )
    return f"{said}; these {test.rows:,} rows do not tell them apart, {more}."


def _cautions(comparison: Comparison) -> list[str]:
    best = comparison.runs[0].accuracy
    overlap = any(best.overlaps(run.accuracy) for run in comparison.runs[1:] if run.paired is None)
    return [
        "The intervals reflect the test rows only, not training seeds: the same recipe with another seed may score "
        "differently.",
        *(
            [
                "Overlap is a cautious reading: the runs were scored on the same rows, and a paired test can tell runs "
                "apart whose intervals overlap."
            ]
            if overlap
            else []
        ),
        *(
            [
                "The best run was chosen by these same rows: of many runs that are alike one leads by chance, and the "
                "correction, which is for so many comparisons, does not know that."
            ]
            if sum(run.paired is not None for run in comparison.runs) > 1
            else []
        ),
        *_scored_repeatedly(comparison),
        *_leaked_rows(comparison),
        *_unlike_conditions(comparison),
        *(
            f"{run.name}: {run.curve.losses_not_finite} logged training losses were not finite."
            for run in comparison.runs
            if run.curve.losses_not_finite
        ),
    ]


def _scored_repeatedly(comparison: Comparison) -> list[str]:
    return [
        f"{run.name} scored the test split {run.times_scored} times: choices made after the first look can make its "
        "accuracy too good."
        for run in comparison.runs
        if run.times_scored > 1
    ]


def _leaked_rows(comparison: Comparison) -> list[str]:
    leaked = {data.leaked_test_rows_normalized for data in comparison.data}
    if leaked == {0}:
        return []
    if len(leaked) > 1:
        counts = ", ".join(f"{d.leaked_test_rows_normalized:,} for {listed(d.runs)}" for d in comparison.data)
        return [
            "The test rows that also stand among training or validation rows differ between the runs "
            f"({counts}): accuracies without leaked rows are not over the same rows."
        ]
    rows = f"{leaked.pop():,} of {comparison.test_count:,} test rows also stand among the training or validation rows."
    cleaned = [
        (run.without_leaked_rows.metrics["accuracy"].value, run.name)
        for run in comparison.runs
        if run.without_leaked_rows is not None and "accuracy" in run.without_leaked_rows.metrics
    ]
    values = [value for value, _ in cleaned if value is not None]
    if len(values) < len(comparison.runs):
        return [rows]
    first = [name for value, name in cleaned if value == max(values)]
    if comparison.runs[0].name in first:
        return [f"{rows} Without them, the highest accuracy is still that of {comparison.runs[0].name}."]
    return [f"{rows} Without them, the highest accuracy is that of {listed(first)}."]


def _unlike_conditions(comparison: Comparison) -> list[str]:
    """What differs between the runs beside the model, and so limits what the table means."""
    sentences = []
    trained = {data.splits["train"].rows_fingerprint for data in comparison.data if "train" in data.splits}
    if len(trained) > 1:
        sentences.append("The runs were not trained on the same rows: a difference may come from the data.")
    levels = {run.confidence_level for run in comparison.runs}
    if len(levels) > 1:
        stated = ", ".join(f"{run.name} {percent(run.confidence_level, 0)}" for run in comparison.runs)
        sentences.append(f"The intervals have different confidence levels: {stated}.")
    machines = {str([run.environment.get(key) for key in ("device", "processor", "threads", "world_size")])
                for run in comparison.runs}  # fmt: skip
    if len(machines) > 1:
        sentences.append("The runs had different devices or thread counts: their speeds do not compare.")
    return sentences
