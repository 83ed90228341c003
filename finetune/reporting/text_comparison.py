"""Runs that generate, side by side: bits per byte with paired intervals, what they wrote, and a page that shows it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

import finetune
from finetune.errors import UserError
from finetune.recipe import Model, RecurrentModel
from finetune.reporting import plots
from finetune.reporting.attention_plot import attention_plot
from finetune.reporting.comparison import (
    Curve,
    Metric,
    Tuning,
    describe_model,
    display_names,
    printable,
    read_curve,
    scores_on_the_same_rows,
    test_scores,
)
from finetune.reporting.findings import describe_search
from finetune.reporting.page import drawn_curves, line_keys, page_template
from finetune.reporting.tables import (
    NOTHING,
    Cell,
    Column,
    Table,
    duration,
    escape_markdown,
    markdown_table,
    percent,
    short_count,
)
from finetune.run import RunDirectory
from finetune.significance import CONFIDENCE, SAMPLES, draw_rows

_SHOWNSAMPLES = 10
_BYTES = 3
"""The place of the bytes among `language.SUMS`."""


@dataclass(frozen=True)
class TextRun:
    """One run: how well it reads the test texts, what it wrote and what it cost.

    `lead` is how many bits per byte the best run needs less, on the same texts; the best has none.
    """

    name: str
    model: str
    vocabulary: str
    metrics: Mapping[str, Metric]
    lead: Metric | None
    samples: Mapping[str, float | None]
    sample_intervals: Mapping[str, Sequence[float]]
    """Of some of these, the ends of what chance may make of them."""
    attention: Sequence[Mapping[str, Any]]
    """Maps of where it looked in the prompts of the first samples, as its run has them."""
    times_scored: int
    parameters: int | None
    trainable_parameters: int | None
    training_seconds: float | None
    curve: Curve
    tuning: Tuning | None = None


@dataclass(frozen=True)
class SampledRow:
    """A row of the test split: its prompt, what stands there, and what each run wrote, in the order of the runs."""

    prompt: str
    reference: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class TextComparison:
    """Runs scored on the same texts, the one with the fewest bits per byte first."""

    format: int
    finetune_version: str
    task: str
    test_count: int
    test_rows_fingerprint: str
    has_prompts: bool
    runs: tuple[TextRun, ...]
    samples: tuple[SampledRow, ...]

    def to_json(self) -> str:
        """As JSON, with what may be said; equal comparisons give equal text."""
        content = {**asdict(self), "findings": sentences(self)}
        return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def read_text_comparison(directories: Sequence[RunDirectory], paths: Sequence[Path]) -> TextComparison:
    """Read runs that generate, and check that they were scored on the same texts.

    Raises:
        UserError: they were not, or one has no test scores.
    """
    tests = scores_on_the_same_rows(directories, test_scores)
    names = display_names(paths)
    values = [test["metrics"]["bits_per_byte"]["value"] for test in tests]
    order = sorted(range(len(tests)), key=lambda i: (values[i], names[i]))
    sums = [text_sums(directories[i]) for i in order]
    for place, i in enumerate(order):
        refuse_other_parts(directories[order[0]], sums[0], directories[i], sums[place])
    draws = _draws(sums)
    runs = [
        _summarize(directories[i], names[i], tests[i], draws[:, place], values[i] - values[order[0]], draws[:, 0])
        for place, i in enumerate(order)
    ]
    recipe = directories[0].recipe()
    return TextComparison(
        format=1,
        finetune_version=finetune.__version__,
        task="generate",
        test_count=tests[0]["count"],
        test_rows_fingerprint=tests[0]["rows_fingerprint"],
        has_prompts=bool(recipe.data.prompt_column or recipe.data.messages_column),
        runs=tuple(runs),
        samples=_samples([directories[i] for i in order]),
    )


def refuse_other_parts(
    one: RunDirectory, sums: NDArray[np.float64], other: RunDirectory, other_sums: NDArray[np.float64]
) -> None:
    """Raise UserError where two runs, of whom `text_sums` are given, were scored on different parts of the texts."""
    if not np.array_equal(sums[:, _BYTES], other_sums[:, _BYTES]):
        raise UserError(
            f"{one.path} and {other.path} were scored on different parts of the test rows: text.max_length cuts "
            "answers at different places; train both with one that is long enough"
        )


def text_sums(run: RunDirectory) -> NDArray[np.float64]:
    """`language.SUMS` of each test text, (n, 6), in the order of the ids."""
    from finetune.evaluation import language  # late: comparing labels takes no second, and this loads torch

    table = pq.read_table(run.predictions_file("test")).sort_by("id")
    return np.stack([table[name].to_numpy() for name in language.SUMS], axis=1).astype(np.float64)


def _draws(sums: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Bits per byte of resampled texts, (samples, runs); the runs share their resamples, so that leads are paired."""
    from finetune.evaluation import language

    of_draws = ([language.bits_per_byte(weights @ of_run) for of_run in sums] for weights in draw_rows(len(sums[0])))
    return np.array(list(of_draws))


