"""Masks for masked language modelling, drawn anew in every epoch (BERT, arXiv:1810.04805; dynamic: arXiv:1907.11692).

Which tokens of a row are hidden is a function of the seed, the epoch and the row alone, so that a resumed run, or one
with more processes, draws the same.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import datasets
import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from finetune.errors import UserError
from finetune.recipe import Masking

IGNORED_LABEL = -100
"""A class or token that is no target: it adds nothing to the loss and is not counted."""
_SHOWN_AS_MASK, _SHOWN_AS_OTHER = 0.8, 0.1
"""BERT's shares of the targets that show [MASK] and that show a token drawn at random; the rest show themselves."""
_WORD_CONTINUES = "##"
_ONE_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Masker:
    """Hides tokens of encoded rows, and names them as targets."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, masking: Masking, seed: int) -> None:
        """Equal seeds hide equal tokens.

        Raises:
            UserError: the tokenizer has no mask token, or does not show where the whole words asked for begin.
        """
        if tokenizer.mask_token_id is None:
            raise UserError("task masked_lm needs a tokenizer with a mask token; this one has none")
        self._mask_id = int(tokenizer.mask_token_id)
        self._masking = masking
        self._seed = seed
        special = {i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id}
        size = len(tokenizer)
        self._may_be_target = np.ones(size, dtype=bool)
        self._may_be_target[sorted(special)] = False
        # An unknown token can be a target, but is not shown in place of another.
        self._others = np.flatnonzero(self._may_be_target & (np.arange(size) != tokenizer.unk_token_id))
        self._starts_word = _word_starts(tokenizer) if masking.whole_words else np.ones(size, dtype=bool)
        self._starts_word[sorted(special)] = True

    def encode(self, columns: Mapping[str, Sequence[Any]], rows: Sequence[int], epoch: int) -> dict[str, Any]:
        """`columns` (input_ids and others) of `rows` -> the same with tokens hidden, and `label` with the targets."""
        drawn = [self._mask(np.asarray(columns["input_ids"][i]), row, epoch) for i, row in enumerate(rows)]
        return {**columns, "input_ids": [ids for ids, _ in drawn], "label": [labels for _, labels in drawn]}

    def _mask(self, ids: NDArray[np.int64], row: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids (length,) -> (ids as they are shown, targets or `IGNORED_LABEL`)."""
        generator = np.random.default_rng([self._seed, epoch, row])
        words = np.cumsum(self._starts_word[ids])
        chances = generator.random(len(ids) + 1)[words]  # one number for all tokens of a word
        chances[~self._may_be_target[ids]] = np.inf
        # A row without a target would be read for nothing; one target at least.
        limit = max(self._masking.rate, float(np.nextafter(chances.min(initial=np.inf), np.inf)))
        targets = chances < (limit if np.isfinite(limit) else 0.0)
        labels = np.where(targets, ids, IGNORED_LABEL)
        shown = ids.copy()
        how = generator.random(len(ids))
        shown[targets & (how < _SHOWN_AS_MASK)] = self._mask_id
        other = targets & (how >= 1 - _SHOWN_AS_OTHER)
        shown[other] = generator.choice(self._others, size=int(other.sum()))
        return shown, labels

    def hide(self, encoded: datasets.Dataset) -> datasets.Dataset:
        """Encoded rows with tokens hidden once and for all, to be scored: equal seeds hide equal tokens."""

        def mask(batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
            return self.encode(batch, rows, epoch=0)

        return encoded.map(mask, batched=True, with_indices=True, load_from_cache_file=False)


def _kind(tokenizer: PreTrainedTokenizerBase) -> Literal["wordpiece", "metaspace", "bytes", "other"]:
    """How tokens are spelt: `##` goes on with a word, `▁` begins one, or `Ġ` does and letters stand for bytes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {"model": {}}
    if rules["model"].get("type") == "WordPiece":
        return "wordpiece"
    steps = json.dumps([rules.get("pre_tokenizer"), rules.get("decoder")])
    if '"ByteLevel"' in steps:
        return "bytes"
    return "metaspace" if '"Metaspace"' in steps else "other"


def _word_starts(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.bool_]:
    kind = _kind(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    if kind == "wordpiece":
        return np.array([not token.startswith(_WORD_CONTINUES) for token in tokens])
    starts = {"metaspace": "▁", "bytes": "Ġ"}.get(kind)
    # Where each token is a character or a word, the mark shows nothing.
    if starts is None or not any(token.startswith(starts) and len(token) > 1 for token in tokens):
        raise UserError("masking.whole_words: this tokenizer's tokens do not show where a word begins; set it to false")
    return np.array([token.startswith(starts) for token in tokens])


def bytes_of_tokens(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int64]:
    """The UTF-8 bytes of text that each token stands for, (vocabulary,), the space before a word among them.

    Special tokens stand for none; nor, by its id alone, does the unknown token: bits per byte come out a little high.
    """
    kind = _kind(tokenizer)

    def count(token: str) -> int:
        if kind == "bytes":
            return len(token)  # a character for each byte
        if kind == "wordpiece":
            word = token.removeprefix(_WORD_CONTINUES)
            return len(word.encode()) + (word == token)
        if _ONE_BYTE.fullmatch(token):
            return 1
        return len(token.replace("▁", " ").encode())

    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    sizes = np.array([count(token) for token in tokens], dtype=np.int64)
    sizes[sorted(tokenizer.all_special_ids)] = 0
    return sizes
