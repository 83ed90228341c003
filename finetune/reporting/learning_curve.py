"""Runs by recipe, training size and seed -> mean accuracies with intervals, and who is ahead by how much."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from finetune.errors import UserError
from finetune.run import RunDirectory

_SAMPLES = 2000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Cell:
    """One run of a learning curve; `factor` is what its tuned value was multiplied by."""

    recipe: str
    size: int
    seed: int
    factor: float
    run: RunDirectory


def summarize_curve(cells: Sequence[Cell], tuning: Mapping[str, Any]) -> dict[str, Any]:
    """The curve as JSON values: per size each recipe's mean accuracy, and its lead over every other recipe.

    Intervals are hierarchical bootstraps: seeds (with their training samples) are drawn anew, and test rows are; the
    recipes share both draws, so that differences are paired.

    Raises:
        UserError: the runs were not scored on the same test rows.
    """
    recipes = list(dict.fromkeys(cell.recipe for cell in cells))
    sizes = sorted({cell.size for cell in cells})
    fingerprints = {cell.run.scores()["splits"]["test"]["rows_fingerprint"] for cell in cells}
    if len(fingerprints) > 1:
        raise UserError("curve: the runs were scored on different test rows; begin a new --output")
    result: dict[str, Any] = {
        "format": 1,
        "recipes": recipes,
        "sizes": sizes,
        "seeds": len({cell.seed for cell in cells}),
        "test_rows": cells[0].run.scores()["splits"]["test"]["count"],
        "confidence_level": _CONFIDENCE,
        "bootstrap_samples": _SAMPLES,
        "tuning": dict(tuning),
        "by_size": [],
    }
    for size in sizes:
        correct = np.stack([_correct([c for c in cells if (c.recipe, c.size) == (name, size)]) for name in recipes])
        means, draws = correct.mean(axis=(1, 2)), _bootstrap(correct)
        entry: dict[str, Any] = {"size": size, "recipes": {}}
        for i, name in enumerate(recipes):
            of_recipe = [cell for cell in cells if (cell.recipe, cell.size) == (name, size)]
            entry["recipes"][name] = {
                "accuracy": _interval(float(means[i]), draws[:, i]),
                "accuracy_by_seed": [float(value) for value in correct[i].mean(axis=1)],
                "factor": of_recipe[0].factor,
                "training_seconds": [cell.run.scores()["cost"]["training_seconds"] for cell in of_recipe],
                "lead": {
                    other: _interval(float(means[i] - means[j]), draws[:, i] - draws[:, j])
                    for j, other in enumerate(recipes)
                    if j != i
                },
            }
        result["by_size"].append(entry)
    return result


def _correct(cells: Sequence[Cell]) -> NDArray[np.float64]:
    """Whether each test row was labelled right, (seeds, rows), in the order of the ids."""
    rows = []
    for cell in sorted(cells, key=lambda cell: cell.seed):
        table = pq.read_table(cell.run.predictions_file("test"), columns=["id", "reference", "predicted"]).sort_by("id")
        rows.append(np.array(table["reference"].to_pylist()) == np.array(table["predicted"].to_pylist()))
    return np.stack(rows).astype(np.float64)


def _bootstrap(correct: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean accuracies of resampled seeds and rows: (recipes, seeds, rows) -> (samples, recipes)."""
    generator = np.random.default_rng(0)
    _, seeds, rows = correct.shape
    draws = np.empty((_SAMPLES, len(correct)))
    for sample in range(_SAMPLES):
        of_seeds = np.bincount(generator.integers(0, seeds, seeds), minlength=seeds) / seeds
        of_rows = np.bincount(generator.integers(0, rows, rows), minlength=rows) / rows
        draws[sample] = (correct @ of_rows) @ of_seeds
    return draws


def _interval(value: float, draws: NDArray[np.float64]) -> dict[str, float]:
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return {"value": value, "low": float(low), "high": float(high)}


def write_curve(summary: Mapping[str, Any], output: Path) -> Path:
    """Write curve.json and curve.md; returns the path of the latter."""
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
    (output / "curve.json").write_text(text, encoding="utf-8")
    page = output / "curve.md"
    page.write_text(curve_markdown(summary), encoding="utf-8")
    return page


def curve_markdown(summary: Mapping[str, Any]) -> str:
    """The table of accuracies by size, and the leads of the first recipe over each other one."""
    recipes: Sequence[str] = summary["recipes"]
    sizes = [f"{entry['size']:,} rows" for entry in summary["by_size"]]
    lines = [f"| Test accuracy, % | {' | '.join(sizes)} |", f"| :--- |{' ---: |' * len(sizes)}"]
    for name in recipes:
        lines.append(_row(name, [_points(entry["recipes"][name]["accuracy"]) for entry in summary["by_size"]]))
    first, *others = recipes
    for name in others:
        leads = [_points(entry["recipes"][first]["lead"][name], sign=True) for entry in summary["by_size"]]
        lines.append(_row(f"{first} − {name}", leads))
    seeds, rows = summary["seeds"], summary["test_rows"]
    factors = ", ".join(f"{factor:.2g}" for factor in summary["tuning"]["factors"])
    lines += [
        "",
        f"Means over {seeds} seed(s), each with a training sample of its own, on {rows:,} test rows; intervals "
        f"({summary['confidence_level']:.0%}) by {summary['bootstrap_samples']:,} draws of seeds and rows, paired "
        f"where two recipes are compared. For each recipe and size one value was chosen on validation with the first "
        f"seed, among {factors} times the recipe's own: "
        + ", ".join(f"{name} {field} {_plain(summary, name)}" for name, field in summary["tuning"]["fields"].items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def _plain(summary: Mapping[str, Any], name: str) -> str:
    own = summary["tuning"]["values"][name]
    chosen = [f"{own * entry['recipes'][name]['factor']:.2g}" for entry in summary["by_size"]]
    return f"({', '.join(chosen)})"


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _points(interval: Mapping[str, float], *, sign: bool = False) -> str:
    value, low, high = (100 * interval[end] for end in ("value", "low", "high"))
    if sign:
        return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"
