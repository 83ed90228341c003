"""Runs by recipe, training size and seed -> mean scores with intervals, and who is ahead by how much."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import UserError
from finetune.reporting.comparison import correct_rows
from finetune.reporting.tables import round_up
from finetune.reporting.text_comparison import refuse_other_parts, text_sums
from finetune.run import RunDirectory
from finetune.significance import CONFIDENCE, SAMPLES, bootstrap_seeds_and_rows, percentile_interval


@dataclass(frozen=True)
class Measure:
    """The score that a curve shows, and by which tuned values are chosen: its name in scores.json, and its form."""

    metric: str
    title: str
    unit: str
    scale: float
    digits: int
    less_is_better: bool


MEASURES = {
    "classify": Measure("accuracy", "Test accuracy, %", "points", 100, 1, less_is_better=False),
    "generate": Measure("bits_per_byte", "Test bits per byte", "bits per byte", 1, 3, less_is_better=True),
}
"""By task; other tasks have no curve."""


_FEW = 4
"""Recipes beside the first whose differences stand in the Markdown; of more the page and the JSON have them."""


@dataclass(frozen=True)
class Cell:
    """One run of a learning curve; `factor` is what its tuned value was multiplied by, as chosen at `tuned_at` rows."""

    recipe: str
    size: int
    seed: int
    factor: float
    tuned_at: int
    run: RunDirectory


def summarize_curve(
    task: str, cells: Sequence[Cell], *, tuning: Mapping[str, Any], pretrained: Sequence[str], train_rows: int
) -> dict[str, Any]:
    """The curve as JSON values: per size each recipe's mean score, and its difference to every other recipe's.

    `train_rows` are all that there are: of so many no seed has a sample of its own. `pretrained` are the recipes that
    do not start from nothing.

    Intervals are hierarchical bootstraps: seeds (with their training samples) are drawn anew, and test rows are; the
    recipes share both draws, so that differences are paired.

    Raises:
        UserError: the runs were not scored on the same test rows, or on different parts of their texts.
    """
    recipes = list(dict.fromkeys(cell.recipe for cell in cells))
    sizes = sorted({cell.size for cell in cells})
    fingerprints = {cell.run.scores()["splits"]["test"]["rows_fingerprint"] for cell in cells}
    if len(fingerprints) > 1:
        raise UserError("curve: the runs were scored on different test rows; begin a new --output")
    metric = MEASURES[task].metric
    result: dict[str, Any] = {
        "format": 2,
        "task": task,
        "recipes": recipes,
        "pretrained": list(pretrained),
        "sizes": sizes,
        "train_rows": train_rows,
        "test_rows": cells[0].run.scores()["splits"]["test"]["count"],
        "confidence_level": CONFIDENCE,
        "bootstrap_samples": SAMPLES,
        "tuning": dict(tuning),
        "by_size": [],
    }
    for size in sizes:
        of_size = sorted((cell for cell in cells if cell.size == size), key=lambda cell: cell.seed)
        by_recipe = [[cell for cell in of_size if cell.recipe == name] for name in recipes]
        sums = np.stack([[sums_of_rows(task, cell.run) for cell in of_recipe] for of_recipe in by_recipe])
        if task == "generate":
            for cell, of_cell in zip(chain(*by_recipe), chain(*sums), strict=True):
                refuse_other_parts(by_recipe[0][0].run, sums[0, 0], cell.run, of_cell)
        by_seed, draws = scores_of_sums(task, sums.sum(axis=2)), bootstrap_scores(task, sums)
        means = by_seed.mean(axis=1)
        entry: dict[str, Any] = {"size": size, "tuned_at": by_recipe[0][0].tuned_at, "recipes": {}}
        for i, name in enumerate(recipes):
            entry["recipes"][name] = {
                metric: interval_of(float(means[i]), draws[:, i]),
                "by_seed": [float(value) for value in by_seed[i]],
                "factor": by_recipe[i][0].factor,
                "training_seconds": [cell.run.scores()["cost"]["training_seconds"] for cell in by_recipe[i]],
                "difference": {
                    other: interval_of(float(means[i] - means[j]), draws[:, i] - draws[:, j])
                    for j, other in enumerate(recipes)
                    if j != i
                },
            }
        result["by_size"].append(entry)
    return result


def sums_of_rows(task: str, run: RunDirectory) -> NDArray[np.float64]:
    """What the score of a run is made of, (rows, columns), rows in the order of their ids."""
    if task == "generate":
        return text_sums(run)
    correct = correct_rows(run)
    return np.stack([correct, np.ones_like(correct)], axis=1).astype(np.float64)


def scores_of_sums(task: str, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The score of sums over rows, (..., columns) -> (...)."""
    if task == "generate":
        from finetune.evaluation import language  # late: it loads torch

        return language.bits_per_byte(sums)
    return sums[..., 0] / sums[..., 1]


