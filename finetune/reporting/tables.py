"""A comparison -> rows of text cells, and these as Markdown or as a table for the terminal."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rich import box
from rich.cells import cell_len
from rich.table import Table as RichTable
from rich.text import Text

from finetune.reporting.comparison import Comparison, Cost, DataSummary, Latency, Metric, RunSummary
from finetune.reporting.seeds import OverSeeds, RecipeOverSeeds
from finetune.significance import CONFIDENCE, Interval

NOTHING = "–"
LISTED_SEEDS = 5
"""Of more the table says only how many they are."""


class Costed(Protocol):
    """A run that says what it took."""

    @property
    def name(self) -> str: ...
    @property
    def cost(self) -> Cost: ...


@dataclass(frozen=True)
class Cell:
    """A cell's main text and a lesser one behind it, such as "86.9 %" and "[86.6, 87.2]"."""

    text: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".rstrip()


@dataclass(frozen=True)
class Column:
    """A head, the lesser text behind it, and whether its cells are numbers (set flush right)."""

    title: str
    detail: str = ""
    is_number: bool = True

    def __str__(self) -> str:
        return f"{self.title} {self.detail}".rstrip()


@dataclass(frozen=True)
class Table:
    """Columns and rows; the first column heads its row."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


# --- numbers ----------------------------------------------------------------------------------------------------------


def percent(share: float | None, decimals: int = 1) -> str:
    """0.869 -> "86.9 %"."""
    return NOTHING if share is None else f"{100 * share:.{decimals}f} %"


def metric_cell(metric: Metric | None) -> Cell:
    """A share with its interval, in percent."""
    if metric is None or metric.value is None:
        return Cell(NOTHING)
    if metric.low is None or metric.high is None:
        return Cell(percent(metric.value))
    return interval_cell(Interval(metric.value, metric.low, metric.high))


def interval_cell(interval: Interval) -> Cell:
    """ "86.9 %" and "[86.6, 87.2]"."""
    return Cell(percent(interval.value), f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]")


def interval_text(metric: Metric) -> str:
    """ "86.9 % [86.6, 87.2]"."""
    return str(metric_cell(metric))


def short_count(count: int | None) -> str:
    """A count in three digits or so: 950, "12.3 k", "1.2 M", "110 M"."""
    return _in_three_digits(count, ("B", "M", "k"))


def byte_size(count: int | None) -> str:
    """Bytes in three digits or so, by thousands: "950 B", "12.3 kB", "1.2 MB", "1.4 GB"."""
    return _in_three_digits(count, ("GB", "MB", "kB"), "B")


def _in_three_digits(count: int | None, units: tuple[str, str, str], one: str = "") -> str:
    if count is None:
        return NOTHING
    for size, unit in zip((1e9, 1e6, 1e3), units, strict=True):
        # 999,950 shows as "1.0 M", not as "1000 k".
        if count >= size * 0.9995 and count >= 1000:
            scaled = count / size
            return f"{scaled:.0f} {unit}" if scaled >= 99.95 else f"{scaled:.1f} {unit}"
    return f"{count} {one}".rstrip()


def round_up(count: int) -> int:
    """Up to two digits, which are all that an estimate of rows has: 2,753 -> 2,800."""
    size = 10 ** max(0, len(str(count)) - 2)
    return -(-count // size) * size


def duration(seconds: float | None) -> str:
    """ "0.4 s", "42 s", "3 min 12 s", "2 h 05 min"."""
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return "< 0.1 s" if 0 <= seconds < 0.05 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rate(rows_per_second: float | None) -> str:
    """ "1,234" or, below ten, "3.4"."""
    if rows_per_second is None:
        return NOTHING
    return f"{rows_per_second:,.0f}" if rows_per_second >= 9.95 else f"{rows_per_second:.1f}"


def milliseconds(time: float | None) -> str:
    """ "< 0.1 ms", "3.4 ms", "42 ms"."""
    if time is None:
        return NOTHING
    if time < 9.95:
        return "< 0.1 ms" if 0 <= time < 0.05 else f"{time:.1f} ms"
    return f"{time:,.0f} ms"


def peak_memory(cost: Cost) -> str:
    """The memory at its peak, such as "1.4 GB"; "≤ 1.4 GB" of a run that came after others in its process."""
    return f"{'' if cost.raised_peak_memory else '≤ '}{byte_size(cost.peak_memory_bytes)}"


# --- tables -----------------------------------------------------------------------------------------------------------


def comparison_table(comparison: Comparison) -> Table:
    """One row per run, the highest accuracy first."""
    levels = {run.confidence_level for run in comparison.runs}
    detail = f"[{percent(levels.pop(), 0)} interval]" if len(levels) == 1 else "[interval]"
    with_leaks = any(run.without_leaked_rows is not None for run in comparison.runs)
    with_tests = any(run.paired is not None for run in comparison.runs)
    columns = [
        Column("Run", is_number=False),
        Column("Model", is_number=False),
        Column("Test accuracy", detail),
        *([Column("Below the best", f"[{percent(CONFIDENCE, 0)} interval]")] if with_tests else []),
        Column("Macro F1", detail),
        *([Column("Accuracy without leaked rows", detail)] if with_leaks else []),
        Column("Parameters"),
        Column("Training time"),
        Column("Training", "rows/s"),
        Column("Scoring", "rows/s"),
        Column("Test split scored"),
    ]
    return Table(tuple(columns), tuple(_run_row(run, comparison, with_leaks, with_tests) for run in comparison.runs))


def _run_row(run: RunSummary, comparison: Comparison, with_leaks: bool, with_tests: bool) -> tuple[Cell, ...]:
    scored = Cell("once") if run.times_scored == 1 else Cell(f"{run.times_scored} times", "(more than once)")
    return (
        Cell(run.name),
        Cell(run.model, "(a floor)" if run.is_floor else ""),
        metric_cell(run.accuracy),
        *([_behind_cell(run)] if with_tests else []),
        metric_cell(run.metrics.get("macro_f1")),
        *([_without_leaked_cell(run, comparison)] if with_leaks else []),
        parameters_cell(run.cost),
        Cell(duration(run.cost.training_seconds)),
        Cell(rate(run.cost.training_rows_per_second)),
        Cell(rate(run.cost.scoring_rows_per_second)),
        scored if run.times_scored else Cell("never"),
    )


def _behind_cell(run: RunSummary) -> Cell:
    """How many points the best run is ahead, on the same rows, and whether that is told apart from nothing."""
    return Cell(NOTHING) if run.paired is None else _points_cell(run.paired.difference, run.paired.is_told_apart())


def seeds_table(over_seeds: OverSeeds) -> Table:
    """One row per recipe, the highest mean accuracy first."""
    with_best = len(over_seeds.recipes) > 1
    detail = f"[{percent(over_seeds.confidence_level, 0)} interval]"
    columns = [
        Column("Recipe", is_number=False),
        Column("Seeds"),
        Column("Mean test accuracy", detail),
        *([Column("Below the best", detail)] if with_best else []),
        Column("Standard deviation", "over seeds, points"),
        Column("Standard error", "of seeds, points"),
        Column("Standard error", "of rows, points"),
    ]
    return Table(tuple(columns), tuple(_seeds_row(recipe, with_best) for recipe in over_seeds.recipes))


def _seeds_row(recipe: RecipeOverSeeds, with_best: bool) -> tuple[Cell, ...]:
    behind = Cell(NOTHING)
    seeds = ",".join(map(str, recipe.seeds))  # one word: a terminal would put each number on a line
    if recipe.behind is not None:
        behind = _points_cell(recipe.behind, recipe.is_told_apart())
    return (
        Cell(recipe.name, "(a floor)" if recipe.is_floor else ""),
        Cell(str(len(recipe.seeds)), f"({seeds})" if len(recipe.seeds) <= LISTED_SEEDS else ""),
        interval_cell(recipe.accuracy),
        *([behind] if with_best else []),
        *(
            Cell(NOTHING if value is None else f"{100 * value:.2f}")
            for value in (recipe.spread.deviation, recipe.spread.of_seeds, recipe.spread.of_rows)
        ),
    )


def _points_cell(difference: Interval, is_told_apart: bool) -> Cell:
    value, low, high = (100 * end for end in (difference.value, difference.low, difference.high))
    return Cell(f"{value:.1f}", f"[{low:.1f}, {high:.1f}]{'' if is_told_apart else ', not told apart'}")


def _without_leaked_cell(run: RunSummary, comparison: Comparison) -> Cell:
    if run.without_leaked_rows is not None:
        return metric_cell(run.without_leaked_rows.metrics.get("accuracy"))
    leaked = next(data.leaked_test_rows_normalized for data in comparison.data if run.name in data.runs)
    return Cell(NOTHING if leaked else "none leaked")


def parameters_cell(cost: Cost) -> Cell:
    trained = cost.trainable_parameters
    partly = trained is not None and trained != cost.parameters
    return Cell(short_count(cost.parameters), f"({short_count(trained)} trained)" if partly else "")


def cost_table(runs: Sequence[Costed]) -> Table:
    """What each run costs: its size, its training, and what it takes to be used; columns that no run fills left out."""
    columns = (
        Column("Run", is_number=False),
        Column("Parameters"),
        Column("On disk"),
        Column("Training time"),
        Column("Training", "rows/s"),
        Column("Scoring", "rows/s"),
        Column("Latency", "median"),
        Column("Latency", "95th percentile"),
        Column("Peak memory"),
        Column("Peak memory", "GPU"),
    )
    rows = [_cost_row(run) for run in runs]
    filled = [i for i in range(len(columns)) if any(row[i].text != NOTHING for row in rows)]
    return Table(tuple(columns[i] for i in filled), tuple(tuple(row[i] for i in filled) for row in rows))


def _cost_row(run: Costed) -> tuple[Cell, ...]:
    cost, latency = run.cost, run.cost.latency_ms
    return (
        Cell(run.name),
        parameters_cell(cost),
        Cell(byte_size(cost.disk_bytes)),
        Cell(duration(cost.training_seconds)),
        Cell(rate(cost.training_rows_per_second)),
        Cell(rate(cost.scoring_rows_per_second)),
        Cell(milliseconds(latency.p50), f"({latency.device}, {threads_text(latency)})") if latency else Cell(NOTHING),
        Cell(milliseconds(latency.p95 if latency else None)),
        Cell(peak_memory(cost)),
        Cell(byte_size(cost.peak_gpu_memory_bytes)),
    )


def threads_text(latency: Latency) -> str:
    """ "1 thread", "2 threads"."""
    return f"{latency.threads} thread{'s' if latency.threads != 1 else ''}"


def cost_notes(runs: Sequence[Costed]) -> list[str]:
    """What the numbers of `cost_table` mean, one sentence each; nothing of numbers that no run has."""
    notes = []
    if any(run.cost.disk_bytes is not None for run in runs):
        notes.append("On disk: all files of model/; floors keep none.")
    counts = [run.cost.latency_ms.count for run in runs if run.cost.latency_ms is not None]
    if counts:
        texts = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        notes.append(
            "Latency: one validation text at a time, from the text to its label, by the process that trained, with the "
            f"device and the threads named; {texts} texts, after warm-up."
        )
    if any(run.cost.peak_memory_bytes is not None for run in runs):
        notes.append("Peak memory: the most that the process held by the end of the run, libraries and data included.")
    if not all(run.cost.raised_peak_memory for run in runs):
        notes.append("≤: its process had held that much before the run began.")
    return notes


def data_table(data: DataSummary, labels: Sequence[str]) -> Table:
    """One row per split: rows, rows per label, rows dropped; labels in columns only while they are few."""
    few = labels if len(labels) <= 10 else ()
    reasons = sorted({reason for split in data.splits.values() for reason in split.dropped})
    columns = [Column("Split", is_number=False), Column("Rows"), *(Column(label) for label in few)]
    columns += [Column(f"Dropped: {reason}") for reason in reasons]
    rows = [
        (
            Cell(name, "(set aside from train)" if name in data.set_aside_from_train else ""),
            Cell(f"{split.count:,}"),
            *(_share_cell(split.label_counts.get(label, 0), split.count) for label in few),
            *(Cell(f"{split.dropped[reason]:,}" if reason in split.dropped else NOTHING) for reason in reasons),
        )
        for name, split in data.splits.items()
    ]
    return Table(tuple(columns), tuple(rows))


def _share_cell(count: int, total: int) -> Cell:
    return Cell(f"{count:,}", f"({percent(count / total)})" if total else "")


def data_flaws(data: DataSummary, test_count: int) -> list[str]:
    """The flaws that were counted, one sentence each."""
    repeated, leaked = data.repeated_train_rows, data.leaked_test_rows_normalized
    if not repeated and not leaked:
        return ["No repeated rows in train and validation, and no test rows that stand there too."]
    share = f" ({percent(leaked / test_count)})" if test_count else ""
    return [
        f"Repeated rows in train and validation: {repeated:,}.",
        f"Test rows that stand in train or validation too: {leaked:,}{share}, "
        f"{data.leaked_test_rows_exact:,} of them with exactly the same text.",
    ]


def data_source(data: DataSummary) -> str:
    """The source in a line: "nsmc, revision main" or "local files: train.csv, test.csv"."""
    revision = f", revision {data.revision}" if data.revision else ""
    # An embedded set is named; its file names add nothing.
    files = f": {', '.join(data.files)}" if data.files and data.source == "local files" else ""
    return f"{data.source}{revision}{files}"


# --- Markdown ---------------------------------------------------------------------------------------------------------

_MARKUP = re.compile(r"[\\`*|~$]|\[(?![\d-])|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])")


def escape_markdown(text: str) -> str:
    """`text` so that Markdown shows it as it is; underscores in words and brackets of intervals need nothing."""
    plain = _MARKUP.sub(r"\\\g<0>", text)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_table(table: Table) -> str:
    """The table in GitHub's Markdown."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return "\n".join(
        [
            line([escape_markdown(str(column)) for column in table.columns]),
            line(["---:" if column.is_number else ":---" for column in table.columns]),
            *(line([escape_markdown(str(cell)) for cell in row]) for row in table.rows),
        ]
    )


