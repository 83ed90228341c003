"""Runs that give a text several labels, side by side: micro F1 with paired intervals, exact matches, and a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import finetune
from finetune.recipe import MajorityFloor, TfidfFloor
from finetune.reporting import plots
from finetune.reporting.comparison import (
    Cost,
    Curve,
    DataSummary,
    Metric,
    describe_model,
    display_names,
    group_data,
    printable,
    read_curve,
    scores_on_the_same_rows,
    test_scores,
)
from finetune.reporting.page import data_parts, drawn_curves, line_keys, page_template
from finetune.reporting.tables import (
    NOTHING,
    Cell,
    Column,
    Table,
    cost_blocks,
    cost_notes,
    cost_table,
    data_blocks,
    duration,
    escape_markdown,
    markdown_table,
    metric_cell,
    parameters_cell,
    percent,
)
from finetune.run import RunDirectory
from finetune.significance import CONFIDENCE, SAMPLES, draw_rows, mcnemar

_DRAWN = ("micro_f1", "macro_f1", "subset_accuracy")
"""Metrics that are drawn anew for all runs alike, whatever their own recipes asked for."""


@dataclass(frozen=True)
class ExactMatches:
    """Rows of which one run has all labels right and another has not: `best_only` and `this_only`.

    `p_value` is that of McNemar's exact test (two-sided, binomial): how often chance alone would part them so unevenly.
    """

    best_only: int
    this_only: int
    p_value: float


@dataclass(frozen=True)
class SetRun:
    """One run: how it scored on the test rows and what it cost.

    `behind` is how much higher the best run's micro F1 is, on the same rows, and `matches` sets their exact matches
    against each other; the best has neither.
    """

    name: str
    model: str
    is_floor: bool
    metrics: Mapping[str, Metric]
    behind: Metric | None
    matches: ExactMatches | None
    per_class: Mapping[str, Mapping[str, Metric]]
    times_scored: int
    cost: Cost
    curve: Curve


@dataclass(frozen=True)
class SetComparison:
    """Runs scored on the same rows, the one with the highest micro F1 first."""

    format: int
    finetune_version: str
    task: str
    labels: tuple[str, ...]
    threshold: float
    test_count: int
    test_rows_fingerprint: str
    data: tuple[DataSummary, ...]
    runs: tuple[SetRun, ...]

    def to_json(self) -> str:
        """As JSON, with what may be said; equal comparisons give equal text."""
        content = {**asdict(self), "findings": set_sentences(self)}
        return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def read_set_comparison(directories: Sequence[RunDirectory], paths: Sequence[Path]) -> SetComparison:
    """Read runs that give several labels, and check that they were scored on the same rows.

    Raises:
        UserError: they were not, or one has no test scores.
    """
    tests = scores_on_the_same_rows(directories, test_scores)
    names = display_names(paths)
    values = [test["metrics"]["micro_f1"]["value"] for test in tests]
    order = sorted(range(len(tests)), key=lambda i: (-values[i], names[i]))
    labels = tests[0]["labels"]
    counts = [_row_counts(directories[i], labels) for i in order]
    draws = _draws(counts)
    runs = [
        _summarize(directories[i], names[i], tests[i], _Paired(counts[place], counts[0], draws, place))
        for place, i in enumerate(order)
    ]
    return SetComparison(
        format=2,
        finetune_version=finetune.__version__,
        task="multi_label",
        labels=tuple(printable(label) for label in labels),
        threshold=tests[0]["threshold"],
        test_count=tests[0]["count"],
        test_rows_fingerprint=tests[0]["rows_fingerprint"],
        data=group_data({name: run.data() for run, name in zip(directories, names, strict=True)}),
        runs=tuple(runs),
    )


@dataclass(frozen=True)
class _Paired:
    """A run's rows beside the best's, as `label_sets.row_counts`, and the draws of all runs by metric."""

    rows: NDArray[np.float64]
    rows_of_best: NDArray[np.float64]
    draws: Mapping[str, NDArray[np.float64]]
    place: int


def _row_counts(run: RunDirectory, labels: Sequence[str]) -> NDArray[np.float64]:
    """`label_sets.row_counts` of the test rows, in the order of the ids."""
    from finetune.evaluation import label_sets  # late: this loads torch

    table = pq.read_table(run.predictions_file("test")).sort_by("id")

    def held(name: str) -> NDArray[np.bool_]:
        column = table[name].combine_chunks()
        places = pc.index_in(column.flatten(), value_set=pa.array(labels, type=pa.string())).to_numpy(
            zero_copy_only=False
        )
        rows = np.repeat(np.arange(len(column)), column.value_lengths().to_numpy(zero_copy_only=False))
        bits = np.zeros((len(column), len(labels)), dtype=bool)
        bits[rows, places] = True
        return bits

    return label_sets.row_counts(held("predicted"), held("reference"))


def _draws(counts: Sequence[NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Metrics of resampled rows, (samples, runs) each; the runs share their resamples, so that gaps are paired."""
    from finetune.evaluation import label_sets

    count = len(counts[0])
    means = np.array([[weights @ of_run / count for of_run in counts] for weights in draw_rows(count)])
    drawn = label_sets.metrics_of(means)
    return {name: drawn[name] for name in _DRAWN}


