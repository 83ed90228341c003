"""A training set up by its parts, so that tests can look at each."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from accelerate.utils import set_seed
from checkpoints import ARCHITECTURES, write_checkpoint
from reviews import small_recipe
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune import tasks
from finetune.data import Splits, load_splits
from finetune.models import build_model, match_inputs
from finetune.recipe import Recipe, with_values
from finetune.run import RunDirectory
from finetune.text import build_tokenizer
from finetune.training import environment
from finetune.training.train import _fit


@dataclass
class Setup:
    recipe: Recipe
    splits: Splits
    tokenizer: PreTrainedTokenizerBase
    encoded: dict[str, datasets.Dataset]
    run: RunDirectory

    def fresh_model(self) -> PreTrainedModel:
        """The model with its initial weights, the same at each call."""
        set_seed(self.recipe.seed)
        return _build(self.recipe, self.splits, self.tokenizer)


def _build(recipe: Recipe, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    return build_model(recipe.model, recipe.task, splits.labels, tokenizer, recipe.text.max_length, attention="eager")


def prepare(directory: Path, model: str, rows: int, dropout: float | None = None, **training: Any) -> Setup:
    # Each process has a data file of its own to write and read; they share the run directory.
    own = directory / f"data-{os.environ.get('RANK', '0')}"
    own.mkdir()
    start: str | dict[str, Any] = model
    if model in ARCHITECTURES:
        start = {"family": "encoder", "model_name_or_path": str(write_checkpoint(own / "checkpoint", model))}
    recipe = small_recipe(own, start, rows=rows, training=training)
    if dropout is not None:
        recipe = with_values(recipe, model={"dropout": dropout})
    recipe = environment.resolve(recipe)
    splits = load_splits(recipe.data)
    tokenizer = build_tokenizer(recipe, splits)
    tokenizer = match_inputs(tokenizer, _build(recipe, splits, tokenizer))
    encoded = {name: tasks.encode(splits[name], tokenizer, recipe.text.max_length) for name in ("train", "validation")}
    run = RunDirectory(directory / "run")
    run.path.mkdir(exist_ok=True)
    return Setup(recipe, splits, tokenizer, encoded, run)


def run_loop(setup: Setup, model: PreTrainedModel | None = None) -> list[dict[str, Any]]:
    """The training records of the loop; `model` ends with the best weights."""
    accelerator = environment.start_accelerator(setup.recipe, setup.run.tracking_directory)
    trained = setup.fresh_model() if model is None else model
    _fit(trained, setup.recipe, setup.encoded, setup.tokenizer, setup.run, accelerator)
    return [record for record in setup.run.log() if "validation" not in record]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
