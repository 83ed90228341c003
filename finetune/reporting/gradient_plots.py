"""Gradient norms as inline SVG in the style of `plots`: by distance, with bands over rows, and by training step."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from finetune.reporting import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from finetune.reporting.gradients import Profile, StepNorms

Limits = tuple[float, float]
_HEIGHT = 330
_MOST_DECADES = 60
"""An axis over more says nothing any more: what lies below is cut off."""
_TICKS = 7
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(exponent: int) -> str:
    """ "10⁻³"."""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def norm_limits(norms: Sequence[float | None]) -> Limits:
    """The exponents of ten that an axis of these norms spans."""
    known = [math.log10(norm) for norm in norms if norm]
    if not known:
        return -1.0, 1.0
    low, high = min(known), max(known)
    margin = max(0.04 * (high - low), 0.15)
    return max(low - margin, high - _MOST_DECADES), high + margin


def profile_plot(
    profiles: Sequence[tuple[int, "Profile"]],
    limits: Limits,
    factors: Mapping[int, float | None],
    name: str,
    title: str,
) -> str:
    """Norms by the distance from the last token, with the quartiles of the rows as bands; a line for each model.

    `profiles` come with the number of their model, which chooses the colour; for one with a factor there, a dotted line
    shows a gradient that is multiplied by it per token.
    """
    figure, axes = _axes(limits, "Tokens before the last one", "Norm of the gradient")
    for i, profile in profiles:
        color, distances = plots._SERIES[i % plots.SERIES], range(profile.length)
        lower, upper = (_exponents(ends) for ends in (profile.lower, profile.upper))
        axes.fill_between(distances, lower, upper, color=color, alpha=0.16, linewidth=0)
        factor, exponents = factors.get(i), _exponents(profile.norms)
        if factor is not None:
            linear = [exponents[0] + distance * math.log10(factor) for distance in distances]
            axes.plot(distances, linear, color=color, linewidth=1.2, linestyle=(0, (1, 2.5)))
        axes.plot(distances, exponents, color=color, linewidth=2, linestyle=(0, plots.dashes(i) or None))
    axes.set_xlim(0, max(profile.length for _, profile in profiles) - 1)
    said = "; ".join(f"slope {profile.slope.value:.4f}" for _, profile in profiles if profile.slope.value is not None)
    return plots._svg(figure, name, title, f"log10 of the norm per token: {said}", {})


def step_plot(
    trainings: Sequence[tuple[int, "StepNorms"]], bounds: Sequence[float], limits: Limits, name: str, title: str
) -> str:
    """Norms of the whole gradient by training step: before clipping faint, what the steps were taken with in full.

    `bounds`, the norms that are clipped to, are dashed lines across.
    """
    figure, axes = _axes(limits, "Step", "Norm of the whole gradient")
    for i, training in trainings:
        color, dash = plots._SERIES[i % plots.SERIES], (0, plots.dashes(i) or None)
        steps = range(1, len(training.norms) + 1)
        axes.plot(steps, _exponents(training.norms), color=color, linewidth=1, alpha=0.25)
        applied = [(step, norm) for step, norm in zip(steps, _exponents(training.applied_norms), strict=True)
                   if math.isfinite(norm)]  # fmt: skip
        axes.plot([step for step, _ in applied], plots.smooth([norm for _, norm in applied]),
                  color=color, linewidth=2, linestyle=dash)  # fmt: skip
    for bound in bounds:
        axes.axhline(math.log10(bound), color=plots._MUTED, linewidth=1.2, linestyle=(0, (5, 4)), zorder=3)
    axes.set_xlim(1, max((len(training.norms) for _, training in trainings), default=2))
    peaks = "; ".join(f"{max(n for n in t.norms if n is not None):.2g}" for _, t in trainings if any(t.norms))
    return plots._svg(figure, name, title, f"largest norm of each model: {peaks}", {})


def _exponents(norms: Sequence[float | None]) -> list[float]:
    """log10 of each; a gap where there is none."""
    return [math.log10(norm) if norm else math.nan for norm in norms]


def _axes(limits: Limits, x: str, y: str) -> "tuple[Figure, Axes]":
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = plots._figure(_HEIGHT)
    left = 62
    axes = figure.add_axes(
        (left / plots.WIDTH, 46 / _HEIGHT, (plots.WIDTH - left - 12) / plots.WIDTH, (_HEIGHT - 58) / _HEIGHT)
    )
    plots._style(axes)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=plots._RULE, linewidth=1)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    # Exponents on a plain axis, whose ticks are words of ours: matplotlib would set powers as formulas.
    axes.set_ylim(*limits)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=_TICKS, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda exponent, _: power_of_ten(round(exponent))))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    return figure, axes
