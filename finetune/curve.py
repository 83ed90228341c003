"""`curve`: recipes x training sizes x seeds, each tuned by the same small budget, as one table with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.data import load_splits
from finetune.errors import UserError
from finetune.progress import say
from finetune.recipe import MajorityFloor, Recipe, TfidfFloor, with_values
from finetune.reporting.learning_curve import Cell, summarize_curve, write_curve
from finetune.training import train

FACTORS = (1 / 3, 1.0, 3.0)
"""What the tuned value of a recipe is multiplied by: three tries for each recipe and size."""


def curve(
    recipes: Sequence[Recipe], sizes: Sequence[int], seeds: int, output: Path, command: Sequence[str] = ()
) -> Path:
    """Train every cell that is not finished yet, and write curve.json and curve.md into `output`; returns the latter.

    A seed stands for the sample of training rows as well as for what the training draws. The learning rate (of TF-IDF
    the regularisation) is chosen for each recipe and size among `FACTORS` times the recipe's own, by validation
    accuracy with the first seed; those runs leave the test split sealed.

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
            factor = _choose(recipe, size, output / "tuning", command)
            for seed in range(seeds):
                name = f"{recipe.name}-{size}-seed{seed}"
                say(f"\n{name}")
                tuned = _cell(recipe, size, seed, factor, name, output / "runs")
                run = train(tuned, resume=True, command=command)
                cells.append(Cell(recipe.name, size, seed, factor, run))
    summary = summarize_curve(cells, _tuning_account(recipes))
    return write_curve(summary, output)


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


def _choose(recipe: Recipe, size: int, directory: Path, command: Sequence[str]) -> float:
    """The factor with the best validation accuracy; of equals the one nearest to 1."""
    if isinstance(recipe.model, MajorityFloor):
        return 1.0
    accuracies: dict[float, float] = {}
    for factor in FACTORS:
        name = f"{recipe.name}-{size}-x{factor:.2g}"
        say(f"\n{name} (tuning)")
        tried = with_values(_cell(recipe, size, 0, factor, name, directory), evaluation={"score_test": False})
        run = train(tried, resume=True, command=command)
        accuracies[factor] = run.scores()["splits"]["validation"]["metrics"]["accuracy"]["value"]
    return max(sorted(FACTORS, key=lambda factor: abs(factor - 1)), key=lambda factor: accuracies[factor])


def _cell(recipe: Recipe, size: int, seed: int, factor: float, name: str, directory: Path) -> Recipe:
    section, field = _tuned(recipe)
    changes: dict[str, Mapping[str, Any]] = {
        "data": {"max_train_rows": size, "train_sample_seed": seed},
        "evaluation": {"score_test": True},
    }
    if not isinstance(recipe.model, MajorityFloor):
        changes[section] = {field: _value(recipe) * factor}
    named = recipe.model_copy(update={"name": name, "output_dir": str(directory), "seed": seed})
    return with_values(named, **changes)


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