def _summarize(run: RunDirectory, name: str, test: Mapping[str, Any], paired: _Paired) -> SetRun:
    from finetune.evaluation import label_sets

    recipe = run.recipe()
    metrics = {key: Metric(**values) for key, values in test["metrics"].items()}
    for key, drawn in paired.draws.items():
        metrics[key] = Metric.drawn(test["metrics"][key]["value"], drawn[:, paired.place])
    behind = matches = None
    if paired.place:
        micro = paired.draws["micro_f1"]
        gap = float(label_sets.micro_f1(paired.rows_of_best.mean(axis=0))) - test["metrics"]["micro_f1"]["value"]
        behind = Metric.drawn(gap, micro[:, 0] - micro[:, paired.place])
        place = label_sets.PER_ROW.index("subset_accuracy") - len(label_sets.PER_ROW)
        matches = exact_matches(paired.rows_of_best[:, place] == 1, paired.rows[:, place] == 1)
    return SetRun(
        name=name,
        model=describe_model(recipe.model),
        is_floor=isinstance(recipe.model, MajorityFloor | TfidfFloor),
        metrics=metrics,
        behind=behind,
        matches=matches,
        per_class={
            printable(label): {key: Metric(**values) for key, values in of_label.items()}
            for label, of_label in test["per_class"].items()
        },
        times_scored=test.get("times_scored", 1),
        cost=Cost.read(run.scores().get("cost", {})),
        curve=read_curve(run),
    )


def exact_matches(best: NDArray[np.bool_], this: NDArray[np.bool_]) -> ExactMatches:
    """McNemar's exact test on whether two runs have all labels of each row right, (n,) and (n,)."""
    best_only, this_only = int((best & ~this).sum()), int((this & ~best).sum())
    return ExactMatches(best_only, this_only, mcnemar(best_only, this_only))


# --- words ------------------------------------------------------------------------------------------------------------


def set_sentences(comparison: SetComparison) -> list[str]:
    """Who is first, how each other run stands to it, and what to keep in mind."""
    best, *others = comparison.runs
    floor = " (a floor: no trained model is better)" if best.is_floor else ""
    said = [f"{best.name}{floor} has the highest test micro F1: {metric_cell(best.metrics['micro_f1'])}."]
    for run in others:
        name = f"{run.name} (a floor)" if run.is_floor else run.name
        assert run.behind is not None
        assert run.matches is not None
        gap = _points(run.behind)
        unsure = "" if run.behind.low is not None and run.behind.low > 0 else ": these rows do not tell them apart"
        said.append(f"{name} is {gap.text} points {gap.detail} of micro F1 below {best.name}{unsure}.")
        p_value = f"p = {run.matches.p_value:.3f}" if run.matches.p_value >= 0.0005 else "p < 0.001"
        said.append(
            f"All labels are right in {run.matches.best_only:,} rows by {best.name} alone and in "
            f"{run.matches.this_only:,} by {run.name} alone (McNemar's exact test, {p_value})."
        )
    said.append(
        f"Intervals ({CONFIDENCE:.0%}) by {SAMPLES:,} draws of the rows, the same for all runs, so that differences "
        "are paired. They speak of these rows, not of other training seeds."
    )
    said += [
        f"{run.name} scored the test split {run.times_scored} times: choices made after the first look can make its "
        "scores too good."
        for run in comparison.runs
        if run.times_scored > 1
    ]
    leaked = max(data.leaked_test_rows_normalized for data in comparison.data)
    if leaked:
        said.append(f"{leaked:,} of the test rows also stand among the training or validation rows.")
    return said


