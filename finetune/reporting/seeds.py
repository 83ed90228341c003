"""`OverSeeds`: runs that differ in nothing but their seeds, as one recipe: its mean accuracy, and how sure that is."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.recipe import MajorityFloor, Recipe, TfidfFloor
from finetune.significance import (
    CONFIDENCE,
    SAMPLES,
    Interval,
    Spread,
    bootstrap_seeds_and_rows,
    percentile_interval,
    spread_over_seeds,
)

FEW_SEEDS = 3
"""Fewer of them say little about seeds."""


@dataclass(frozen=True)
class RecipeOverSeeds:
    """The runs of one recipe, one for each seed, in the order of the seeds.

    `accuracy` is the mean over the seeds with its interval by draws of seeds and rows. `is_drawn` is False of floors
    that train on all rows, which no seed changes. `behind` is how much higher the best recipe's accuracy is, paired;
    None for the best.
    """

    name: str
    is_floor: bool
    is_drawn: bool
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    by_seed: tuple[float, ...]
    accuracy: Interval
    spread: Spread
    behind: Interval | None

    def is_told_apart(self) -> bool:
        """Whether the interval of the difference to the best leaves out that there is none."""
        return self.behind is not None and self.behind.low > 0


@dataclass(frozen=True)
class OverSeeds:
    """Recipes by their mean accuracy, the highest first.

    `left_out` are runs that have no predictions, `repeated` those whose recipe and seed another run has too.
    """

    confidence_level: float
    bootstrap_samples: int
    recipes: tuple[RecipeOverSeeds, ...]
    left_out: tuple[str, ...]
    repeated: tuple[str, ...]


def summarize_seeds(
    recipes: Mapping[str, Recipe],
    accounts: Mapping[str, Mapping[str, Any]],
    correct: Mapping[str, NDArray[np.bool_]],
) -> OverSeeds | None:
    """What runs say over their seeds, by name: recipes, accounts of the data, and which rows each has right, (rows,).

    None where no recipe has several seeds.
    """
    groups, repeated = _group(recipes, accounts, sorted(correct))
    if all(len(runs) == 1 for runs in groups):
        return None
    values = [np.stack([correct[run] for run in runs]).astype(np.float64) for runs in groups]
    order = sorted(range(len(groups)), key=lambda i: (-values[i].mean(), groups[i]))
    groups, values = [groups[i] for i in order], [values[i] for i in order]
    count = values[0].shape[1]
    seeds = [tuple(_seed(recipes[run]) for run in runs) for runs in groups]
    # Recipes with the same seeds share what these draw, samples of training rows above all.
    draws = bootstrap_seeds_and_rows([value[..., None] for value in values], lambda sums: sums[..., 0] / count, seeds)
    means = [float(value.mean()) for value in values]
    summaries = [
        RecipeOverSeeds(
            name=name,
            is_floor=(is_floor := isinstance(recipes[runs[0]].model, MajorityFloor | TfidfFloor)),
            is_drawn=not is_floor or recipes[runs[0]].data.max_train_rows is not None,
            runs=tuple(runs),
            seeds=tuple(recipes[run].seed for run in runs),
            by_seed=tuple(map(float, values[i].mean(axis=1))),
            accuracy=percentile_interval(means[i], draws[:, i]),
            spread=spread_over_seeds(values[i]),
            behind=percentile_interval(means[0] - means[i], draws[:, 0] - draws[:, i]) if i else None,
        )
        for i, (name, runs) in enumerate(zip(name_groups(groups), groups, strict=True))
    ]
    return OverSeeds(CONFIDENCE, SAMPLES, tuple(summaries), tuple(sorted(recipes.keys() - correct.keys())), repeated)


def _group(
    recipes: Mapping[str, Recipe], accounts: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> tuple[list[list[str]], tuple[str, ...]]:
    """Names of runs by recipe, those of one in the order of their seeds; and runs that repeat one of these.

    Repetitions of a recipe differ in nothing but their seeds, their names and where they stand; files count by what
    is in them.
    """
    by_recipe: dict[str, dict[tuple[int, int], str]] = defaultdict(dict)
    repeated = []
    for name in names:
        of_run = {"train_sample_seed", "train_file", "more_train_files", "validation_file", "test_file"}
        shared = recipes[name].model_dump(
            mode="json", exclude={"seed": True, "name": True, "output_dir": True, "data": of_run}
        )
        contents = {key: accounts[name].get(key) for key in ("source", "revision", "files")}
        of_recipe = by_recipe[json.dumps([shared, contents], sort_keys=True)]
        if of_recipe.setdefault(_seed(recipes[name]), name) != name:
            repeated.append(name)
    return [[of_recipe[seed] for seed in sorted(of_recipe)] for of_recipe in by_recipe.values()], tuple(repeated)


def _seed(recipe: Recipe) -> tuple[int, int]:
    """What is drawn anew: the run's seed, and that of its sample of training rows."""
    sample = recipe.data.train_sample_seed
    return recipe.seed, recipe.data.split_seed if sample is None else sample


# --- names ------------------------------------------------------------------------------------------------------------


def name_groups(groups: Sequence[Sequence[str]]) -> list[str]:
    """A name for each group of runs: its own for a single run, else what the names of its runs begin with."""
    names = [group[0] if len(group) == 1 else _shared_name(group) for group in groups]
    taken = {name for name, group in zip(names, groups, strict=True) if len(group) == 1}
    for i, group in enumerate(groups):
        if len(group) > 1:
            first, number = names[i], 1
            while names[i] in taken:
                number += 1
                names[i] = f"{first} ({number})"
            taken.add(names[i])
    return names


def _shared_name(runs: Sequence[str]) -> str:
    """ "lstm" of "lstm-seed1" and "lstm-seed2"; without a beginning in common that of the shortest name."""
    if len(own := {run.rsplit("/", 1)[-1] for run in runs}) == 1:
        return own.pop()  # they stand in directories of their own, "seed1/lstm" and "seed2/lstm"
    places = takewhile(lambda place: len(set(place)) == 1, zip(*runs, strict=False))
    prefix = "".join(place[0] for place in places)
    if any(run[len(prefix) : len(prefix) + 1].isdigit() for run in runs):
        prefix = prefix.rstrip("0123456789")  # numbers cut in two: "lstm-seed1" of "lstm-seed10" and "lstm-seed11"
    shortest = min(runs, key=lambda run: (len(run), run))
    return _without_seed(prefix) or _without_seed(shortest) or shortest


def _without_seed(name: str) -> str:
    return re.sub(r"([\W_]+seed[\W_]*\d*)?[\W_]*$", "", name, flags=re.IGNORECASE)
