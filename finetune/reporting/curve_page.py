"""A learning curve -> curve.json, curve.md, curve.svg and one HTML page."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

import finetune
from finetune.reporting import plots
from finetune.reporting.learning_curve import (
    MEASURES,
    Measure,
    curve_account,
    curve_markdown,
    curve_sentences,
    show_interval,
)
from finetune.reporting.page import page_template, style_sheet
from finetune.reporting.tables import Cell, Column, Table, duration, shortened
from finetune.run import write_whole, write_whole_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DATA_FILE, MARKDOWN_FILE, PLOT_FILE, PAGE_FILE = "curve.json", "curve.md", "curve.svg", "curve.html"
_LEGEND_ROW = 22
_KEY = 34
_LONGEST_NAME = 26
_SHORTEST = 0.1
"""Seconds: what takes less, such as the majority floor, would stretch the axis for nothing."""


def write_curve(summary: Mapping[str, Any], output: Path) -> Path:
    """Write all four into the directory `output`; returns the path of the Markdown file."""
    drawing = plots.standalone(size_plot(summary), style_sheet())
    write_whole_json(output / DATA_FILE, summary)
    write_whole(output / PLOT_FILE, drawing)
    write_whole(output / PAGE_FILE, render_curve_page(summary))
    write_whole(output / MARKDOWN_FILE, curve_markdown(summary))
    return output / MARKDOWN_FILE


def render_curve_page(summary: Mapping[str, Any]) -> str:
    """The page as HTML text; every name in it is escaped."""
    measure = MEASURES[summary["task"]]
    first, *others = summary["recipes"]
    seconds = time_plot(summary)
    return page_template("curve.html.j2").render(
        summary=summary,
        sentences=curve_sentences(summary),
        account=curve_account(summary),
        # Marked as safe: the SVG is made here, and names in it are escaped.
        by_size=Markup(size_plot(summary)),
        by_seconds=None if seconds is None else Markup(seconds),
        scores=_table(summary, lambda entry, name: _cell(measure, entry["recipes"][name][measure.metric])),
        differences=_table(
            summary,
            lambda entry, name: _cell(measure, entry["recipes"][first]["difference"][name], sign="+"),
            others,
        ),
        seconds=_table(summary, lambda entry, name: Cell(duration(mean(entry["recipes"][name]["training_seconds"])))),
        title=measure.title,
        unit=measure.unit,
        finetune_version=finetune.__version__,
    )


def _table(
    summary: Mapping[str, Any],
    cell: Callable[[Mapping[str, Any], str], Cell],
    recipes: Sequence[str] | None = None,
) -> Table:
    columns = [Column(f"{entry['size']:,}", "rows") for entry in summary["by_size"]]
    rows = tuple(
        (Cell(name), *(cell(entry, name) for entry in summary["by_size"]))
        for name in (summary["recipes"] if recipes is None else recipes)
    )
    return Table((Column("Recipe", is_number=False), *columns), rows)


def _cell(measure: Measure, interval: Mapping[str, float], sign: str = "") -> Cell:
    value, _, ends = show_interval(measure, interval, sign).partition(" ")
    return Cell(value, ends)


def size_plot(summary: Mapping[str, Any]) -> str:
    """Mean scores over training rows, on a logarithmic axis, with the intervals as bands; a line for each recipe."""
    measure = MEASURES[summary["task"]]
    sizes = [entry["size"] for entry in summary["by_size"]]
    figure, axes, texts = _axes(summary["recipes"], "Training rows", measure.title)
    for i, name in enumerate(summary["recipes"]):
        scores = [entry["recipes"][name][measure.metric] for entry in summary["by_size"]]
        low, value, high = ([measure.scale * score[end] for score in scores] for end in ("low", "value", "high"))
        axes.fill_between(sizes, low, high, color=_color(i), alpha=0.16, linewidth=0)
        _line(axes, i, sizes, value)
    axes.set_xticks(sizes, [_short(size) for size in sizes])
    axes.minorticks_off()
    last = summary["by_size"][-1]
    said = "; ".join(
        f"{name} {show_interval(measure, last['recipes'][name][measure.metric])}" for name in summary["recipes"]
    )
    return plots._svg(
        figure,
        "sizes",
        f"{measure.title.removesuffix(', %')} over training rows",
        f"{last['size']:,} rows: {said}",
        texts,
    )


def time_plot(summary: Mapping[str, Any]) -> str | None:
    """The same scores over the mean time of training; None where no recipe trained for as long as can be told."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    measure = MEASURES[summary["task"]]
    figure, axes, texts = _axes(summary["recipes"], "Training time", measure.title)
    drawn = False
    for i, name in enumerate(summary["recipes"]):
        of_recipe = [entry["recipes"][name] for entry in summary["by_size"]]
        seconds = [mean(score["training_seconds"]) for score in of_recipe]
        if max(seconds) < _SHORTEST:
            continue
        drawn = True
        _line(axes, i, [max(value, _SHORTEST) for value in seconds],
              [measure.scale * score[measure.metric]["value"] for score in of_recipe])  # fmt: skip
    if not drawn:
        return None
    axes.xaxis.set_major_locator(LogLocator(numticks=7))
    axes.xaxis.set_minor_locator(LogLocator(numticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))
    title = f"{measure.title.removesuffix(', %')} over the time of training"
    return plots._svg(figure, "times", title, "A point for each number of training rows.", texts)


def _axes(recipes: Sequence[str], x_label: str, y_label: str) -> "tuple[Figure, Axes, dict[str, str]]":
    """A plot with a key below it, in two columns; the texts are stand-ins in it and what they stand for."""
    from matplotlib.lines import Line2D

    rows = (len(recipes) + 1) // 2
    figure, axes = plots._plain_axes(x_label, y_label, below=_LEGEND_ROW * rows)
    axes.set_xscale("log")
    width, height = plots.WIDTH, 72 * figure.get_figheight()  # 72 units to the inch
    texts = {}
    for i, name in enumerate(recipes):
        # Down the first column, then down the second.
        left, y = 8 + (width / 2 if i >= rows else 0), (_LEGEND_ROW * (rows - i % rows) - 12) / height
        key = Line2D([left / width, (left + _KEY) / width], [y, y], color=_color(i), linewidth=2)
        key.set_dashes(plots.dashes(i))
        figure.add_artist(key)
        texts[f"@name{i}@"] = shortened(name, _LONGEST_NAME)
        figure.text((left + _KEY + 8) / width, y, f"@name{i}@", va="center", color=plots._INK)
    return figure, axes, texts


def _line(axes: "Axes", i: int, x: Sequence[float], y: Sequence[float]) -> None:
    axes.plot(x, y, color=_color(i), linewidth=2, linestyle=(0, plots.dashes(i) or None),
              marker="o", markersize=6.5, markeredgecolor=plots._SURFACE, markeredgewidth=1.2)  # fmt: skip


def _color(i: int) -> str:
    return plots._SERIES[i % plots.SERIES]


def _short(size: int) -> str:
    """ "300", "3,000", "30k": what fits below the axis."""
    return f"{size // 1000}k" if size >= 10_000 and size % 1000 == 0 else f"{size:,}"
