"""A comparison -> plots as inline SVG: text stays text, and all colours come from the page's CSS variables."""

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from finetune.reporting.comparison import Comparison, Curve, RunSummary, TrainingPoint, ValidationPoint
from finetune.reporting.tables import duration, interval_text, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from finetune.training.lr_range import LearningRateRange

WIDTH = 480
"""Units of the view box; on a phone 480 of them share some 360 pixels, so text stays readable."""
TEXT_SIZE = 13
_MARGIN = 20
_FEW_ROWS = 10
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
SERIES = 8
"""Colours before they repeat with another dash."""
DASHES: tuple[tuple[float, ...], ...] = ((), (7, 3), (2, 2.5))

# Colours that matplotlib is to draw with, and what the page is to read instead.
_INK, _MUTED, _RULE, _BAND, _SURFACE = (f"#0101{i:02x}" for i in range(1, 6))
_SERIES = tuple(f"#0102{i:02x}" for i in range(1, SERIES + 1))
_CSS = {
    _INK: "currentColor",
    _MUTED: "var(--muted)",
    _RULE: "var(--rule)",
    _BAND: "var(--band)",
    _SURFACE: "var(--surface)",
    **{color: f"var(--series-{i})" for i, color in enumerate(_SERIES, start=1)},
}

Position = Callable[[TrainingPoint | ValidationPoint], float]


class Logged(Protocol):
    """A run with its training log."""

    @property
    def name(self) -> str: ...
    @property
    def curve(self) -> Curve: ...