def bootstrap_scores(task: str, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean scores of resampled seeds and rows: (recipes, seeds, rows, columns) -> (samples, recipes)."""
    return bootstrap_seeds_and_rows(sums, partial(scores_of_sums, task))


def interval_of(value: float, draws: NDArray[np.float64]) -> dict[str, float]:
    """The interval as JSON values."""
    return asdict(percentile_interval(value, draws))


def curve_markdown(summary: Mapping[str, Any]) -> str:
    """The table of scores by size, where the first recipe stands, and what the numbers are.

    The differences of the first recipe to each other one as well, where they are few.
    """
    measure = MEASURES[summary["task"]]
    sizes = [f"{entry['size']:,} rows" for entry in summary["by_size"]]
    lines = [f"| {measure.title} | {' | '.join(sizes)} |", f"| :--- |{' ---: |' * len(sizes)}"]
    for name in summary["recipes"]:
        scores = [entry["recipes"][name][measure.metric] for entry in summary["by_size"]]
        lines.append(_row(name, [show_interval(measure, score) for score in scores]))
    first, *others = summary["recipes"]
    for name in others if len(others) <= _FEW else ():
        gaps = [entry["recipes"][first]["difference"][name] for entry in summary["by_size"]]
        lines.append(_row(f"{first} − {name}", [show_interval(measure, gap, sign="+") for gap in gaps]))
    sentences = curve_sentences(summary)
    if sentences:
        lines += ["", *(f"- {sentence}" for sentence in sentences)]
    return "\n".join([*lines, "", curve_account(summary), ""])


def curve_sentences(summary: Mapping[str, Any]) -> list[str]:
    """Where the first recipe stands at each size, and how many labels it saves; none for a single recipe."""
    measure = MEASURES[summary["task"]]
    if len(summary["recipes"]) == 1:
        return []
    standings = [_standing(summary, measure, entry) for entry in summary["by_size"]]
    return standings + _labels_saved(summary, measure)


def _rivals(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """The recipes that the first is held against, by what the best of them is called.

    A pretrained one that has others of its kind beside it is held against these and against those that start from
    nothing: what transfer buys is the second, which way of tuning is the first.
    """
    first, *others = summary["recipes"]
    pretrained = summary.get("pretrained", [])  # unknown of an earlier version's curves, which had one at most
    kin = [name for name in others if name in pretrained]
    if first not in pretrained or not kin or len(kin) == len(others):
        return {"the best of the others": others}
    fresh = [name for name in others if name not in pretrained]
    return {"the best that starts from nothing": fresh, "the best of the other pretrained ones": kin}


def _best_of(names: Sequence[str], measure: Measure, entry: Mapping[str, Any]) -> str:
    sign = -1 if measure.less_is_better else 1
    return max(names, key=lambda name: sign * entry["recipes"][name][measure.metric]["value"])


def _standing(summary: Mapping[str, Any], measure: Measure, entry: Mapping[str, Any]) -> str:
    """How the first recipe stands at one size to the best of each group of its rivals."""
    first = summary["recipes"][0]
    parts = []
    for called, names in _rivals(summary).items():
        rival = _best_of(names, measure, entry)
        gap, reverse = entry["recipes"][first]["difference"][rival], entry["recipes"][rival]["difference"][first]
        lead, lag = (reverse, gap) if measure.less_is_better else (gap, reverse)
        of_rival = f"{called}, {rival}" if len(names) > 1 else rival
        if lead["low"] > 0:
            parts.append(f"is {show_interval(measure, lead)} {measure.unit} ahead of {of_rival}")
        elif lag["low"] > 0:
            loses = "is" if parts else "loses: it is"
            parts.append(f"{loses} {show_interval(measure, lag)} {measure.unit} behind {of_rival}")
        else:
            # With the sign of the table.
            parts.append(f"is not told apart from {of_rival}: {show_interval(measure, gap, sign='+')} {measure.unit}")
    return f"{entry['size']:,} rows: {first} {'; it '.join(parts)}."


def _labels_saved(summary: Mapping[str, Any], measure: Measure) -> list[str]:
    """With how many rows the first recipe reaches what its best rival reaches with the most, from nothing if it can.

    Between two sizes the score is taken to go straight over the logarithm of the rows; no interval is given.
    """
    first = summary["recipes"][0]
    if len(summary["by_size"]) == 1 or summary["task"] == "generate":  # whose rows have no labels to save
        return []
    last = summary["by_size"][-1]

    def score(entry: Mapping[str, Any], name: str) -> float:
        return float(entry["recipes"][name][measure.metric]["value"])

    called, names = next(iter(_rivals(summary).items()))
    rival = _best_of(names, measure, last)
    goal, largest = score(last, rival), last["size"]
    shown = f"{measure.scale * goal:.{measure.digits}f}"
    said = f"what {rival} reaches with {largest:,} rows ({shown}), {called} there"
    reached = [entry["size"] for entry in summary["by_size"] if score(entry, first) >= goal]
    if not reached:
        return [f"No size of these lets {first} reach {said}."]
    if reached[0] == summary["by_size"][0]["size"]:
        return [f"{first} reaches {said}, with {reached[0]:,} rows or fewer."]
    after = next(i for i, entry in enumerate(summary["by_size"]) if entry["size"] == reached[0])
    low, high = summary["by_size"][after - 1], summary["by_size"][after]
    part = (goal - score(low, first)) / (score(high, first) - score(low, first))
    rows = low["size"] * (high["size"] / low["size"]) ** part
    needed = round_up(round(rows))
    if needed >= largest:
        return [f"{first} reaches {said}, with about as many."]
    return [f"{first} reaches {said}, with some {needed:,}: {1 - needed / largest:.0%} of the labels are saved."]


def curve_account(summary: Mapping[str, Any]) -> str:
    """What the numbers are means of, and how each recipe was tuned."""
    measure = MEASURES[summary["task"]]
    better = "less is better; " if measure.less_is_better else ""
    seeds = [len(entry["recipes"][summary["recipes"][0]]["by_seed"]) for entry in summary["by_size"]]
    of_seeds = f"{seeds[0]} seed(s)" if len(set(seeds)) == 1 else f"{', '.join(map(str, seeds))} seeds"
    every = summary.get("train_rows")
    takes_all = every in [entry["size"] for entry in summary["by_size"]]
    all_the_same = f" (but for {every:,}, which are all rows)" if takes_all else ""
    rows_alone = " (of rows alone where there is one seed)" if 1 in seeds else ""
    said = (
        f"Means over {of_seeds}, each with a training sample of its own{all_the_same}, on {summary['test_rows']:,} "
        f"test rows; {better}intervals ({summary['confidence_level']:.0%}) by {summary['bootstrap_samples']:,} draws "
        f"of seeds and rows{rows_alone}, paired where two recipes are compared."
    )
    tuning = summary["tuning"]
    if not tuning["fields"]:
        return said
    factors = ", ".join(f"{factor:.2g}" for factor in tuning["factors"])
    values = ", ".join(f"{name} {field} {_tuned_values(summary, name)}" for name, field in tuning["fields"].items())
    return (
        f"{said} For each recipe and size one value was chosen on validation with the first seed, among {factors} "
        f"times the recipe's own: {values}.{_untuned(summary)}"
    )


def _untuned(summary: Mapping[str, Any]) -> str:
    """Which sizes have a value that was chosen at another."""
    return "".join(
        f" {entry['size']:,} rows took what {entry['tuned_at']:,} chose."
        for entry in summary["by_size"]
        if entry.get("tuned_at", entry["size"]) != entry["size"]
    )


def _tuned_values(summary: Mapping[str, Any], name: str) -> str:
    own = summary["tuning"]["values"][name]
    chosen = [f"{own * entry['recipes'][name]['factor']:.2g}" for entry in summary["by_size"]]
    return f"({', '.join(chosen)})"


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def show_interval(measure: Measure, interval: Mapping[str, float], sign: str = "") -> str:
    form = f"{sign}.{measure.digits}f"
    value, low, high = (f"{measure.scale * interval[end]:{form}}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
