"""Runs by variant and seed -> one table: what each changes, what it trains, how long, and how well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import UserError
from finetune.reporting.learning_curve import (
    MEASURES,
    Measure,
    bootstrap_scores,
    interval_of,
    scores_of_sums,
    show_interval,
    sums_of_rows,
)
from finetune.reporting.tables import duration
from finetune.reporting.text_comparison import refuse_other_parts
from finetune.run import RunDirectory, write_whole, write_whole_json
from finetune.significance import CONFIDENCE, SAMPLES


@dataclass(frozen=True)
class Variant:
    """A name, the fields that it changes in the recipe, as they would be typed, and those changed for its likes too."""

    name: str
    changes: Mapping[str, str]
    recipe: str
    common: Mapping[str, str]


@dataclass(frozen=True)
class Gain:
    """How much of what `end` has over `start` each of `by` gives already."""

    start: str
    end: str
    by: tuple[str, ...]


def summarize_ablation(
    task: str, variants: Sequence[Variant], runs: Mapping[str, Sequence[RunDirectory]], gains: Sequence[Gain]
) -> dict[str, Any]:
    """The table as JSON values: each variant's mean score with its interval, and its difference to the first.

    Intervals are hierarchical bootstraps: seeds are drawn anew, and test rows are; the variants share both draws, so
    that differences are paired.

    Raises:
        UserError: the runs were not scored on the same test rows, or on different parts of their texts.
    """
    every = [run for variant in variants for run in runs[variant.name]]
    splits = [run.scores()["splits"]["test"] for run in every]
    if len({split["rows_fingerprint"] for split in splits}) > 1:
        raise UserError("ablate: the runs were scored on different test rows; begin a new --output")
    measure = MEASURES[task]
    sums = np.stack([[sums_of_rows(task, run) for run in runs[variant.name]] for variant in variants])
    if task == "generate":
        for run, of_run in zip(every, sums.reshape(-1, *sums.shape[2:]), strict=True):
            refuse_other_parts(every[0], sums[0, 0], run, of_run)
    by_seed, draws = scores_of_sums(task, sums.sum(axis=2)), bootstrap_scores(task, sums)
    means = by_seed.mean(axis=1)
    places = {variant.name: number for number, variant in enumerate(variants)}
    return {
        "format": 1,
        "task": task,
        "seeds": by_seed.shape[1],
        "train_rows": every[0].data()["splits"]["train"]["count"],
        "test_rows": splits[0]["count"],
        "confidence_level": CONFIDENCE,
        "bootstrap_samples": SAMPLES,
        "variants": {
            variant.name: {
                "changes": dict(variant.changes),
                **_cost(runs[variant.name]),
                measure.metric: interval_of(float(means[i]), draws[:, i]),
                "by_seed": [float(value) for value in by_seed[i]],
                "difference": interval_of(float(means[i] - means[0]), draws[:, i] - draws[:, 0]),
            }
            for i, variant in enumerate(variants)
        },
        "bases": _bases(variants),
        "gains": [
            _gain(gain, name, places, means, draws)
            for gain in gains
            for name in gain.by
            if {gain.start, gain.end, name} <= places.keys()
        ],
    }


def _bases(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """The recipes that were varied, each with what was changed in all of its variants, and these."""
    bases: list[dict[str, Any]] = []
    for variant in variants:
        base = {"recipe": variant.recipe, "common": dict(variant.common)}
        found = next((one for one in bases if base.items() <= one.items()), None)
        if found is None:
            bases.append(found := {**base, "variants": []})
        found["variants"].append(variant.name)
    return bases


def _cost(runs: Sequence[RunDirectory]) -> dict[str, Any]:
    costs = [run.scores()["cost"] for run in runs]
    return {
        "parameters": costs[0]["parameters"],
        "trainable_parameters": costs[0]["trainable_parameters"],
        "training_seconds": [cost["training_seconds"] for cost in costs],
    }


def _gain(
    gain: Gain, name: str, places: Mapping[str, int], means: NDArray[np.float64], draws: NDArray[np.float64]
) -> dict[str, Any]:
    """The whole gain, and the share of it that `name` gives; a share of a gain that may be none has no interval."""
    start, end, by = places[gain.start], places[gain.end], places[name]
    whole = interval_of(float(means[end] - means[start]), draws[:, end] - draws[:, start])
    share = float((means[by] - means[start]) / (means[end] - means[start])) if means[end] != means[start] else None
    found: dict[str, Any] = {"from": gain.start, "to": gain.end, "by": name, "gain": whole, "share": None}
    if share is not None and (whole["low"] > 0 or whole["high"] < 0):
        whole_draws = draws[:, end] - draws[:, start]
        # In the few draws without any gain there is nothing to share.
        has_gain = whole_draws != 0
        found["share"] = interval_of(share, ((draws[:, by] - draws[:, start])[has_gain] / whole_draws[has_gain]))
    return found


def write_ablation(summary: Mapping[str, Any], output: Path) -> Path:
    """Write ablation.json and ablation.md; returns the path of the latter."""
    write_whole_json(output / "ablation.json", summary)
    write_whole(output / "ablation.md", ablation_markdown(summary))
    return output / "ablation.md"


def ablation_markdown(summary: Mapping[str, Any]) -> str:
    """The table, what was told apart from the first variant, and the gains in words."""
    measure = MEASURES[summary["task"]]
    first = next(iter(summary["variants"]))
    lines = [
        f"| Variant | What it changes | Parameters trained | Training time | {measure.title} | − {first} |",
        "| :--- | :--- | ---: | ---: | ---: | ---: |",
    ]
    for name, entry in summary["variants"].items():
        changes = _changed(entry["changes"])
        difference = "" if name == first else show_interval(measure, entry["difference"], sign="+")
        lines.append(
            f"| {name} | {changes} | {entry['trainable_parameters']:,} of {entry['parameters']:,} | "
            f"{duration(median(entry['training_seconds']))} | {show_interval(measure, entry[measure.metric])} | "
            f"{difference} |"
        )
    # Tables of earlier versions do not say.
    bases = [_base(base, len(summary["bases"]) == 1) for base in summary.get("bases", ())]
    lines += ["", " ".join([*bases, _account(summary, measure)])]
    if summary["gains"]:
        lines += ["", *(f"- {_told(gain, measure)}" for gain in summary["gains"])]
    return "\n".join([*lines, ""])


def _changed(fields: Mapping[str, str]) -> str:
    return ", ".join(f"`{field} {value}`" for field, value in fields.items())


def _base(base: Mapping[str, Any], is_only: bool) -> str:
    """What several variants have in common."""
    which = "All are" if is_only else f"{', '.join(base['variants'])}:"
    common = f", with {_changed(base['common'])}" if base["common"] else ""
    return f"{which} {base['recipe']}{common}."


def _account(summary: Mapping[str, Any], measure: Measure) -> str:
    better = "less is better; " if measure.less_is_better else ""
    first = next(iter(summary["variants"]))
    apart = [
        name
        for name, entry in summary["variants"].items()
        if name != first and (entry["difference"]["low"] > 0 or entry["difference"]["high"] < 0)
    ]
    said = f"told apart from {first}: {', '.join(apart)}" if apart else f"none is told apart from {first}"
    return (
        f"Means over {summary['seeds']} seed(s) on {summary['test_rows']:,} test rows, after training on "
        f"{summary['train_rows']:,}; {better}intervals ({summary['confidence_level']:.0%}) by "
        f"{summary['bootstrap_samples']:,} draws of seeds and rows, paired where two are compared, and not corrected "
        f"for their number; times are medians. No variant was tuned by itself. By these intervals {said}."
    )


def _told(gain: Mapping[str, Any], measure: Measure) -> str:
    whole = show_interval(measure, gain["gain"], sign="+")
    said = f"{gain['to']} stands {whole} {measure.unit} from {gain['from']}"
    if gain["share"] is None:
        return f"{said}, which may be nothing: no share of it can be told for {gain['by']}."
    value, low, high = (f"{gain['share'][end]:.0%}" for end in ("value", "low", "high"))
    return f"{said}; {gain['by']} gives {value} [{low}, {high}] of that."
