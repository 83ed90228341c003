"""What "classify" and "rate" mean: how rows are encoded and batched, what the loss is, and what a prediction is.

Labels that are whole numbers are classes, labels that are floats are ratings; a batch says by itself which it holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

IGNORED_LABEL = -100
"""A class that is no target: it adds nothing to the loss and is not counted. For ratings, NaN."""


def encode(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, *, keep_text: bool = False
) -> datasets.Dataset:
    """Rows with id, text (text_pair) and label -> input_ids (token_type_ids), length and label; memory-mapped.

    Rows without a `label` column (to be predicted) get none. With `keep_text` the texts stay, to be encoded anew.
    """

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, Any]:
        encoded = tokenizer(
            batch["text"],
            batch.get("text_pair"),
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
        return {**encoded, "length": [len(ids) for ids in encoded["input_ids"]]}

    columns = [] if keep_text else [name for name in rows.column_names if name not in ("id", "label")]
    # The cache does not see which tokenizer code ran, and tokenizing costs seconds for a hundred thousand rows.
    return rows.map(tokenize, batched=True, remove_columns=columns, load_from_cache_file=False)


def lengths(encoded: datasets.Dataset) -> NDArray[np.int64]:
    """Tokens per row, (n,)."""
    return encoded.select_columns(["length"]).with_format("arrow")[:]["length"].to_numpy()


def collate(columns: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Encoded rows -> keyword arguments of `forward`: input_ids, attention_mask (token_type_ids), labels.

    All but labels are (batch, length); padding is on the right, to the longest row of the batch.
    """
    sequences = columns["input_ids"]
    longest = max(len(ids) for ids in sequences)
    shape = (len(sequences), longest)
    input_ids = np.full(shape, tokenizer.pad_token_id, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    for row, ids in enumerate(sequences):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    batch = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention_mask)}
    if "token_type_ids" in columns:
        token_type_ids = np.full(shape, tokenizer.pad_token_type_id, dtype=np.int64)
        for row, types in enumerate(columns["token_type_ids"]):
            token_type_ids[row, : len(types)] = types
        batch["token_type_ids"] = torch.from_numpy(token_type_ids)
    if "label" in columns:
        is_rating = isinstance(columns["label"][0], float)
        batch["labels"] = torch.tensor(columns["label"], dtype=torch.float32 if is_rating else torch.long)
    return batch


def without_targets(labels: Tensor) -> Tensor:
    """Labels of the same shape and kind, none of which is a target."""
    return torch.full_like(labels, float("nan") if labels.is_floating_point() else IGNORED_LABEL)


def loss_sum(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The cross-entropy, or for ratings the squared error, summed over the targets: a scalar, in float32 at least.

    A sum, so that dividing once by the targets of the whole step is exact however the step is cut into batches.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = model(**inputs).logits
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if batch["labels"].is_floating_point():
        errors = logits.squeeze(-1) - batch["labels"].to(logits.dtype)
        return errors[~errors.isnan()].square().sum()
    return nn.functional.cross_entropy(logits, batch["labels"], ignore_index=IGNORED_LABEL, reduction="sum")


def target_count(batch: Mapping[str, Tensor]) -> int:
    """How many targets the batch has."""
    labels = batch["labels"]
    return int((~labels.isnan() if labels.is_floating_point() else labels != IGNORED_LABEL).sum())


def is_rating(model: nn.Module) -> bool:
    """Whether a model gives ratings rather than labels."""
    config: Any = model.config
    return config.problem_type == "regression"


def outputs(model: nn.Module, batch: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """The probability of each label, (batch, labels), or the rating, (batch, 1).

    In float64, so that a confident mistake has a finite loss.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = model(**inputs).logits.double()
    return (logits if is_rating(model) else logits.softmax(dim=-1)).cpu().numpy()
