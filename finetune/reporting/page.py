"""A comparison -> one self-contained HTML page: no network, no scripts, light and dark, screen and paper."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from finetune.reporting import plots
from finetune.reporting.comparison import Comparison, DataSummary, RunSummary, printable
from finetune.reporting.findings import Findings, listed
from finetune.reporting.tables import (
    NOTHING,
    Cell,
    Table,
    comparison_table,
    cost_notes,
    cost_table,
    data_flaws,
    data_source,
    data_table,
    metric_cell,
    percent,
    seeds_table,
)

MOST_MATRIX_LABELS = 12
"""With more labels a matrix no longer reads: the commonest confusions are listed in its place."""
LISTED_CONFUSIONS = 20
_LOSS_CAPTION = "Loss. Lines: training, smoothed over what was logged (faint). Dotted, with points: validation."
_RELIABILITY_CAPTION = (
    "How often each run is right over how sure it is. On the dashed line it is right as often as it says; below it is "
    "too sure. Bins of fewer than ten rows are left out."
)
_COVERAGE_CAPTION = "How often answers are right where only the surest are given."
_COST_CAPTION = "Test accuracy with its interval over the time of training. Dots: models; open squares: floors."
FOLDED_LABELS = 12
"""With more labels the table of scores per label is folded."""


@dataclass(frozen=True)
class MatrixCell:
    """Rows of one reference label that got one predicted label, and their share of that reference's rows."""

    count: int
    share: float | None
    is_correct: bool


@dataclass(frozen=True)
class Confusion:
    """Rows of `reference` taken for `predicted`."""

    reference: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class LineKey:
    """A run in a plot: the colour of its line, as CSS, and the dashes, as SVG; none for a whole line."""

    run: str
    color: str
    dashes: str


