"""`ablate`: one recipe and its variants, each with several seeds, as one table with intervals and what each costs."""

import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import yaml

from finetune.cell import train_cell
from finetune.errors import UserError
from finetune.recipe import Recipe, last_part, load_recipe, read_yaml_file
from finetune.reporting.ablation import Gain, Variant, summarize_ablation, write_ablation
from finetune.reporting.learning_curve import MEASURES
from finetune.run import RunDirectory

_NEEDED = {"recipe", "variants"}


def shipped_variants() -> dict[str, Path]:
    """The files of variants in the package, by name."""
    directory = Path(str(resources.files("finetune"))) / "recipes" / "variants"
    return {path.stem: path for path in sorted(directory.glob("*.yaml"))}


def load_variants(
    files: Sequence[str], overrides: Sequence[tuple[str, str]] = ()
) -> tuple[list[tuple[Variant, Recipe]], list[Gain]]:
    """The variants of all files in their order, each with its whole recipe, and the gains to be told.

    A file names a `recipe` and, under `variants`, by name the dotted fields that each changes; `common` are changes for
    all of them. `gains` are of the form {from: NAME, to: NAME, by: [NAME, ...]}. Overrides are for every variant of
    every file: they go over what is common, and a variant's own changes over them.

    Raises:
        UserError: a file that is missing or says something else, or a variant whose recipe does not hold together.
    """
    found: list[tuple[Variant, Recipe]] = []
    gains: list[Gain] = []
    for name in files:
        file = shipped_variants().get(name, Path(name))
        tree = read_yaml_file(file)
        if not isinstance(tree, dict) or not _NEEDED <= tree.keys() <= _NEEDED | {"common", "gains"}:
            raise UserError(f"{file}: two keys are needed, recipe and variants; common and gains may stand beside them")
        common = _changes(file, "common", tree.get("common"))
        if not isinstance(tree["variants"], dict):
            raise UserError(f"{file}: under variants stands a name, and below it the fields that it changes")
        for variant, changes in tree["variants"].items():
            own = _changes(file, f"variants.{variant}", changes)
            try:
                recipe = load_recipe(tree["recipe"], [*common, *overrides, *own])
            except UserError as error:
                raise UserError(f"{file}: variant {variant}: {error}") from None
            found.append((Variant(variant, _shown(own), recipe.name, _shown([*common, *overrides])), recipe))
        gains += _gains(file, tree.get("gains") or [])
    return found, gains


def _changes(file: Path, key: str, changes: object) -> list[tuple[str, str]]:
    if not isinstance(changes, dict | None):
        raise UserError(f"{file}: {key} has to name fields and their values, such as {{model.dropout: 0}}")
    return [(name, _written(value)) for name, value in (changes or {}).items()]


def _written(value: object) -> str:
    """As it would be typed after the field's name."""
    return value if isinstance(value, str) else "null" if value is None else json.dumps(value, ensure_ascii=False)


def _shown(changes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The last change of each field, for whoever reads the table: the data have an account of their own."""
    return {key: _without_places(value) for key, value in changes if key.partition(".")[0] != "data"}


def _without_places(written: str) -> str:
    """A value as it is typed, with the last part alone of every path in it, which says nothing on another machine."""
    if not written.startswith("{"):
        return last_part(written)
    return json.dumps(
        {key: last_part(value) if isinstance(value, str) else value for key, value in yaml.safe_load(written).items()},
        ensure_ascii=False,
    )


def _gains(file: Path, entries: object) -> list[Gain]:
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and entry.keys() == {"from", "to", "by"} and isinstance(entry["by"], list)
        for entry in entries
    ):
        raise UserError(f"{file}: gains is a list of {{from: NAME, to: NAME, by: [NAME, ...]}}")
    return [Gain(entry["from"], entry["to"], tuple(entry["by"])) for entry in entries]


def ablate(
    variants: Sequence[tuple[Variant, Recipe]],
    gains: Sequence[Gain],
    seeds: int,
    output: Path,
    command: Sequence[str] = (),
) -> Path:
    """Train what is not finished yet, a seed after the other; write ablation.json and ablation.md into `output`.

    Returns the path of the latter, which is written anew after each seed. A seed stands for what training draws, and
    where `data.max_train_rows` is set for the sample of rows as well. Each variant is trained as its recipe says, with
    no search of its own; the test split is scored once by each run.

    Raises:
        UserError: variants that cannot stand in one table, or anything that `train` refuses.
    """
    _check(variants, seeds)
    page = output / "ablation.md"
    runs: dict[str, list[RunDirectory]] = {variant.name: [] for variant, _ in variants}
    for seed in range(seeds):
        for variant, recipe in variants:
            runs[variant.name].append(_train(recipe, f"{variant.name}-seed{seed}", seed, output, command))
        summary = summarize_ablation(variants[0][1].task, [variant for variant, _ in variants], runs, gains)
        page = write_ablation(summary, output)
    return page


def _check(variants: Sequence[tuple[Variant, Recipe]], seeds: int) -> None:
    names = [variant.name for variant, _ in variants]
    if seeds < 1:
        raise UserError("ablate: --seeds is a whole number from 1 on")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "ablate: it runs in one process; start one for each file of variants, with one --output for all"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"ablate: two variants are called {twice}; give each a name of its own")
    first = variants[0][1]
    for variant, recipe in variants:
        if recipe.task not in MEASURES or recipe.task != first.task:
            raise UserError(f"ablate: {variant.name} has task {recipe.task}; all need one of {' and '.join(MEASURES)}")
        if not recipe.evaluation.score_test:
            raise UserError(f"ablate: {variant.name} leaves the test split sealed; leave evaluation.score_test true")
        if recipe.data != first.data:
            raise UserError(f"ablate: {variant.name} has other data than {names[0]}; give one --data for all")


def _train(recipe: Recipe, name: str, seed: int, output: Path, command: Sequence[str]) -> RunDirectory:
    sample = {"train_sample_seed": seed} if recipe.data.max_train_rows is not None else {}
    return train_cell(recipe, name, seed, output, command, data=sample)