def comparison_markdown(comparison: Comparison, sentences: Sequence[str], over_seeds: Sequence[str] = ()) -> str:
    """The tables, their words and the data as a Markdown document."""
    blocks = [
        f"# Comparison of {len(comparison.runs)} runs",
        f"Scored on the same {comparison.test_count:,} test rows, {len(comparison.labels)} labels.",
        markdown_table(comparison_table(comparison)),
        _bullets(sentences),
        *(
            ["## Over seeds", markdown_table(seeds_table(comparison.over_seeds)), _bullets(over_seeds)]
            if comparison.over_seeds is not None
            else []
        ),
        *cost_blocks(comparison.runs),
        *data_blocks(comparison.data, comparison.labels, comparison.test_count),
        f"Made by finetune {comparison.finetune_version}.",
    ]
    return "\n\n".join(blocks) + "\n"


def cost_blocks(runs: Sequence[Costed]) -> list[str]:
    """The section on the costs of a Markdown document, block by block."""
    return ["## Cost", markdown_table(cost_table(runs)), *filter(None, [_bullets(cost_notes(runs))])]


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escape_markdown(sentence)}" for sentence in sentences)


def data_blocks(summaries: Sequence[DataSummary], labels: Sequence[str], test_count: int) -> list[str]:
    """The section on the data of a Markdown document, block by block."""
    blocks = ["## Data"]
    for data in summaries:
        of_runs = f" (runs: {', '.join(data.runs)})" if len(summaries) > 1 else ""
        blocks += [
            f"Source: {escape_markdown(data_source(data) + of_runs)}",
            markdown_table(data_table(data, labels)),
            _bullets(data_flaws(data, test_count)),
        ]
    return blocks