def dashes(index: int) -> tuple[float, ...]:
    """The dash pattern of the run at `index`: runs of one colour differ in it."""
    return DASHES[index // SERIES % len(DASHES)]


# --- accuracies -------------------------------------------------------------------------------------------------------


def forest_plot(comparison: Comparison) -> str:
    """Test accuracies with their intervals, one below the other; the best run's interval as a band behind all."""
    runs = comparison.runs
    row, top, bottom = 44, 8, 46
    height = top + row * len(runs) + bottom
    figure = _figure(height)
    axes = figure.add_axes((10 / WIDTH, bottom / height, (WIDTH - 20) / WIDTH, row * len(runs) / height))
    axes.set_ylim(len(runs) - 0.5, -0.5)
    low, high = _accuracy_limits(runs)
    axes.set_xlim(low, high)
    _style(axes)
    # Each value stands beside its run: grid lines would only run through the names.
    axes.tick_params(axis="x", length=4, color=_RULE)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("Test accuracy, %")
    best = runs[0].accuracy
    if best.low is not None and best.high is not None:
        axes.axvspan(100 * best.low, 100 * best.high, color=_BAND, linewidth=0, zorder=0)
    texts: dict[str, str] = {}
    for i, run in enumerate(runs):
        _draw_interval(axes, i, run, low)
        # Stand-ins: the names' own characters may mean markup to matplotlib or be missing from its fonts.
        for key, text, x, side in (
            (f"@name{i}@", shortened(run.name, 34), 0.0, "left"),
            (f"@score{i}@", interval_text(run.accuracy), 1.0, "right"),
        ):
            texts[key] = text
            axes.text(x, i - 0.2, key, transform=axes.get_yaxis_transform(), ha=side, color=_INK)
    summary = "; ".join(f"{run.name} {interval_text(run.accuracy)}" for run in runs)
    return _svg(figure, "accuracy", "Test accuracies with intervals", summary, texts)


def _accuracy_limits(runs: Sequence[RunSummary]) -> tuple[float, float]:
    """The percents that the axis spans, without a majority floor far below all others: it would squeeze them."""
    spans = [_span(run) for run in runs if run.accuracy.value is not None]
    others = [_span(run) for run in runs if run.accuracy.value is not None and run.family != "majority"]
    if len(others) > 1 and min(low for low, _ in spans) < min(low for low, _ in others):
        width = max(high for _, high in others) - min(low for low, _ in others)
        if max(high for _, high in others) - min(low for low, _ in spans) > 3 * width:
            spans = others
    if not spans:
        return 0.0, 100.0
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    margin = max(0.08 * (high - low), 0.2)
    return max(low - margin, -0.5), min(high + margin, 100.5)


def _span(run: RunSummary) -> tuple[float, float]:
    known = [100 * end for end in (run.accuracy.low, run.accuracy.value, run.accuracy.high) if end is not None]
    return min(known), max(known)


def _draw_interval(axes: "Axes", i: int, run: RunSummary, left: float) -> None:
    y, color = i + 0.1, _SERIES[i % SERIES]
    accuracy = run.accuracy
    if accuracy.value is None:
        return
    if _span(run)[1] < left:
        axes.annotate("", (0, y), (0.06, y), xycoords=axes.get_yaxis_transform(), textcoords=axes.get_yaxis_transform(),
                      arrowprops={"arrowstyle": "->", "color": color, "linewidth": 2, "shrinkA": 0})  # fmt: skip
        axes.text(0.075, y, "off the axis", transform=axes.get_yaxis_transform(), va="center", color=_MUTED)
        return
    if accuracy.low is not None and accuracy.high is not None:
        ends = [100 * accuracy.low, 100 * accuracy.high]
        axes.plot(ends, [y, y], color=color, linewidth=2.5, marker="|", markersize=9, markeredgewidth=2)
    shape, face = ("s", _SURFACE) if run.is_floor else ("o", color)
    axes.plot([100 * accuracy.value], [y], shape, color=color, markersize=8, markerfacecolor=face, markeredgewidth=2)


# --- curves -----------------------------------------------------------------------------------------------------------


def curve_axis(runs: Sequence[Logged]) -> tuple[str, Position]:
    """What the curves run over: epochs, which compare across batch sizes, or steps where the log has no such epochs."""
    for run in runs:
        for points in (run.curve.training, run.curve.validation):
            epochs = [point.epoch for point in points if point.epoch is not None]
            rising = all(before < after for before, after in pairwise(epochs))
            if len(epochs) < len(points) or not rising:
                return "Step", lambda point: point.step
    return "Epoch", lambda point: point.epoch or 0.0


def loss_plot(runs: Sequence[Logged]) -> str | None:
    """Training loss (as logged, faint, and smoothed) and validation loss (points); None where nothing was logged."""
    if not any(run.curve.training or run.curve.validation for run in runs):
        return None
    figure, axes = _curve_axes(runs, "Loss")
    axis, position = curve_axis(runs)
    for i, run in enumerate(runs):
        color, dash = _SERIES[i % SERIES], (0, dashes(i) or None)
        x, losses = [position(point) for point in run.curve.training], [point.loss for point in run.curve.training]
        axes.plot(x, losses, color=color, linewidth=1, alpha=0.28)
        axes.plot(x, smooth(losses), color=color, linewidth=2, linestyle=dash)
        validated = [(position(point), point.loss) for point in run.curve.validation if point.loss is not None]
        axes.plot(*_unzip(validated), color=color, linewidth=1, linestyle=":")
        axes.plot(*_unzip(validated), "o", color=color, markersize=6.5, markeredgecolor=_SURFACE, markeredgewidth=1.2)
    label = f"Loss over {axis.lower()}s"
    return _svg(figure, "loss", label, _ends(runs, "loss"), {})


def accuracy_plot(runs: Sequence[Logged]) -> str | None:
    """Validation accuracy; None where nothing was validated during training."""
    return _validation_plot(runs, "accuracy", "Validation accuracy, %", 100)


def f1_plot(runs: Sequence[Logged]) -> str | None:
    """Validation micro F1 of runs that give several labels; None where there are none."""
    return _validation_plot(runs, "micro_f1", "Validation micro F1, %", 100)


def bits_plot(runs: Sequence[Logged]) -> str | None:
    """Validation bits per byte, which compare across vocabularies as losses do not; None where there are none."""
    return _validation_plot(runs, "bits_per_byte", "Validation bits per byte", 1)


def _validation_plot(runs: Sequence[Logged], metric: str, title: str, scale: float) -> str | None:
    axis, position = curve_axis(runs)
    curves = [
        [
            (position(point), scale * value)
            for point in run.curve.validation
            if (value := getattr(point, metric)) is not None
        ]
        for run in runs
    ]
    if not any(curves):
        return None
    figure, axes = _curve_axes(runs, title)
    for i, points in enumerate(curves):
        axes.plot(*_unzip(points), color=_SERIES[i % SERIES], linewidth=2, linestyle=(0, dashes(i) or None),
                  marker="o", markersize=6.5, markeredgecolor=_SURFACE, markeredgewidth=1.2)  # fmt: skip
    label = f"{title.removesuffix(', %')} over {axis.lower()}s"
    return _svg(figure, "validation", label, _ends(runs, metric), {})


def reliability_plot(runs: Sequence[RunSummary]) -> str | None:
    """How often runs are right over how sure they are, beside the diagonal; None where that is not known of any."""
    known = [(i, run, run.surety) for i, run in enumerate(runs) if run.surety is not None]
    if not known:
        return None
    figure, axes = _plain_axes("Confidence, %", "Right, %")
    axes.plot([0, 100], [0, 100], color=_MUTED, linewidth=1, linestyle="--")
    low = 100.0
    for i, _, surety in known:
        # A bin of a few rows says little, and would jump up and down.
        bins = [(100 * sure, 100 * right) for sure, right, count in surety.reliability if count >= _FEW_ROWS]
        low = min([low, *(min(point) for point in bins)])
        axes.plot(*_unzip(bins), color=_SERIES[i % SERIES], linewidth=2, linestyle=(0, dashes(i) or None),
                  marker="o", markersize=6.5, markeredgecolor=_SURFACE, markeredgewidth=1.2)  # fmt: skip
    axes.set_xlim(low - 3, 101)
    axes.set_ylim(low - 3, 101)
    said = "; ".join(f"{run.name} has a calibration error of {_error(run)}" for _, run, _ in known)
    return _svg(figure, "reliability", "How often runs are right over how sure they are", said, {})


def _error(run: RunSummary) -> str:
    error = run.metrics.get("ece")
    return "unknown" if error is None or error.value is None else f"{100 * error.value:.1f} points"


def coverage_plot(runs: Sequence[RunSummary]) -> str | None:
    """How often the surest answers are right, over how many rows are answered; None where none is known."""
    known = [(i, run, run.surety) for i, run in enumerate(runs) if run.surety is not None]
    if not known:
        return None
    figure, axes = _plain_axes("Rows answered, the surest first, %", "Right among them, %")
    for i, _, surety in known:
        points = [(100 * share, 100 * right) for share, right in surety.coverage]
        axes.plot(*_unzip(points), color=_SERIES[i % SERIES], linewidth=2, linestyle=(0, dashes(i) or None))
    said = "; ".join(
        f"{run.name}: {100 * surety.coverage[len(surety.coverage) // 2 - 1][1]:.1f} % of its surer half"
        for _, run, surety in known
    )
    return _svg(figure, "coverage", "How often the surest answers are right", said, {})


def cost_plot(runs: Sequence[RunSummary]) -> str | None:
    """Test accuracy with its interval over the time of training, on a logarithmic axis; None where no time is known."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    known = [(i, run) for i, run in enumerate(runs) if run.cost.training_seconds and run.accuracy.value is not None]
    # The majority floor would squeeze all others into a corner.
    known = [(i, run) for i, run in known if run.family != "majority"]
    if len(known) < 2:
        return None
    figure, axes = _plain_axes("Training time", "Test accuracy, %")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_minor_locator(LogLocator(numticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))
    for i, run in known:
        color, seconds = _SERIES[i % SERIES], run.cost.training_seconds or 0.0
        if run.accuracy.low is not None and run.accuracy.high is not None:
            axes.plot([seconds, seconds], [100 * run.accuracy.low, 100 * run.accuracy.high], color=color, linewidth=2)
        shape, face = ("s", _SURFACE) if run.is_floor else ("o", color)
        axes.plot([seconds], [100 * (run.accuracy.value or 0)], shape, color=color, markersize=8, markerfacecolor=face,
                  markeredgewidth=2)  # fmt: skip
    axes.margins(x=0.12, y=0.1)
    said = "; ".join(f"{run.name} {interval_text(run.accuracy)} in {duration(run.cost.training_seconds)}"
                     for _, run in known)  # fmt: skip
    return _svg(figure, "cost", "Test accuracy over the time of training", said, {})


def _plain_axes(x_label: str, y_label: str, below: float = 0) -> "tuple[Figure, Axes]":
    """`below` is room under the axis, in units of the view box."""
    height = 310 + below
    figure = _figure(height)
    axes = figure.add_axes((54 / WIDTH, (46 + below) / height, (WIDTH - 66) / WIDTH, 252 / height))
    _style(axes)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=_RULE, linewidth=1)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def range_plot(found: "LearningRateRange") -> str:
    """Loss over the learning rate, on a logarithmic axis: each step's (faint), smoothed, and what was found."""
    from matplotlib.ticker import LogLocator

    figure, axes = _plain_axes("Learning rate", "Training loss")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=9))
    axes.xaxis.set_minor_locator(LogLocator(numticks=1))
    rates = [point.learning_rate for point in found.points]
    smoothed = [point.smoothed for point in found.points]
    axes.plot(rates, [point.loss for point in found.points], color=_SERIES[0], linewidth=1, alpha=0.28)
    axes.plot(rates, smoothed, color=_SERIES[0], linewidth=2)
    low, high = min(smoothed), smoothed[0]
    axes.set_ylim(low - 0.15 * (high - low) - 0.02, high + 0.6 * (high - low) + 0.05)
    names = {"steepest": found.steepest, "lowest": found.lowest}
    for name, rate in names.items():
        if rate is not None:
            axes.axvline(rate, color=_MUTED, linewidth=1, linestyle="--")
            axes.text(rate, 1.0, f" {name}", transform=axes.get_xaxis_transform(), va="top", color=_INK)
    said = "; ".join(f"{name} at {rate:.1e}" for name, rate in names.items() if rate is not None)
    return _svg(figure, "range", "Training loss over the learning rate", said, {})