def _summarize(
    run: RunDirectory,
    name: str,
    test: Mapping[str, Any],
    draws: NDArray[np.float64],
    behind: float,
    draws_of_best: NDArray[np.float64],
) -> TextRun:
    scores = run.scores()
    cost = scores.get("cost", {})
    metrics = {key: Metric(**values) for key, values in test["metrics"].items()}
    # By the same draws as the leads, whatever the run's own recipe asked for.
    metrics["bits_per_byte"] = Metric.drawn(test["metrics"]["bits_per_byte"]["value"], draws)
    gaps = draws - draws_of_best
    return TextRun(
        name=name,
        model=describe_writer(run.recipe().model),
        vocabulary=str(run.data().get("tokenizer_sha256")),
        metrics=metrics,
        lead=Metric.drawn(behind, gaps) if gaps.any() else None,
        samples=scores.get("samples", {}).get("metrics", {}),
        sample_intervals=scores.get("samples", {}).get("intervals", {}),
        attention=run.attention_maps(),
        times_scored=test.get("times_scored", 1),
        parameters=cost.get("parameters"),
        trainable_parameters=cost.get("trainable_parameters"),
        training_seconds=cost.get("training_seconds"),
        curve=read_curve(run),
        tuning=Tuning.read(run),
    )


def describe_writer(model: Model) -> str:
    """`describe_model` for models that write: an LSTM has layers, but nothing to pool."""
    if isinstance(model, RecurrentModel):
        return f"{model.cell.upper()} language model from scratch, {model.num_layers} x {model.hidden_size}"
    return describe_model(model)


def _samples(directories: Sequence[RunDirectory]) -> tuple[SampledRow, ...]:
    """Rows that every run wrote to, the first few."""
    written = [{record["id"]: record for record in run.samples()} for run in directories]
    shared = [row_id for row_id in written[0] if all(row_id in of_run for of_run in written)]
    return tuple(
        SampledRow(
            _shown(written[0][row_id]["prompt"]),
            printable(written[0][row_id]["reference"]),
            tuple(printable(of_run[row_id]["text"]).strip() for of_run in written),
        )
        for row_id in shared[:_SHOWNSAMPLES]
    )


def _shown(prompt: str | Sequence[Mapping[str, str]]) -> str:
    return printable(prompt if isinstance(prompt, str) else prompt[-1]["content"])


# --- words ------------------------------------------------------------------------------------------------------------


def sentences(comparison: TextComparison) -> list[str]:
    """Who is first, how each other run stands to it, and what to keep in mind."""
    best, *others = comparison.runs
    said = [f"{best.name} reads the test texts best: {_bits(best.metrics['bits_per_byte'])} bits per byte."]
    for run in others:
        lead = run.lead
        if lead is None or lead.low is None or lead.value is None:
            said.append(f"{run.name} reads them as {best.name} does, text for text.")
        elif lead.low > 0:
            said.append(f"{run.name} needs {_bits(lead)} bits per byte more than {best.name}.")
        else:
            said.append(
                f"{run.name} needs {_bits(lead)} bits per byte more than {best.name}: these texts do not tell them "
                "apart."
            )
    said.append(
        f"Intervals ({CONFIDENCE:.0%}) by {SAMPLES:,} draws of the texts, the same for all runs, so that differences "
        "are paired. They speak of these texts, not of other training seeds."
    )
    if len({run.vocabulary for run in comparison.runs}) > 1:
        said.append(
            "Perplexities are per token of each model's own vocabulary and compare only within one; bits per byte and "
            "per character compare across all."
        )
    for run in comparison.runs:
        unknown = run.metrics["unknown_share"].value
        if unknown:
            said.append(
                f"{run.name}: {unknown:.2%} of the text was unknown tokens, which are charged 8 bits a byte each."
            )
        if run.times_scored > 1:
            said.append(f"{run.name} scored the test split {run.times_scored} times.")
    return [*said, describe_search({run.name: run.tuning for run in comparison.runs})]


def _bits(metric: Metric) -> str:
    if metric.low is None:
        return f"{metric.value:.3f}"
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"


# --- tables -----------------------------------------------------------------------------------------------------------


