"""`curve`: recipes x training sizes x seeds, each tuned by the same small budget, as one table with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.cell import train_cell
from finetune.data import load_splits
from finetune.errors import UserError
from finetune.predict import evaluate_split
from finetune.recipe import (
    DecoderModel,
    EncoderDecoderModel,
    EncoderModel,
    MajorityFloor,
    Recipe,
    RecurrentModel,
    TfidfFloor,
)
from finetune.reporting.curve_page import write_curve
from finetune.reporting.learning_curve import MEASURES, Cell, summarize_curve
from finetune.run import RunDirectory

FACTORS = (1 / 3, 1.0, 3.0)
"""What the tuned value of a recipe is multiplied by: three tries for each recipe and size."""


def curve(
    recipes: Sequence[Recipe],
    sizes: Sequence[int | None],
    seeds: Sequence[int],
    output: Path,
    command: Sequence[str] = (),
    *,
    tuned_up_to: int | None = None,
) -> Path:
    """Train every cell that is not finished yet; write the curve into `output` as JSON, Markdown, SVG and a page.

    Of the sizes None stands for all training rows. `seeds` counts the runs of each size, or of all if it is one number;
    a seed stands for the sample of training rows as well as for what the training draws. The learning rate (of TF-IDF
    the regularisation) is chosen for each recipe and size among `FACTORS` times the recipe's own, by validation
    accuracy, or bits per byte, with the first seed; sizes above `tuned_up_to` take what the last one before them chose.
    No run sees the test split before that choice, and of the first seed's runs only the chosen one is scored on it.
    Returns the path of the Markdown file.

    Raises:
        UserError: recipes that cannot stand in one table, or anything that `train` refuses.
    """
    _check(recipes, sizes, seeds, tuned_up_to)
    rows = len(load_splits(recipes[0].data.model_copy(update={"max_train_rows": None}), recipes[0].task).train)
    of_each = [*seeds] * (len(sizes) if len(seeds) == 1 else 1)
    counts = dict(sorted({rows if size is None else size: n for size, n in zip(sizes, of_each, strict=True)}.items()))
    if len(counts) < len(of_each) and len(seeds) > 1:
        raise UserError(f"curve: two of --sizes are the same ({rows:,} rows are all); give each size once")
    if max(counts) > rows:
        raise UserError(f"curve: --sizes {max(counts)} is more than the {rows:,} training rows that there are")
    cells: list[Cell] = []
    factors: dict[str, float] = {}
    tuned_at = 0
    for size, seeds_of_size in counts.items():
        if not factors or tuned_up_to is None or size <= tuned_up_to:
            factors = {recipe.name: _choose(recipe, size, output, command) for recipe in recipes}
            tuned_at = size
        for recipe in recipes:
            for seed in range(seeds_of_size):
                run = _train(recipe, size, seed, factors[recipe.name], output, command)
                search = _search(recipe, factors[recipe.name], tuned_at) if _is_tuned(recipe) else None
                if search is not None and run.tuning() != search:
                    run.write_json(run.tuning_file, search)
                if "test" not in run.scores()["splits"]:
                    evaluate_split(str(run.path), "test")
                cells.append(Cell(recipe.name, size, seed, factors[recipe.name], tuned_at, run))
        # After every size, since the next one takes several times as long.
        page = write_curve(
            summarize_curve(
                recipes[0].task,
                cells,
                tuning=_tuning_account(recipes),
                pretrained=[recipe.name for recipe in recipes if _is_pretrained(recipe)],
                train_rows=rows,
            ),
            output,
        )
    return page


def _check(
    recipes: Sequence[Recipe], sizes: Sequence[int | None], seeds: Sequence[int], tuned_up_to: int | None
) -> None:
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise UserError("curve: two recipes have one name; give each a name of its own")
    counts = [*(size for size in sizes if size is not None), *seeds, *([] if tuned_up_to is None else [tuned_up_to])]
    if min(counts) < 1:
        raise UserError("curve: --sizes, --seeds and --tuned_up_to are whole numbers from 1 on")
    if len(seeds) not in (1, len(sizes)):
        raise UserError(f"curve: --seeds has {len(seeds)} numbers; give one, or one for each of the {len(sizes)} sizes")
    for recipe in recipes:
        if recipe.task not in MEASURES:
            raise UserError(f"curve: {recipe.name} has task {recipe.task}; only {' and '.join(MEASURES)} have a curve")
        if recipe.task != recipes[0].task:
            raise UserError(f"curve: {recipe.name} has task {recipe.task} and {recipes[0].name} {recipes[0].task}")
    if any(recipe.data != recipes[0].data for recipe in recipes):
        raise UserError("curve: the recipes have different data; give one --data for all")


def _choose(recipe: Recipe, size: int, output: Path, command: Sequence[str]) -> float:
    """The factor with the best validation score; of equals the one nearest to 1."""
    if not _is_tuned(recipe):
        return 1.0
    measure = MEASURES[recipe.task]
    found: dict[float, float] = {}
    for factor in FACTORS:
        run = _train(recipe, size, 0, factor, output, command)
        value = run.scores()["splits"]["validation"]["metrics"][measure.metric]["value"]
        found[factor] = -value if measure.less_is_better else value
    return max(sorted(FACTORS, key=lambda factor: abs(factor - 1)), key=lambda factor: found[factor])


def _train(recipe: Recipe, size: int, seed: int, factor: float, output: Path, command: Sequence[str]) -> RunDirectory:
    """One run, its test split sealed; it goes on where it was stopped."""
    tuned = f"-x{factor:.2g}" if _is_tuned(recipe) else ""
    name = f"{recipe.name}-{size}-seed{seed}{tuned}"
    changes: dict[str, Mapping[str, Any]] = {
        "data": {"max_train_rows": size, "train_sample_seed": seed},
        "evaluation": {"score_test": False},
    }
    if tuned:
        section, field = _tuned(recipe)
        changes[section] = {field: _value(recipe) * factor}
    return train_cell(recipe, name, seed, output, command, **changes)


def _is_pretrained(recipe: Recipe) -> bool:
    """Whether it begins with anything that was learnt before: a model, or its embeddings."""
    match recipe.model:
        case EncoderModel() | DecoderModel() | EncoderDecoderModel():
            return recipe.model.model_name_or_path is not None
        case RecurrentModel():
            return recipe.model.initial_embeddings is not None
        case _:
            return False


def _is_tuned(recipe: Recipe) -> bool:
    """Whether there is anything to tune: not for the majority, nor for a model that is scored as it is."""
    return not isinstance(recipe.model, MajorityFloor) and recipe.training.max_steps != 0


def _tuned(recipe: Recipe) -> tuple[str, str]:
    """The section and the field whose value is tuned."""
    return ("model", "regularization") if isinstance(recipe.model, TfidfFloor) else ("training", "learning_rate")


def _value(recipe: Recipe) -> float:
    return recipe.model.regularization if isinstance(recipe.model, TfidfFloor) else recipe.training.learning_rate


def _search(recipe: Recipe, factor: float, train_rows: int) -> dict[str, Any]:
    """What a run of the table keeps of how its value was found."""
    own = _value(recipe)
    return {
        "field": ".".join(_tuned(recipe)),
        "tried": [own * factor for factor in FACTORS],
        "chosen": own * factor,
        "seed": 0,
        "train_rows": train_rows,
    }


def _tuning_account(recipes: Sequence[Recipe]) -> dict[str, Any]:
    tuned = [recipe for recipe in recipes if _is_tuned(recipe)]
    return {
        "factors": list(FACTORS),
        "fields": {recipe.name: ".".join(_tuned(recipe)) for recipe in tuned},
        "values": {recipe.name: _value(recipe) for recipe in tuned},
    }
