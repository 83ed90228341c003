"""Subword sampling: in training, a text's segmentation is drawn anew in every epoch (Kudo 2018, arXiv:1804.10959).

Segmentations are drawn by SentencePiece itself, with the probability that its own model gives them to the power of
alpha; KoBERT's authors recommend it for robustness to spacing. Each draw depends on the seed, the epoch and the row
alone, so that a resumed run, or one with more processes, draws the same.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2, set_random_generator_seed
from tokenizers import Encoding, Tokenizer, models
from transformers import PreTrainedTokenizerBase

from finetune.errors import UserError


class SubwordSampler:
    """Encodes training rows with segmentations drawn by chance; made from a tokenizer that is a Unigram."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, alpha: float, seed: int, max_length: int) -> None:
        """Segmentations get their probability to the power of `alpha`: 1 is the model's own, near 0 all are alike.

        Raises:
            UserError: the tokenizer is no Unigram.
        """
        unigram = unigram_of(tokenizer)
        pieces: list[tuple[str, float]] = unigram["vocab"]
        backend: Tokenizer = tokenizer.backend_tokenizer
        self._alpha, self._seed = alpha, seed
        self._names = tokenizer.model_input_names
        self._normalizer, self._pre_tokenizer = backend.normalizer, backend.pre_tokenizer
        self._processor = SentencePieceProcessor(
            model_proto=_model_proto(pieces, unigram["unk_id"], set(tokenizer.all_special_tokens))
        )
        # From drawn pieces to a row as any other: special tokens, token types and truncation are the tokenizer's own.
        vocabulary = {piece: number for number, (piece, _) in enumerate(pieces)}
        self._assembler = Tokenizer(models.WordLevel(vocabulary, unk_token=tokenizer.unk_token))
        self._assembler.post_processor = backend.post_processor
        self._assembler.enable_truncation(max_length, direction=tokenizer.truncation_side)

    def encode(self, columns: Mapping[str, Sequence[Any]], rows: Sequence[int], epoch: int) -> dict[str, Any]:
        """`columns` (text, perhaps text_pair, label) of `rows` -> what `tasks.encode` gives of them, with new ids."""
        names = [name for name in ("text", "text_pair") if name in columns]
        # Row by row: the library encodes a batch in threads, which do not live on in a data loader's forked workers.
        encoded = [
            self._encode([columns[name][i] for name in names], self._draw_seed(row, epoch))
            for i, row in enumerate(rows)
        ]
        found = {"input_ids": [encoding.ids for encoding in encoded]}
        if "token_type_ids" in self._names:
            found["token_type_ids"] = [encoding.type_ids for encoding in encoded]
        return {**{name: columns[name] for name in columns if name not in names}, **found}

    def _draw_seed(self, row: int, epoch: int) -> int:
        return int(np.random.SeedSequence([self._seed, epoch, row]).generate_state(1)[0])

    def _encode(self, texts: Sequence[str], seed: int) -> Encoding:
        set_random_generator_seed(seed)
        first, *second = (
            self._processor.sample_encode_as_pieces(self._prepare(text), nbest_size=-1, alpha=self._alpha)
            for text in texts
        )
        return self._assembler.encode(first, second[0] if second else None, is_pretokenized=True)

    def _prepare(self, text: str) -> str:
        """The text as the tokenizer's model sees it: normalised, with spaces as ▁."""
        normal = self._normalizer.normalize_str(text) if self._normalizer is not None else text
        if self._pre_tokenizer is None:
            return normal
        return "".join(word for word, _ in self._pre_tokenizer.pre_tokenize_str(normal))


def unigram_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A tokenizer's Unigram model as it is saved: `vocab` with (piece, log probability) by id, and `unk_id`.

    Raises:
        UserError: the tokenizer is no Unigram.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model: dict[str, Any] = json.loads(backend.to_str())["model"] if backend is not None else {}
    kind = model.get("type", type(tokenizer).__name__)
    if kind != "Unigram":
        raise UserError(f"text.subword_sampling_alpha needs a Unigram tokenizer, such as KoBERT's; this one is {kind}")
    return model


def _model_proto(pieces: Sequence[tuple[str, float]], unknown: int, special: set[str]) -> bytes:
    """A SentencePiece model of these pieces that does nothing to its text: the tokenizer has done it."""
    proto = sentencepiece_model_pb2.ModelProto()
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
    for number, (text, score) in enumerate(pieces):
        kind = kinds.UNKNOWN if number == unknown else kinds.CONTROL if text in special else kinds.NORMAL
        proto.pieces.add(piece=text, score=score, type=kind)
    specification = proto.trainer_spec
    specification.model_type = sentencepiece_model_pb2.TrainerSpec.UNIGRAM
    specification.vocab_size = len(pieces)
    specification.unk_id, specification.unk_piece = unknown, pieces[unknown][0]
    specification.bos_id = specification.eos_id = specification.pad_id = -1
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
    proto.normalizer_spec.escape_whitespaces = False
    return proto.SerializeToString()
