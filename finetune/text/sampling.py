"""Subword sampling: in training, a text's segmentation is drawn anew in every epoch (Kudo 2018, arXiv:1804.10959).

KoBERT's authors recommend it for robustness to spacing. A segmentation is drawn with the probability that the Unigram
gives it to the power of alpha, as SentencePiece does. SentencePiece's own draws cannot be repeated in another process,
even with its generator seeded; here each is a function of the seed, the epoch and the row alone, so that a resumed run,
or one with more processes, draws the same.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer, models
from transformers import PreTrainedTokenizerBase

from finetune.errors import UserError

_UNKNOWN_PENALTY = 10.0
"""An unknown character is this much less likely than the rarest piece, in SentencePiece and in `tokenizers`."""

_Arrival = tuple[int, float, bool]
"""A last piece: its start, the log of the weight of all segmentations that end in it, and whether it is known."""


class Lattice:
    """All segmentations of texts into the pieces of a Unigram, each with its weight."""

    def __init__(self, scores: Mapping[str, float], alpha: float) -> None:
        """`scores` are log probabilities by piece; weights are probabilities to the power of `alpha`."""
        self._weights = {piece: alpha * score for piece, score in scores.items()}
        self._unknown = alpha * (min(scores.values()) - _UNKNOWN_PENALTY)
        self._longest = max(map(len, scores))

    def draw(self, text: str, generator: np.random.Generator) -> list[str]:
        """One segmentation of `text`: forward filtering, backward sampling (Scott 2002, section 2).

        A run of unknown characters is one piece.
        """
        arrivals, totals = self._forward(text)
        chances = iter(generator.random(len(text)))
        pieces: list[str] = []
        known: list[bool] = []
        end = len(text)
        while end > 0:
            start, is_known = _choose(arrivals[end], totals[end], next(chances))
            if not is_known and known and not known[-1]:
                pieces[-1] = text[start:end] + pieces[-1]
            else:
                pieces.append(text[start:end])
                known.append(is_known)
            end = start
        return pieces[::-1]

    def _forward(self, text: str) -> tuple[list[list[_Arrival]], list[float]]:
        """The last pieces before each end, and the log of the weight of all segmentations up to there."""
        length = len(text)
        arrivals: list[list[_Arrival]] = [[] for _ in range(length + 1)]
        totals = [0.0] * (length + 1)
        for start in range(length):
            if start > 0:
                totals[start] = _log_sum_exp([weight for _, weight, _ in arrivals[start]])
            before = totals[start]
            for end in range(start + 1, min(start + self._longest, length) + 1):
                weight = self._weights.get(text[start:end])
                if weight is not None:
                    arrivals[end].append((start, before + weight, True))
                elif end == start + 1:
                    arrivals[end].append((start, before + self._unknown, False))
        totals[length] = _log_sum_exp([weight for _, weight, _ in arrivals[length]]) if length else 0.0
        return arrivals, totals


def _choose(arrivals: Sequence[_Arrival], total: float, chance: float) -> tuple[int, bool]:
    """Start and known of one of the last pieces, drawn by its share of the total."""
    for start, weight, is_known in arrivals:
        chance -= math.exp(weight - total)
        if chance < 0:
            return start, is_known
    return arrivals[-1][0], arrivals[-1][2]  # rounding left a rest


def _log_sum_exp(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))


class SubwordSampler:
    """Encodes training rows with segmentations drawn by chance; made from a tokenizer that is a Unigram."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, alpha: float, seed: int, max_length: int) -> None:
        """Segmentations get their probability to the power of `alpha`: 1 is the model's own, near 0 all are alike.

        Raises:
            UserError: the tokenizer is no Unigram.
        """
        unigram = unigram_of(tokenizer)
        vocabulary: list[tuple[str, float]] = unigram["vocab"]
        special = {vocabulary[unigram["unk_id"]][0], *tokenizer.all_special_tokens}
        self._lattice = Lattice({piece: score for piece, score in vocabulary if piece not in special}, alpha)
        self._seed = seed
        self._names = tokenizer.model_input_names
        self._plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        added = [re.escape(token) for token in tokenizer.get_added_vocab()]
        self._added = re.compile("|".join(added)) if added else None
        # From drawn pieces to a row as any other: special tokens, token types and truncation are the tokenizer's own.
        ids = {piece: number for number, (piece, _) in enumerate(vocabulary)}
        self._assembler = Tokenizer(models.WordLevel(ids, unk_token=vocabulary[unigram["unk_id"]][0]))
        self._assembler.post_processor = self._plain.post_processor
        for backend in (self._plain, self._assembler):
            backend.no_padding()
            backend.enable_truncation(max_length, direction=tokenizer.truncation_side)

    def encode(self, columns: Mapping[str, Sequence[Any]], rows: Sequence[int], epoch: int) -> dict[str, Any]:
        """`columns` (text, perhaps text_pair, label) of `rows` -> what `tasks.encode` gives of them, with new ids."""
        names = [name for name in ("text", "text_pair") if name in columns]
        # Row by row: the library encodes a batch in threads, which do not live on in a data loader's forked workers.
        encoded = [self._encode([columns[name][i] for name in names], row, epoch) for i, row in enumerate(rows)]
        found = {"input_ids": [encoding.ids for encoding in encoded]}
        if "token_type_ids" in self._names:
            found["token_type_ids"] = [encoding.type_ids for encoding in encoded]
        return {**{name: columns[name] for name in columns if name not in names}, **found}

    def _encode(self, texts: Sequence[str], row: int, epoch: int) -> Encoding:
        if self._added is not None and any(map(self._added.search, texts)):
            # Added tokens, and special ones in the text, are found before anything is cut: those few rows as they are.
            return self._plain.encode(texts[0], texts[1] if len(texts) == 2 else None)
        generator = np.random.default_rng([self._seed, epoch, row, 1])  # masks draw from the stream without the 1
        first, *second = [
            [piece for word in self._words(text) for piece in self._lattice.draw(word, generator)] for text in texts
        ]
        return self._assembler.encode(first, second[0] if second else None, is_pretokenized=True)

    def _words(self, text: str) -> list[str]:
        """What the tokenizer's model sees of a text: normalised, with spaces as ▁, cut where no piece may cross."""
        normalizer, pre_tokenizer = self._plain.normalizer, self._plain.pre_tokenizer
        normal = normalizer.normalize_str(text) if normalizer is not None else text
        return [word for word, _ in pre_tokenizer.pre_tokenize_str(normal)] if pre_tokenizer is not None else [normal]


def unigram_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A tokenizer's Unigram model as it is saved: `vocab` with (piece, log probability) by id, and `unk_id`.

    Raises:
        UserError: the tokenizer is no Unigram, or one that spells unknown characters in bytes.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model: dict[str, Any] = json.loads(backend.to_str())["model"] if backend is not None else {}
    kind = model.get("type", type(tokenizer).__name__)
    if kind != "Unigram":
        raise UserError(f"text.subword_sampling_alpha needs a Unigram tokenizer, such as KoBERT's; this one is {kind}")
    if model.get("byte_fallback") or model.get("unk_id") is None:
        raise UserError("text.subword_sampling_alpha needs a Unigram with an unknown token, without byte fallback")
    return model