def smooth(values: Sequence[float]) -> list[float]:
    """An exponential moving average over about a tenth of the values, without the pull to its start.

    Bias correction as in Adam (Kingma & Ba 2015, section 3).
    """
    keep = 1 - 2 / (max(len(values) // 10, 3) + 1)
    average, weight, smoothed = 0.0, 0.0, []
    for value in values:
        average, weight = keep * average + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(average / weight)
    return smoothed


def _ends(runs: Sequence[Logged], metric: str) -> str:
    """What the curves come to, for those who do not see them."""
    parts = []
    for run in runs:
        values = [getattr(point, metric) for point in run.curve.validation]
        if values and values[-1] is not None:
            parts.append(f"{run.name} ends at a validation {metric.replace('_', ' ')} of {values[-1]:.3f}")
    return "; ".join(parts)


def _unzip(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _curve_axes(runs: Sequence[Logged], label: str) -> "tuple[Figure, Axes]":
    from matplotlib.ticker import MaxNLocator

    name, position = curve_axis(runs)
    figure, axes = _plain_axes(name, label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=_longest(runs, position) >= 2))
    return figure, axes


def _longest(runs: Sequence[Logged], position: Position) -> float:
    """The last epoch or step of all curves."""
    ends = [position(points[-1]) for run in runs for points in (run.curve.training, run.curve.validation) if points]
    return max(ends, default=0.0)


def standalone(drawing: str, style: str) -> str:
    """A plot of this module as a file of its own, light and dark, its colours taken from the page's style sheet."""
    variables = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)[:2]
    light, dark = (" ".join(found.split()) for found in variables)
    css = (
        f"<style>svg {{ {light} color: var(--ink); background: var(--surface); font-family: sans-serif; }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>"
    )
    # A page shows what runs over the edge of a plot, such as an axis label beside long numbers; an image cuts it.
    drawing = re.sub(
        r'viewBox="0 0 (\d+) (\d+)"',
        lambda box: (
            f'viewBox="-{_MARGIN} 0 {int(box[1]) + _MARGIN} {box[2]}" width="{int(box[1]) + _MARGIN}" height="{box[2]}"'
        ),
        drawing,
        count=1,
    )
    opening = drawing.index(">") + 1
    return f"{drawing[:opening]}{css}{drawing[opening:]}\n".replace(
        "<svg ", f'<svg xmlns="{_SVG}" xmlns:xlink="{_XLINK}" ', 1
    )


# --- SVG --------------------------------------------------------------------------------------------------------------


def _figure(height: float) -> "Figure":
    # Imported late: it takes longer than all else here, and the command line imports this module.
    from matplotlib.figure import Figure

    # The SVG backend counts 72 units to the inch.
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    figure.patch.set_visible(False)
    return figure


def _style(axes: "Axes") -> None:
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(_RULE)
    axes.tick_params(length=0, labelsize=TEXT_SIZE, labelcolor=_MUTED, pad=6)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=_MUTED, fontsize=TEXT_SIZE)


