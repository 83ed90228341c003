"""Gradient norms by distance and by training step -> gradients.json, gradients.md and index.html, in words as well."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from finetune.errors import UserError
from finetune.reporting import gradient_plots, plots
from finetune.reporting.comparison import Metric
from finetune.reporting.findings import listed
from finetune.reporting.page import LineKey, page_template
from finetune.reporting.tables import NOTHING, Cell, Column, Table, escape_markdown, markdown_table, short_count
from finetune.run import RunDirectory

DATA_FILE, MARKDOWN_FILE, PAGE_FILE = "gradients.json", "gradients.md", "index.html"
CONFIDENCE = 0.95
QUANTITY = "exp(mean over the rows i of log ||dL_i / de_i,t||), by the distance of token t from the row's last one"
"""What `Profile.norms` are, in one line: L_i is the loss of row i alone, e_i,t the embedding of its token t."""
SOURCES = (
    "Bengio, Simard and Frasconi 1994: Learning long-term dependencies with gradient descent is difficult",
    "Pascanu, Mikolov and Bengio 2013: On the difficulty of training recurrent neural networks (arXiv:1211.5063)",
)
_STRAIGHT = 0.9
"""From this share of variance explained on, points lie about on a line."""
_FLAT = 0.5
"""A fitted line that changes by less than this power of ten over the whole text is called flat."""
_LONG = 1000


@dataclass(frozen=True)
class Profile:
    """How large the gradient is at each distance from the end of the text, of one model at one training step."""

    step: int
    """Optimizer steps done."""
    clipped: bool | None
    """Whether they were clipped; None before the first."""
    length: int
    """Tokens of each row; the special ones around them are not measured."""
    loss: float | None
    """The mean loss of the measured rows."""
    norms: tuple[float | None, ...]
    """Geometric means over the rows; index 0 is the last token. None where a gradient is zero or not finite."""
    lower: tuple[float | None, ...]
    """The lower quartile of the rows."""
    upper: tuple[float | None, ...]
    """The upper quartile of the rows."""
    slope: Metric
    """Of log10 of the norm per token, by least squares; the interval is Student's, over the rows."""
    r_squared: float | None
    """The share of the variance of log10 of the norm that lies on the line."""
    half_life: float | None
    """Tokens in which the gradient halves; negative where it grows, and then doubles."""
    first_to_last: float | None
    """The norm at the first token divided by that at the last."""
    spectral_radii: tuple[float, ...]
    """Of a plain RNN, layer by layer: the largest absolute eigenvalue of the recurrent matrix."""
    largest_singular_values: tuple[float, ...]
    """Of a plain RNN, layer by layer: below 1 gradients must vanish (Pascanu et al. 2013, section 2.1)."""

    @property
    def is_flat(self) -> bool:
        """Whether the line changes by little over the whole text, if there is a line."""
        return self.slope.value is not None and abs(self.slope.value) * (self.length - 1) < _FLAT


@dataclass(frozen=True)
class StepNorms:
    """A short training, step by step."""

    max_grad_norm: float | None
    """What the whole gradient was clipped to; None for no clipping."""
    losses: tuple[float | None, ...]
    norms: tuple[float | None, ...]
    """Norms of the whole gradient before clipping; None at a step that was left out as it was not finite."""
    applied_norms: tuple[float | None, ...]
    """Norms of the gradient that the optimizer was given."""


@dataclass(frozen=True)
class TracedModel:
    """All that was measured of one model."""

    name: str
    recipe: str
    model: str
    """What it is, in a line."""
    parameters: int
    layers: int | None
    """None for a checkpoint's own."""
    recurrent_gain: float | None
    """The recurrent matrix began as an orthogonal one times this; None for the recipe's own beginning."""
    changes: tuple[str, ...]
    """What is not as the recipe says."""
    profiles: tuple[Profile, ...]
    trainings: tuple[StepNorms, ...]

    @property
    def linear_factor(self) -> float | None:
        """What a linear network would multiply the gradient by per token; None where that is not one number."""
        return self.recurrent_gain if self.layers == 1 else None

    def profile(self, step: int, length: int, *, clipped: bool = True) -> Profile:
        """What was measured then; before training there is no clipping."""
        wanted = (step, length, clipped if step else None)
        return next(p for p in self.profiles if (p.step, p.length, p.clipped) == wanted)

    def training(self, *, clipped: bool) -> StepNorms | None:
        """The short training; None where there was none."""
        return next((t for t in self.trainings if (t.max_grad_norm is not None) == clipped), None)