# --- the terminal -----------------------------------------------------------------------------------------------------


def rich_table(table: Table, width: int = 120) -> RichTable:
    """The table for a terminal `width` columns wide.

    Details stand below their value, and the model below the run. Columns that do not fit are left off from the right,
    and a line below says which.
    """
    merged = _merge_model(table)
    widths = [_least_width(column, [row[i] for row in merged.rows]) for i, column in enumerate(merged.columns)]
    gap, narrowest = 2, 16
    shown = len(widths)
    while shown > 2 and narrowest + sum(gap + least for least in widths[1:shown]) > width:
        shown -= 1
    left = width - sum(gap + least for least in widths[1:shown])
    widest = max(cell_len(text) for row in merged.rows for text in (row[0].text, row[0].detail))
    widths[0] = max(min(left, max(widest, cell_len(merged.columns[0].title))), narrowest)
    left_off = ", ".join(str(column) for column in merged.columns[shown:])
    rendered = RichTable(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, gap - 1, 0, 0),
        caption=Text(f"left off, for the width of the terminal: {left_off}", "dim") if left_off else None,
        caption_justify="left",
    )
    for column, least in zip(merged.columns[:shown], widths, strict=False):
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        rendered.add_column(_stacked(column.title, column.detail), justify=justify, overflow="fold", width=least)
    for row in merged.rows:
        rendered.add_row(*(_stacked(cell.text, cell.detail) for cell in row[:shown]))
    return rendered