def _svg(figure: "Figure", name: str, title: str, description: str, texts: dict[str, str]) -> str:
    """The figure as an SVG element for HTML; `texts` are stand-ins in it and what they stand for, plain text."""
    import matplotlib
    from matplotlib.text import Text

    buffer = io.StringIO()
    # fonttype none keeps text as text; the salt makes element ids the same in every run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "finetune", "font.size": TEXT_SIZE}):
        for text in figure.findobj(Text):
            text.set_fontsize(TEXT_SIZE)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawing = buffer.getvalue()
    # The preamble and metadata name outside addresses; the style sheet would reach out over the whole page.
    drawing = drawing[drawing.index("<svg") :]
    unwanted = r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->"
    drawing = re.sub(unwanted, "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"(?<=[\s;\"])font(?:-family)?: [^;\"]*px [^;\"]*", f"font-size: {TEXT_SIZE}px", drawing)
    drawing = re.sub(r"font-family: [^;\"]*;? ?", "", drawing)
    drawing = re.sub(r"(\bid=\"|url\(#|href=\"#)", rf"\g<1>{name}-", drawing)
    drawing = re.sub(r"#01[0-9a-f]{4}\b", lambda found: _CSS.get(found.group(), found.group()), drawing)
    drawing = re.sub(r"@(?:name|score)\d+@", lambda found: escape(texts[found.group()]), drawing)
    view_box = re.search(r"viewBox=\"[^\"]*\"", drawing)
    opening = (
        f'<svg class="plot" {view_box.group() if view_box else ""} role="img" '
        f'aria-labelledby="{name}-title {name}-description"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-description">{escape(description)}</desc>'
    )
    return opening + drawing[drawing.index(">") + 1 :].strip()