def text_table(comparison: TextComparison) -> Table:
    """One row per run, the fewest bits per byte first."""
    detail = f"[{CONFIDENCE:.0%} interval]"
    columns = [
        Column("Run", is_number=False),
        Column("Model", is_number=False),
        Column("Bits per byte", detail),
        Column("More than the best", f"[{CONFIDENCE:.0%}, paired]"),
        Column("Bits per character"),
        Column("Perplexity", "(own tokens)"),
        Column("Parameters"),
        Column("Training time"),
    ]
    return Table(tuple(columns), tuple(_row(run) for run in comparison.runs))


def _row(run: TextRun) -> tuple[Cell, ...]:
    bits, trained = run.metrics["bits_per_byte"], run.trainable_parameters
    lead = Cell(NOTHING)
    if run.lead is not None:
        lead = Cell(f"{run.lead.value:+.3f}", f"[{run.lead.low:+.3f}, {run.lead.high:+.3f}]")
    partly = trained is not None and trained != run.parameters
    return (
        Cell(run.name),
        Cell(run.model),
        Cell(f"{bits.value:.3f}", f"[{bits.low:.3f}, {bits.high:.3f}]"),
        lead,
        Cell(f"{run.metrics['bits_per_character'].value:.3f}"),
        Cell(f"{run.metrics['perplexity'].value:,.1f}"),
        Cell(short_count(run.parameters), f"({short_count(trained)} trained)" if partly else ""),
        Cell(duration(run.training_seconds)),
    )


_SAMPLE_METRICS = {
    "distinct_1": "Distinct-1",
    "distinct_2": "Distinct-2",
    "repetition_2": "Repetition-2",
    "self_bleu": "Self-BLEU",
    "copies": "Copies of training rows",
    "stopped": "Ended by itself",
    "exact_match": "Exactly right",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rougeL": "ROUGE-L",
}


def samples_table(comparison: TextComparison) -> Table | None:
    """How varied the samples are, and how near to what stands there; None where no run has any."""
    runs = comparison.runs
    names = [name for name in _SAMPLE_METRICS if any(run.samples.get(name) is not None for run in runs)]
    if not names:
        return None

    def said(name: str, value: float) -> str:
        return f"{value:.1f}" if name in ("self_bleu", "bleu", "chrf") else percent(value)

    def cell(run: TextRun, name: str) -> Cell:
        value = run.samples.get(name)
        if value is None:
            return Cell(NOTHING)
        ends = [said(name, end) for end in run.sample_intervals.get(name, ())]
        return Cell(said(name, value), f"[{', '.join(ends)}]" if ends else "")

    columns = (Column("Run", is_number=False), *(Column(_SAMPLE_METRICS[name]) for name in names))
    rows = tuple((Cell(run.name), *(cell(run, name) for name in names)) for run in comparison.runs)
    return Table(columns, rows)


def attention_plots(comparison: TextComparison) -> list[tuple[str, list[str]]]:
    """For each run that looks back at its prompts, its name and the maps of its first samples, drawn."""
    return [
        (
            run.name,
            [
                attention_plot(
                    found["source"],
                    found["target"],
                    found["weights"],
                    f"attention-{number}-{place}",
                    f"{run.name}: where it looked for sample {place + 1}",
                )
                for place, found in enumerate(run.attention)
            ],
        )
        for number, run in enumerate(comparison.runs)
        if run.attention
    ]


def text_markdown(comparison: TextComparison) -> str:
    """The tables, the words and the samples as a Markdown document."""
    blocks = [
        f"# Comparison of {len(comparison.runs)} runs",
        f"{comparison.test_count:,} test texts, the same for every run.",
        markdown_table(text_table(comparison)),
        "\n".join(f"- {escape_markdown(sentence)}" for sentence in sentences(comparison)),
    ]
    table = samples_table(comparison)
    if table is not None:
        blocks += ["## What they wrote", markdown_table(table)]
    for number, row in enumerate(comparison.samples, start=1):
        about = f"**{number}.** {escape_markdown(row.prompt) or 'From the start of a text'}"
        lines = [
            f"- {escape_markdown(run.name)}: {escape_markdown(text)}"
            for run, text in zip(comparison.runs, row.texts, strict=True)
        ]
        blocks.append("\n".join([about, "", *lines]))
    return "\n\n".join(blocks) + "\n"


def render_text_page(comparison: TextComparison) -> str:
    """The page as HTML text; every name and text in it is escaped."""
    keys = line_keys(comparison.runs)
    return page_template("texts.html.j2").render(
        comparison=comparison,
        table=text_table(comparison),
        samples=samples_table(comparison),
        sentences=sentences(comparison),
        attention=attention_plots(comparison),
        curves=drawn_curves(
            [("Bits per byte on the validation texts, the fewer the better.", plots.bits_plot(comparison.runs))]
        ),
        trained=[keys[run.name] for run in comparison.runs if run.curve.validation],
    )