def _least_width(column: Column, cells: Sequence[Cell]) -> int:
    """The columns of the terminal that numbers need on one line; words may wrap."""
    words = [*str(column).replace("[", "").split(), *(word for cell in cells for word in cell.detail.split())]
    unbroken = [cell.text for cell in cells] + [cell.detail for cell in cells if cell.detail.startswith("[")]
    return max(cell_len(text) for text in [*words, *unbroken])


def _merge_model(table: Table) -> Table:
    """The second column's cells as details of the first's, where there is a model column."""
    if table.columns[1].title != "Model":
        return table
    columns = (Column("Run", "and model", is_number=False), *table.columns[2:])
    return Table(columns, tuple((Cell(run.text, str(model)), *cells) for run, model, *cells in table.rows))


def _stacked(text: str, detail: str) -> Text:
    # Text objects, not markup: a name such as "[red]" is a name.
    return Text.assemble(text, (f"\n{detail}", "dim")) if detail else Text(text)


# --- widths -----------------------------------------------------------------------------------------------------------


def shortened(text: str, width: int) -> str:
    """`text` cut to `width` columns with an ellipsis; a Hangul syllable takes two."""
    used = 0
    for i, character in enumerate(text):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > width:
            return f"{text[: max(i - 1, 0)]}…"
    return text
