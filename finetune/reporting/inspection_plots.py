"""Accuracies of slices of the rows as inline SVG in the style of `plots`: for each run a dot on its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.reporting import plots
from finetune.reporting.tables import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _HEAD, _TOP, _BOTTOM, _LEFT = 20, 26, 4, 46, 142
"""Units of the view box: of a run's line, of a slice's title, around the axis, and for the names of runs."""
_NAME_WIDTH = 18


@dataclass(frozen=True)
class Mark:
    """What one run has right in a slice, as shares: a dot, its interval, and what to hold it against."""

    run: int
    """Its place among the runs, which chooses the colour."""
    name: str
    is_floor: bool
    value: float
    low: float
    high: float
    against: float | None = None


@dataclass(frozen=True)
class MarkedSlice:
    """Rows of one kind, with a mark for each run."""

    title: str
    rows: int
    marks: Sequence[Mark]
    unit: str = "rows"


def slice_plot(slices: Sequence[MarkedSlice], name: str, title: str, axis: str = "Accuracy, %") -> str:
    """The slices one below the other; open diamonds are what the marks are held against. `name` is for ids."""
    height = _TOP + sum(_HEAD + _ROW * len(part.marks) for part in slices) + _BOTTOM
    figure = plots._figure(height)
    # A unit of the vertical axis is a unit of the view box, from the top.
    axes = figure.add_axes(
        (_LEFT / plots.WIDTH, _BOTTOM / height, (plots.WIDTH - _LEFT - 14) / plots.WIDTH, 1 - _BOTTOM / height)
    )
    axes.set_ylim(height - _BOTTOM, 0)
    plots._style(axes)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=plots._RULE, linewidth=1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(axis)
    texts: dict[str, str] = {}

    def write(text: str, x: float, y: float, color: str) -> None:
        """A stand-in: the text's own characters may mean markup to matplotlib or be missing from its fonts."""
        key = f"@name{len(texts)}@"
        texts[key] = text
        axes.text(x, y, key, transform=axes.get_yaxis_transform(), va="center", color=color)

    left = -(_LEFT - 4) / (plots.WIDTH - _LEFT - 14)
    y = float(_TOP)
    for part in slices:
        write(f"{shortened(part.title, 40)}, {part.rows:,} {part.unit}", left, y + _HEAD / 2 + 2, plots._INK)
        y += _HEAD
        for mark in part.marks:
            write(shortened(mark.name, _NAME_WIDTH), left, y + _ROW / 2, plots._MUTED)
            _draw(axes, mark, y + _ROW / 2)
            y += _ROW
    axes.margins(x=0.04)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -1), min(high, 101))
    return plots._svg(figure, name, title, "; ".join(_said(part) for part in slices), texts)


def _draw(axes: "Axes", mark: Mark, y: float) -> None:
    color = plots._SERIES[mark.run % plots.SERIES]
    axes.plot([100 * mark.low, 100 * mark.high], [y, y], color=color, linewidth=2.5)
    if mark.against is not None:
        axes.plot([100 * mark.against], [y], "D", color=plots._INK, markersize=6, markerfacecolor=plots._SURFACE,
                  markeredgewidth=1.5)  # fmt: skip
    shape, face = ("s", plots._SURFACE) if mark.is_floor else ("o", color)
    axes.plot([100 * mark.value], [y], shape, color=color, markersize=8, markerfacecolor=face, markeredgewidth=2)


def _said(part: MarkedSlice) -> str:
    values = (
        f"{mark.name} {100 * mark.value:.1f} %" + (f" (of {100 * mark.against:.1f} %)" if mark.against else "")
        for mark in part.marks
    )
    return f"{part.title}: {', '.join(values)}"
