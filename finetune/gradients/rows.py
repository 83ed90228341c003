"""The rows that are measured, the same for every tokenizer, and those that are left to train on."""

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from finetune import tasks
from finetune.data import Splits
from finetune.data.splits import column, label_array
from finetune.errors import UserError
from finetune.gradients.variants import SHORTEST, Plan, build
from finetune.models import match_inputs
from finetune.progress import say
from finetune.recipe import Recipe, RecurrentModel
from finetune.text import build_tokenizer


@dataclass(frozen=True)
class MeasuredRows:
    """The measured rows as a model reads them, and which of their tokens are of the text: (rows, length)."""

    batch: dict[str, Tensor]
    are_text: NDArray[np.bool_]


@dataclass(frozen=True)
class Texts:
    """The data of one tokenizer: rows to train on, and those to measure by their length."""

    tokenizer: PreTrainedTokenizerBase
    train: datasets.Dataset
    measured: dict[int, MeasuredRows]


def read_texts(recipes: Sequence[Recipe], splits: Splits, plan: Plan) -> tuple[list[Texts], tuple[int, ...], int]:
    """The texts of each recipe, the lengths that the measured rows are cut to, and how many they are.

    The same rows for all recipes: those that are longest for the tokenizer that makes the fewest tokens of them.

    Raises:
        UserError: they are too short for a line.
    """
    texts, labels = column(splits.train, "text"), label_array(splits.train)
    readers = {_reading(recipe): recipe for recipe in recipes}
    tokenizers = {reading: build_tokenizer(recipe, splits) for reading, recipe in readers.items()}
    shortest = np.min([_token_counts(texts, tokenizer) for tokenizer in tokenizers.values()], axis=0)
    rows = min(plan.rows, len(texts) // 2)
    if rows < 2:
        raise UserError(f"gradients: {len(texts)} training rows are too few to measure two and train on others")
    chosen = np.argsort(-shortest, kind="stable")[:rows]
    limits = [
        recipe.text.max_length - tokenizers[reading].num_special_tokens_to_add() for reading, recipe in readers.items()
    ]
    longest = min(int(shortest[chosen[-1]]), *limits)
    if longest < SHORTEST:
        raise UserError(
            f"gradients: only {longest} tokens of each of {rows} rows can be read, and a line needs {SHORTEST}; give "
            "fewer --rows, longer texts or a larger text.max_length"
        )
    lengths = tuple(sorted({min(length, longest) for length in plan.lengths}))
    if max(plan.lengths) > longest:
        say(f"  {rows} rows have {longest} tokens or more, so --lengths goes up to {longest}")
    others = splits.train.select(np.setdiff1d(np.arange(len(texts)), chosen))
    found = {}
    for reading, recipe in readers.items():
        tokenizer = match_inputs(tokenizers[reading], build(recipe, splits, tokenizers[reading]))
        measured = {n: _cut([texts[i] for i in chosen], labels[chosen], tokenizer, n) for n in lengths}
        found[reading] = Texts(tokenizer, tasks.encode(others, tokenizer, recipe.text.max_length), measured)
    return [found[_reading(recipe)] for recipe in recipes], lengths, rows


def _reading(recipe: Recipe) -> str:
    """Equal for recipes that make the same tokens of a text: recurrent models are alike in that."""
    model = "recurrent" if isinstance(recipe.model, RecurrentModel) else recipe.model.model_dump_json()
    return f"{model} {recipe.text.model_dump_json()}"


def _token_counts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int64]:
    encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)
    return np.array([len(ids) for ids in encoded["input_ids"]])


def _cut(
    texts: Sequence[str], labels: NDArray[np.int64], tokenizer: PreTrainedTokenizerBase, length: int
) -> MeasuredRows:
    """The first `length` tokens of each text, and the special ones that the tokenizer puts around them."""
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=length + tokenizer.num_special_tokens_to_add(),
        return_special_tokens_mask=True,
        return_attention_mask=False,
    )
    columns = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
    are_text = np.array(encoded["special_tokens_mask"]) == 0
    return MeasuredRows(tasks.collate({**columns, "label": labels.tolist()}, tokenizer), are_text)
