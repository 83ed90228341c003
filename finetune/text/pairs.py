"""Rows for encoder-decoder models: a source that is read whole, and a target that is written after it.

Both are what the tokenizer makes of a text, with its own special tokens; the target's last is the end token, which is
learnt like any other. At each place of the target the decoder has been shown the token before: the inputs are the
labels one place later, behind the token that the model starts from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from finetune.errors import UserError
from finetune.text.causal import SIZES, Part, sizes_of


def for_pairs(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, made fit for targets: it has an end token, and its texts end in it.

    One made for classifiers has [CLS] and [SEP]; they serve as the start and the end.

    Raises:
        UserError: its texts end in nothing, so that a model could never learn to stop, or it is no fast tokenizer.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise UserError("task generate needs a fast tokenizer (tokenizer.json); this one is slow")
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.bos_token is None:
        tokenizer.bos_token = tokenizer.cls_token
    if tokenizer.eos_token is None or tokenizer("")["input_ids"][-1:] != [tokenizer.eos_token_id]:
        raise UserError("the tokenizer does not end texts in an end token, so a model could never learn to stop")
    # Answers are padded behind their end, and prompts as well: an encoder reads them from the first place on.
    tokenizer.padding_side = "right"
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def encode_pairs(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, start: int
) -> datasets.Dataset:
    """Rows with id, prompt and text -> id, row, input_ids, decoder_input_ids, label, length, and `SIZES` of the row.

    Each side is cut at `max_length` tokens, its end token among them; `start` is the id that the decoder starts from.
    `length` is of both sides, since both cost time.
    """

    def encode(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        sources = tokenizer(batch["prompt"], truncation=True, max_length=max_length, return_attention_mask=False)
        targets = tokenizer(
            text_target=batch["text"],
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_offsets_mapping=True,
        )
        found: dict[str, list[Any]] = {
            "id": batch["id"],
            "row": numbers,
            "input_ids": sources["input_ids"],
            "decoder_input_ids": [[start, *ids[:-1]] for ids in targets["input_ids"]],
            "label": targets["input_ids"],
        }
        found["length"] = [len(one) + len(other) for one, other in zip(found["input_ids"], found["label"], strict=True)]
        sizes = []
        for ids, offsets, text in zip(targets["input_ids"], targets["offset_mapping"], batch["text"], strict=True):
            # The end token stands for no text: what is cut is cut before it.
            part = Part(ids[:-1], offsets[:-1], text, is_target=True, is_cut=len(ids) == max_length)
            sizes.append(sizes_of([part], tokenizer, len(ids)))
        return found | {name: [of_row[i] for of_row in sizes] for i, name in enumerate(SIZES)}

    return rows.map(
        encode, batched=True, with_indices=True, remove_columns=rows.column_names, load_from_cache_file=False
    )


class ScheduledSampler:
    """Chooses where a decoder is shown its own token in place of the target's (Bengio et al. 2015, arXiv:1506.03099).

    Nowhere in the first epoch, and from epoch to epoch at evenly more places, up to a share of `1 - teacher_forcing`.
    The places are drawn from the seed, the epoch and the row alone.
    """

    def __init__(self, teacher_forcing: float, epochs: int, seed: int) -> None:
        self._most = 1 - teacher_forcing
        self._epochs = epochs
        self._seed = seed

    def share(self, epoch: int) -> float:
        """The share of places that are drawn in an epoch, which count from 0."""
        return self._most * epoch / max(self._epochs - 1, 1)

    def encode(self, columns: Mapping[str, Sequence[Any]], rows: Sequence[int], epoch: int) -> dict[str, Any]:
        """`columns` of `rows` -> the same, and `own_tokens`: for each place of a target whether it is drawn."""
        share = self.share(epoch)
        drawn = [
            np.random.default_rng([self._seed, epoch, row]).random(len(columns["label"][i])) < share
            for i, row in enumerate(rows)
        ]
        return {**columns, "own_tokens": drawn}