def _points(gap: Metric) -> Cell:
    """A difference of shares with its interval, in percentage points."""
    value, low, high = (100 * (end or 0.0) for end in (gap.value, gap.low, gap.high))
    return Cell(f"{value:.1f}", f"[{low:.1f}, {high:.1f}]")


# --- tables -----------------------------------------------------------------------------------------------------------


def set_table(comparison: SetComparison) -> Table:
    """One row per run, the highest micro F1 first."""
    detail = f"[{CONFIDENCE:.0%} interval]"
    columns = (
        Column("Run", is_number=False),
        Column("Model", is_number=False),
        Column("Micro F1", detail),
        Column("Below the best", "points [paired]"),
        Column("Macro F1", detail),
        Column("All labels right", detail),
        Column("Mean average precision"),
        Column("Wrong decisions"),
        Column("Parameters"),
        Column("Training time"),
    )
    return Table(columns, tuple(_row(run) for run in comparison.runs))


def _row(run: SetRun) -> tuple[Cell, ...]:
    behind = Cell(NOTHING) if run.behind is None else _points(run.behind)
    return (
        Cell(run.name),
        Cell(run.model, "(a floor)" if run.is_floor else ""),
        metric_cell(run.metrics["micro_f1"]),
        behind,
        metric_cell(run.metrics["macro_f1"]),
        metric_cell(run.metrics["subset_accuracy"]),
        Cell(percent(run.metrics["mean_average_precision"].value)),
        Cell(percent(run.metrics["hamming_loss"].value)),
        parameters_cell(run.cost),
        Cell(duration(run.cost.training_seconds)),
    )


def _labels_table(comparison: SetComparison) -> Table:
    """F1 of each label by each run."""
    columns = (Column("Label", is_number=False), *(Column("F1", run.name) for run in comparison.runs))
    rows = tuple(
        (Cell(label), *(metric_cell(run.per_class[label]["f1"]) for run in comparison.runs))
        for label in comparison.labels
    )
    return Table(columns, rows)


def _facts(comparison: SetComparison) -> str:
    return (
        f"{comparison.test_count:,} test rows, the same for every run, with {len(comparison.labels)} labels, of which "
        f"a row may have any number; one is given where its probability is at least {comparison.threshold:g}"
    )


def set_markdown(comparison: SetComparison) -> str:
    """The tables and the words as a Markdown document."""
    blocks = [
        f"# Comparison of {len(comparison.runs)} runs",
        f"{_facts(comparison)}.",
        markdown_table(set_table(comparison)),
        "\n".join(f"- {escape_markdown(sentence)}" for sentence in set_sentences(comparison)),
        "## Labels",
        markdown_table(_labels_table(comparison)),
        *cost_blocks(comparison.runs),
        *data_blocks(comparison.data, comparison.labels, comparison.test_count),
        f"Made by finetune {comparison.finetune_version}.",
    ]
    return "\n\n".join(blocks) + "\n"


def render_set_page(comparison: SetComparison) -> str:
    """The page as HTML text; every name and label in it is escaped."""
    keys = line_keys(comparison.runs)
    return page_template("sets.html.j2").render(
        comparison=comparison,
        facts=_facts(comparison),
        table=set_table(comparison),
        labels=_labels_table(comparison),
        sentences=set_sentences(comparison),
        data=data_parts(comparison.data, comparison.labels, comparison.test_count),
        costs_table=cost_table(comparison.runs),
        costs_notes=cost_notes(comparison.runs),
        curves=drawn_curves(
            [
                ("Loss. Lines: training. Dotted, with points: validation.", plots.loss_plot(comparison.runs)),
                ("Micro F1 on the validation rows.", plots.f1_plot(comparison.runs)),
            ]
        ),
        trained=[keys[run.name] for run in comparison.runs if run.curve.training or run.curve.validation],
    )