@dataclass(frozen=True)
class GradientReport:
    """Models measured on the same rows."""

    finetune_version: str
    quantity: str
    data: str
    rows: int
    lengths: tuple[int, ...]
    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    confidence_level: float
    same_vocabulary: bool
    models: tuple[TracedModel, ...]
    recipes: Mapping[str, Any]
    """The recipes as they were used, by name."""
    environment: Mapping[str, Any]
    """Versions, device, threads and the command."""

    def to_json(self) -> str:
        text = json.dumps(asdict(self), ensure_ascii=False, indent=1, allow_nan=False)
        # Hundreds of numbers on a line each are hard to read.
        return re.sub(r"\[[\s\d.,e+null-]+\]", lambda found: " ".join(found.group().split()), text) + "\n"


def check_output(output: Path) -> None:
    """Refuse a place that holds something else.

    Raises:
        UserError: it does.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; choose another --output")
    if output.is_dir() and any(output.iterdir()) and not (output / DATA_FILE).is_file():
        raise UserError(f"{output} holds other files and no earlier gradients; choose another --output")


def write_gradients(report: GradientReport, output: Path) -> Path:
    """Write the three files; returns the path of the Markdown one.

    The JSON file first: it marks the directory as ours, should the others not come to be written.
    """
    directory, page = RunDirectory(output), output / MARKDOWN_FILE
    directory.write_text(output / DATA_FILE, report.to_json())
    directory.write_text(page, gradients_markdown(report))
    directory.write_text(output / PAGE_FILE, render_gradients(report))
    return page


# --- words ------------------------------------------------------------------------------------------------------------


def sentences(report: GradientReport) -> list[str]:
    """How far back each model's gradient reaches, what theory says of it, what clipping did, and what to keep in mind.

    The first one stands for all.
    """
    own = [model for model in report.models if model.recurrent_gain is None]
    end = report.steps[-1]
    said = [f"Before training {_reach(own, report, 0)}."]
    if end:
        said.append(f"After {end:,} steps {_reach(own, report, end)}.")
    said += [_shape(model, model.profile(0, report.lengths[-1])) for model in report.models]
    return [*said, *_clipping(report), *_cautions(report)]


def _reach(models: Sequence[TracedModel], report: GradientReport, step: int) -> str:
    length = report.lengths[-1]
    shares = [f"{_number(model.profile(step, length).first_to_last)} in {model.name}" for model in models]
    return f"the first of {length} tokens gets the last one's gradient times {listed(shares)}"


def _shape(model: TracedModel, profile: Profile) -> str:
    slope, fit = profile.slope.value, profile.r_squared
    if slope is None or fit is None:
        return f"{model.name}: the gradient is zero or not finite at most distances."
    factor = 10**slope
    theory = ""
    if model.linear_factor is not None:
        less = ": tanh lets less through where it saturates" if factor < 0.95 * model.linear_factor else ""
        times = "just as large" if model.linear_factor == 1 else f"{model.linear_factor:g} times as large"
        theory = f"; in a linear network it would be {times}{less}"
    if profile.is_flat:
        change = f"{factor ** (profile.length - 1):.2f}"
        return f"{model.name}: about flat before training: the line's first end is {change} times its last{theory}."
    way = "falls" if slope < 0 else "grows"
    if fit < _STRAIGHT:
        line = f"along no straight line (R² {fit:.2f})"
        return f"{model.name}: before training the gradient {way} on the way back, {line}{theory}."
    return (
        f"{model.name}: before training the gradient {way} exponentially (R² {fit:.3f} on the log scale): each token "
        f"further back it is {factor:.2f} times as large, so that it {_halving(profile)}{theory}."
    )


def _halving(profile: Profile) -> str:
    assert profile.half_life is not None
    verb = "halves" if profile.half_life > 0 else "doubles"
    return f"{verb} every {abs(profile.half_life):.1f} tokens"


def _clipping(report: GradientReport) -> list[str]:
    if not report.steps[-1]:
        return []
    peaks = [(peak, step, model.name) for model in report.models
             for peak, step in _peaks(model.training(clipped=False))]  # fmt: skip
    said = []
    if peaks:
        peak, step, name = max(peaks)
        said.append(
            f"Without clipping the largest norm of the whole gradient is {_number(peak)}, at step {step} of {name}."
        )
    cut, applied = [], []
    for model in report.models:
        training = model.training(clipped=True)
        if training is None or training.max_grad_norm is None:
            continue
        known = [norm for norm in training.norms if norm is not None]
        count = sum(norm > training.max_grad_norm for norm in known)
        cut += [f"{count} in {model.name}"] if count else []
        applied += [norm for norm in training.applied_norms if norm is not None]
    limits = sorted({t.max_grad_norm for m in report.models for t in m.trainings if t.max_grad_norm is not None})
    if applied:
        at = listed([f"{limit:g}" for limit in limits])
        said.append(
            f"With clipping at {at} no step has more than {max(applied):.2f}; of {report.steps[-1]:,} steps it cut "
            f"{listed(cut or ['none'])}."
        )
    return said


def _peaks(training: StepNorms | None) -> list[tuple[float, int]]:
    return [(norm, i + 1) for i, norm in enumerate(training.norms if training else ()) if norm is not None]


def _cautions(report: GradientReport) -> list[str]:
    said = [
        f"Intervals ({report.confidence_level:.0%}) and bands speak of these {report.rows} rows: another seed draws "
        "other weights."
    ]
    if not report.same_vocabulary:
        said.append("The models have different vocabularies: so many tokens are not the same stretch of text in all.")
    for recipe in dict.fromkeys(model.recipe for model in report.models):
        changes = next(model.changes for model in report.models if model.recipe == recipe)
        if changes:
            said.append(f"{recipe} was changed for this: {listed(changes)}.")
    left_out = {model.name: sum(norm is None for t in model.trainings for norm in t.norms) for model in report.models}
    said += [f"{name}: {count} steps were left out, as the loss or its gradient was not finite."
             for name, count in left_out.items() if count]  # fmt: skip
    return said


def _number(value: float | None) -> str:
    """Two figures: "0.85", "47", "3.5×10⁻¹⁵"."""
    if value is None:
        return NOTHING
    if value == 0 or not 0.001 <= abs(value) < _LONG:
        exponent = math.floor(math.log10(abs(value))) if value else 0
        figures = f"{value / 10.0**exponent:.1f}"
        if figures == "10.0":
            figures, exponent = "1.0", exponent + 1
        return f"{figures}×{gradient_plots.power_of_ten(exponent)}"
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:#.2g}"


# --- tables -----------------------------------------------------------------------------------------------------------


def slope_table(report: GradientReport, *, complete: bool = False) -> Table:
    """A row per model before training and after it, with clipping; or one for each measurement."""
    detail = f"[{report.confidence_level:.0%} interval]"
    has_radii = any(profile.spectral_radii for model in report.models for profile in model.profiles)
    columns = (
        Column("Model", is_number=False),
        *([Column("Tokens")] if complete else []),
        Column("Steps"),
        *([Column("Clipped at")] if complete else []),
        Column("Slope of log₁₀ norm per token", detail),
        Column("R²"),
        Column("Halves every", "(tokens)"),
        Column("First / last token"),
        *([Column("Spectral radius")] if has_radii else []),
        Column("Loss", "(of these rows)"),
    )
    rows = []
    for model in report.models:
        for profile in model.profiles:
            is_shown = profile.length == report.lengths[-1] and profile.step in (0, report.steps[-1])
            if complete or (is_shown and profile.clipped is not False):
                rows.append((Cell(model.name), *_profile_cells(model, profile, complete=complete, has_radii=has_radii)))
    return Table(columns, tuple(rows))


def _profile_cells(model: TracedModel, profile: Profile, *, complete: bool, has_radii: bool) -> list[Cell]:
    slope, half = profile.slope, profile.half_life
    value = Cell(NOTHING)
    if slope.value is not None and slope.low is not None and slope.high is not None:
        value = Cell(_signed(slope.value), f"[{_signed(slope.low)}, {_signed(slope.high)}]")
    halves = Cell(NOTHING, "(flat)" if profile.is_flat else "")
    if half is not None and not profile.is_flat:
        halves = Cell(f"{half:.1f}") if half > 0 else Cell(NOTHING, f"(doubles: {-half:.1f})")
    clipping = model.training(clipped=True) if profile.clipped else None
    limit = None if clipping is None else clipping.max_grad_norm
    return [
        *([Cell(str(profile.length))] if complete else []),
        Cell(f"{profile.step:,}"),
        *([Cell(NOTHING if limit is None else f"{limit:g}")] if complete else []),
        value,
        Cell(NOTHING if profile.r_squared is None else f"{profile.r_squared:.3f}"),
        halves,
        Cell(_number(profile.first_to_last)),
        *([Cell(", ".join(f"{radius:.2f}" for radius in profile.spectral_radii) or NOTHING)] if has_radii else []),
        Cell(NOTHING if profile.loss is None else f"{profile.loss:.3f}"),
    ]


def _signed(slope: float) -> str:
    return f"{round(slope, 4) + 0.0:+.4f}"  # no minus before a zero


def length_table(report: GradientReport) -> Table | None:
    """First over last by the length of the text, before training; None where there is one length."""
    if len(report.lengths) < 2:
        return None
    columns = (Column("First / last token", is_number=False), *(Column(f"{n} tokens") for n in report.lengths))
    rows = tuple(
        (Cell(model.name), *(Cell(_number(model.profile(0, n).first_to_last)) for n in report.lengths))
        for model in report.models
    )
    return Table(columns, rows)


def model_table(report: GradientReport) -> Table:
    """What the names stand for."""
    columns = (Column("Model", is_number=False), Column("What it is", is_number=False), Column("Parameters"))
    rows = []
    for model in report.models:
        gain = model.recurrent_gain
        begin = "" if gain is None else f", recurrent weights an orthogonal matrix times {gain:g}"
        rows.append((Cell(model.name), Cell(f"{model.model}{begin}"), Cell(short_count(model.parameters))))
    return Table(columns, tuple(rows))


# --- documents --------------------------------------------------------------------------------------------------------


def measured_on(report: GradientReport) -> str:
    """Of what the numbers are, in a line."""
    rows = f"the {report.rows} longest training rows of {report.data}, held out of the training"
    return f"Measured on {rows}, each cut to {listed([str(n) for n in report.lengths])} tokens."


def gradients_markdown(report: GradientReport) -> str:
    """The tables and the words as a Markdown document."""
    by_length = length_table(report)
    blocks = [
        "# How far back the gradient reaches",
        escape_markdown(measured_on(report)),
        markdown_table(slope_table(report)),
        "\n".join(f"- {escape_markdown(sentence)}" for sentence in sentences(report)),
        *([markdown_table(by_length)] if by_length is not None else []),
        markdown_table(model_table(report)),
        f"Norm: `{report.quantity}`. {'; '.join(SOURCES)}.",
    ]
    return "\n\n".join(blocks) + "\n"


def render_gradients(report: GradientReport) -> str:
    """The page as HTML text; every name in it is escaped."""
    numbered = list(enumerate(report.models))
    keys = [
        LineKey(model.name, f"var(--series-{i % plots.SERIES + 1})", " ".join(map(str, plots.dashes(i))))
        for i, model in numbered
    ]
    groups = []
    for title, scaled in (
        ("As the recipes begin", False),
        ("Plain RNNs, by the scale of their recurrent weights", True),
    ):
        group = [(i, model) for i, model in numbered if (model.recurrent_gain is not None) == scaled]
        if group:
            name = "scaled" if scaled else "own"
            by_step = _step_figures(group, name) if report.steps[-1] else []
            groups.append((title, [keys[i] for i, _ in group], _profile_figures(report, group, name), by_step))
    return page_template("gradients.html.j2").render(
        report=report,
        measured_on=measured_on(report),
        sentences=sentences(report),
        table=slope_table(report),
        all_measurements=slope_table(report, complete=True),
        by_length=length_table(report),
        models=model_table(report),
        groups=groups,
        sources=SOURCES,
    )


def _profile_figures(
    report: GradientReport, group: Sequence[tuple[int, TracedModel]], name: str
) -> list[tuple[str, Markup]]:
    """The models of a group before training and, with clipping, after it: captions and SVG, on one scale."""
    length, end = report.lengths[-1], report.steps[-1]
    steps = [0, end] if end else [0]
    profiles = {step: [(i, model.profile(step, length)) for i, model in group] for step in steps}
    limits = gradient_plots.norm_limits(
        [norm for of_step in profiles.values() for _, p in of_step for norm in (*p.norms, *p.lower, *p.upper)]
    )
    figures = []
    for step, of_step in profiles.items():
        factors = {i: model.linear_factor for i, model in group} if step == 0 else {}
        caption = "Before training." if step == 0 else f"After {step:,} steps, with clipping."
        if any(factor is not None for factor in factors.values()):
            caption += " Dotted: a linear network."
        svg = gradient_plots.profile_plot(of_step, limits, factors, f"{name}-distance-{step}", caption)
        # Marked as safe: the SVG is made here, and there are no names in it that are not escaped.
        figures.append((caption, Markup(svg)))
    return figures


def _step_figures(group: Sequence[tuple[int, TracedModel]], name: str) -> list[tuple[str, Markup]]:
    """The models of a group over their training, without clipping and with: captions and SVG, on one scale."""
    limits = gradient_plots.norm_limits(
        [norm for _, model in group for t in model.trainings for norm in (*t.norms, *t.applied_norms)]
    )
    bounds = sorted({t.max_grad_norm for _, model in group for t in model.trainings if t.max_grad_norm is not None})
    figures = []
    for clipped, caption in (
        (False, "Without clipping: the norm of the whole gradient at each step (faint) and smoothed."),
        (True, "With clipping: the norm before it (faint), and what the step was taken with, smoothed."),
    ):
        trainings = [(i, training) for i, model in group if (training := model.training(clipped=clipped))]
        svg = gradient_plots.step_plot(trainings, bounds, limits, f"{name}-{'clipped' if clipped else 'free'}", caption)
        figures.append((caption, Markup(svg)))
    return figures
