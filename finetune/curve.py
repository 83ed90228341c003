"""`curve`: recipes x training sizes x seeds, each tuned by the same small budget, as one table with intervals."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.data import load_splits
from finetune.errors import UserError
from finetune.predict import evaluate_split
from finetune.progress import say
from finetune.recipe import MajorityFloor, Recipe, TfidfFloor, with_values
from finetune.reporting.learning_curve import Cell, summarize_curve, write_curve
from finetune.run import RunDirectory
from finetune.training import train

FACTORS = (1 / 3, 1.0, 3.0)
"""What the tuned value of a recipe is multiplied by: three tries for each recipe and size."""


def curve(
    recipes: Sequence[Recipe], sizes: Sequence[int], seeds: int, output: Path, command: Sequence[str] = ()
) -> Path:
    """Train every cell that is not finished yet, and write curve.json and curve.md into `output`; returns the latter.

    A seed stands for the sample of training rows as well as for what the training draws. The learning rate (of TF-IDF
    the regularisation) is chosen for each recipe and size among `FACTORS` times the recipe's own, by validation
    accuracy with the first seed. No run sees the test split before that choice, and of the first seed's runs only the
    chosen one is scored on it.

    Raises:
        UserError: recipes that cannot stand in one table, or anything that `train` refuses.
    """
    _check(recipes, sizes, seeds)
    rows = len(load_splits(recipes[0].data.model_copy(update={"max_train_rows": None})).train)
    if max(sizes) > rows:
        raise UserError(f"curve: --sizes {max(sizes)} is more than the {rows:,} training rows that there are")
    cells: list[Cell] = []
    for size in sizes:
        for recipe in recipes:
            factor = _choose(recipe, size, output, command)
            for seed in range(seeds):
                run = _train(recipe, size, seed, factor, output, command)
                if "test" not in run.scores()["splits"]:
                    evaluate_split(str(run.path), "test")
                cells.append(Cell(recipe.name, size, seed, factor, run))
        # After every size, since the next one takes several times as long.
        page = write_curve(summarize_curve(cells, _tuning_account(recipes)), output)
    return page


def _check(recipes: Sequence[Recipe], sizes: Sequence[int], seeds: int) -> None:
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise UserError("curve: two recipes have one name; give each a name of its own")
    if seeds < 1 or not sizes or min(sizes) < 1:
        raise UserError("curve: --sizes and --seeds are whole numbers from 1 on")
    other = next((recipe for recipe in recipes if recipe.task != "classify"), None)
    if other is not None:
        raise UserError(f"curve: {other.name} has task {other.task}; only classify has a curve")
    if any(recipe.data != recipes[0].data for recipe in recipes):
        raise UserError("curve: the recipes have different data; give one --data for all")


def _choose(recipe: Recipe, size: int, output: Path, command: Sequence[str]) -> float:
    """The factor with the best validation accuracy; of equals the one nearest to 1."""
    if isinstance(recipe.model, MajorityFloor):
        return 1.0
    accuracies: dict[float, float] = {}
    for factor in FACTORS:
        run = _train(recipe, size, 0, factor, output, command)
        accuracies[factor] = run.scores()["splits"]["validation"]["metrics"]["accuracy"]["value"]
    return max(sorted(FACTORS, key=lambda factor: abs(factor - 1)), key=lambda factor: accuracies[factor])


def _train(recipe: Recipe, size: int, seed: int, factor: float, output: Path, command: Sequence[str]) -> RunDirectory:
    """One run, its test split sealed; it goes on where it was stopped."""
    tuned = "" if isinstance(recipe.model, MajorityFloor) else f"-x{factor:.2g}"
    name = f"{recipe.name}-{size}-seed{seed}{tuned}"
    say(f"\n{name}")
    changes: dict[str, Mapping[str, Any]] = {
        "data": {"max_train_rows": size, "train_sample_seed": seed},
        "evaluation": {"score_test": False},
    }
    if tuned:
        section, field = _tuned(recipe)
        changes[section] = {field: _value(recipe) * factor}
    named = recipe.model_copy(update={"name": name, "output_dir": str(output / "runs"), "seed": seed})
    run = train(with_values(named, **changes), resume=True, command=command)
    # A hundred runs keep their models; their optimizer states nobody needs any more, and they are ten times as large.
    shutil.rmtree(run.checkpoints_directory, ignore_errors=True)
    return run


def _tuned(recipe: Recipe) -> tuple[str, str]:
    """The section and the field whose value is tuned."""
    return ("model", "regularization") if isinstance(recipe.model, TfidfFloor) else ("training", "learning_rate")


def _value(recipe: Recipe) -> float:
    return recipe.model.regularization if isinstance(recipe.model, TfidfFloor) else recipe.training.learning_rate


def _tuning_account(recipes: Sequence[Recipe]) -> dict[str, Any]:
    tuned = [recipe for recipe in recipes if not isinstance(recipe.model, MajorityFloor)]
    return {
        "factors": list(FACTORS),
        "fields": {recipe.name: ".".join(_tuned(recipe)) for recipe in tuned},
        "values": {recipe.name: _value(recipe) for recipe in tuned},
    }