def template_environment(*, autoescape: bool) -> Environment:
    """Where templates of reports are found and how they are read: nothing that one names may be missing."""
    return Environment(
        loader=PackageLoader("finetune.reporting"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def page_template(name: str) -> Template:
    """A template of a page: what it is given is escaped, and nothing that it names may be missing."""
    environment = template_environment(autoescape=True)
    environment.filters |= {"percent": percent, "listed": listed}
    return environment.get_template(name)


def style_sheet() -> str:
    """The style that all pages share; plots take their colours from it."""
    return (resources.files("finetune.reporting") / "templates" / "comparison.css").read_text(encoding="utf-8")


def render_page(comparison: Comparison, findings: Findings) -> str:
    """The page as HTML text; every name and label in it is escaped."""
    keys = line_keys(comparison.runs)
    few_labels = len(comparison.labels) <= MOST_MATRIX_LABELS
    return page_template("comparison.html.j2").render(
        comparison=comparison,
        findings=findings,
        table=_without_rates(comparison_table(comparison)),
        over_seeds=None if comparison.over_seeds is None else seeds_table(comparison.over_seeds),
        data=data_parts(comparison.data, comparison.labels, comparison.test_count),
        # Marked as safe: the SVG is made here, and names in it are escaped.
        forest=Markup(plots.forest_plot(comparison)),
        curves=drawn_curves(
            [
                (_LOSS_CAPTION, plots.loss_plot(comparison.runs)),
                ("Accuracy on the validation rows.", plots.accuracy_plot(comparison.runs)),
            ]
        ),
        sureties=drawn_curves(
            [
                (_RELIABILITY_CAPTION, plots.reliability_plot(comparison.runs)),
                (_COVERAGE_CAPTION, plots.coverage_plot(comparison.runs)),
            ]
        ),
        sure=[keys[run.name] for run in comparison.runs if run.surety is not None],
        errors=[(run, _calibration_cells(run)) for run in comparison.runs if run.surety is not None],
        costs=drawn_curves([(_COST_CAPTION, plots.cost_plot(comparison.runs))]),
        costs_table=cost_table(comparison.runs),
        costs_notes=cost_notes(comparison.runs),
        keys=keys,
        trained=[keys[run.name] for run in comparison.runs if run.curve.training or run.curve.validation],
        matrices=[(run, matrix_cells(run)) for run in comparison.runs if run.confusion_matrix] if few_labels else [],
        confusions=[] if few_labels else [(run, confusions(run, comparison.labels)) for run in comparison.runs],
        per_class=_per_class(comparison),
        fold_labels=len(comparison.labels) > FOLDED_LABELS,
        environments=[(run, environment_rows(run), _packages(run.environment)) for run in comparison.runs],
    )


def _without_rates(table: Table) -> Table:
    """Without rows per second, which stand in the table of costs: the page is no wider than a screen."""
    kept = [place for place, column in enumerate(table.columns) if column.detail != "rows/s"]
    rows = tuple(tuple(row[place] for place in kept) for row in table.rows)
    return Table(tuple(table.columns[place] for place in kept), rows)


def data_parts(
    summaries: Sequence[DataSummary], labels: Sequence[str], test_count: int
) -> list[tuple[DataSummary, str, Table, list[str]]]:
    """The section on the data of a page: of each, its source, its table and its flaws."""
    return [(data, data_source(data), data_table(data, labels), data_flaws(data, test_count)) for data in summaries]


def drawn_curves(curves: Sequence[tuple[str, str | None]]) -> list[tuple[str, Markup]]:
    """Captions and SVG of what there was to draw. Marked as safe: it is made here, and names in it are escaped."""
    return [(caption, Markup(svg)) for caption, svg in curves if svg is not None]


def line_keys(runs: Sequence[plots.Logged]) -> dict[str, LineKey]:
    """The line of each run in the plots, by its name."""
    return {
        run.name: LineKey(run.name, f"var(--series-{i % plots.SERIES + 1})", " ".join(map(str, plots.dashes(i))))
        for i, run in enumerate(runs)
    }


def matrix_cells(run: RunSummary) -> list[list[MatrixCell]]:
    """The confusion matrix with row shares; rows are references, columns predictions."""
    return [
        [MatrixCell(count, count / sum(row) if sum(row) else None, i == j) for j, count in enumerate(row)]
        for i, row in enumerate(run.confusion_matrix)
    ]


def confusions(run: RunSummary, labels: Sequence[str]) -> list[Confusion]:
    """The commonest confusions, the most rows first."""
    found = [
        Confusion(labels[i], labels[j], count, count / sum(row))
        for i, row in enumerate(run.confusion_matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(found, key=lambda confusion: -confusion.count)[:LISTED_CONFUSIONS]


def _calibration_cells(run: RunSummary) -> list[Cell]:
    """The calibration error in points, and the Brier score with its interval."""
    error, brier = run.metrics.get("ece"), run.metrics.get("brier")
    cells = [Cell(NOTHING if error is None or error.value is None else f"{100 * error.value:.1f}")]
    if brier is None or brier.value is None:
        return [*cells, Cell(NOTHING)]
    ends = "" if brier.low is None or brier.high is None else f"[{brier.low:.3f}, {brier.high:.3f}]"
    return [*cells, Cell(f"{brier.value:.3f}", ends)]


def _per_class(comparison: Comparison) -> list[tuple[str, list[tuple[RunSummary, list[Cell]]]]]:
    """Per label, per run: precision, recall and F1."""
    return [
        (label, [(run, [metric_cell(run.per_class[label].get(name)) for name in ("precision", "recall", "f1")])
                 for run in comparison.runs if label in run.per_class])
        for label in comparison.labels
    ]  # fmt: skip


# --- environment ------------------------------------------------------------------------------------------------------

_ENVIRONMENT_LABELS = {
    "command": "Command",
    "device": "Device",
    "processor": "Processor",
    "threads": "Threads",
    "world_size": "Processes",
    "mixed_precision": "Mixed precision",
    "start": "Start",
    "end": "End",
}
_SHOWN_ELSEWHERE = {"finetune_version", "git_commit", "git_dirty", "packages", "seed"}


def environment_rows(run: RunSummary) -> list[tuple[str, str]]:
    """What a run ran with, as (name, text) pairs: settings, code, machine, then whatever else was recorded."""
    environment = run.environment
    rows = [("Recipe", run.recipe_name), *((key, f"{value:g}" if isinstance(value, float) else str(value))
                                           for key, value in run.settings.items())]  # fmt: skip
    rows.append(("Code", _code_version(environment)))
    known = {key: label for key, label in _ENVIRONMENT_LABELS.items() if key in environment}
    others = {key: key.replace("_", " ").capitalize() for key in environment if key not in known}
    for key, label in (known | others).items():
        if key not in _SHOWN_ELSEWHERE:
            rows.append((label, _plain(key, environment[key])))
    return rows


def _code_version(environment: Mapping[str, Any]) -> str:
    commit = environment.get("git_commit")
    changed = ", with uncommitted changes" if environment.get("git_dirty") else ""
    version = f"finetune {environment.get('finetune_version', NOTHING)}"
    return f"{version}, commit {commit}{changed}" if commit else version


def _plain(key: str, value: object) -> str:
    match value:
        case None:
            return NOTHING
        case str():
            return printable(value)
        case list() if key == "command":
            return printable(shlex.join(map(str, value)))
        case _:
            return json.dumps(value, ensure_ascii=False)


def _packages(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    return sorted((str(name), str(version)) for name, version in environment.get("packages", {}).items())
