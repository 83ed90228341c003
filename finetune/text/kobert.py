"""KoBERT's tokenizer as a fast one: the ids of the original from either published layout, saved as plain JSON.

KoBERT publishes a SentencePiece model and ids of its own, in two layouts, and wrapper classes that current
transformers cannot construct or cannot save. What is built here from those files needs no wrapper: it is a Unigram of
`tokenizers` that lists the pieces in the order of KoBERT's ids, behind the preprocessing of the original
(`KoBERTTokenizer` of SKTBrain/KoBERT): white space is collapsed, the two quote digraphs become quote marks, and the
text is decomposed (NFKD) and rid of combining marks before SentencePiece's own character map.
"""

import json
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from finetune.errors import UserError
from finetune.text.vocabulary import SPECIAL_TOKENS

OWN_LAYOUT = ("spiece.model",)
"""`skt/kobert-base-v1`: one SentencePiece model that holds the special tokens too, in the order of the ids."""
SPLIT_LAYOUT = ("tokenizer_78b3253a26.model", "vocab.txt", "kobertvocab_f38b8a4d6d.json")
"""`monologg/kobert`, `monologg/distilkobert` and the first release: a model with ids of its own, and a vocabulary."""
FILES = (*OWN_LAYOUT, *SPLIT_LAYOUT)

_MAX_LENGTH = 512
_LIKE_FLOAT32 = 1 + 2**-29
"""SentencePiece adds log probabilities in float32, and rounding decides between orders of the same pieces (`...` `.` or
`.` `...`). Scores scaled by this carry the float32 sum in the low bits of the float64 sum, where it rounds likewise: 53
bits less 24 are 29."""


@dataclass(frozen=True)
class _Pieces:
    """The vocabulary in the order of KoBERT's ids, with SentencePiece's log probabilities and its character map."""

    scores: list[tuple[str, float]]
    character_map: bytes


def is_kobert(directory: Path) -> bool:
    """Whether a directory holds a tokenizer in one of KoBERT's two layouts.

    Raises:
        UserError: it holds a `spiece.model` that is none.
    """
    if (directory / SPLIT_LAYOUT[0]).is_file():
        return True
    own = directory / OWN_LAYOUT[0]
    # XLNet and ALBERT publish a file of the same name, but other special tokens.
    return own.is_file() and _begins_with_specials([piece.piece for piece in _read_model(own).pieces])


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """KoBERT's tokenizer from a directory with its files in either layout.

    It saves and loads as any fast tokenizer does, through `AutoTokenizer` and with no code of this project.

    Raises:
        UserError: a file is missing or damaged, or the model and the vocabulary do not belong together.
    """
    split = directory / SPLIT_LAYOUT[0]
    pieces = _read_split_layout(split) if split.is_file() else _read_own_layout(directory / OWN_LAYOUT[0])
    return _build(pieces)


def _begins_with_specials(vocabulary: Sequence[str]) -> bool:
    return list(vocabulary[: len(SPECIAL_TOKENS)]) == list(SPECIAL_TOKENS.values())


def _read_model(file: Path) -> Any:
    """The `ModelProto` of a SentencePiece model."""
    # Here and not above: with a protobuf older than SentencePiece's the import fails, and few models need it.
    from google.protobuf.message import DecodeError
    from google.protobuf.runtime_version import VersionError

    try:
        from sentencepiece import sentencepiece_model_pb2
    except VersionError as error:
        raise UserError(f"{file}: cannot be read; pip install --upgrade protobuf ({error})") from None
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{file.parent}: none of KoBERT's tokenizer files is there ({OWN_LAYOUT[0]})") from None
    except DecodeError:
        raise UserError(f"{file}: not a SentencePiece model, or damaged; download it again") from None
    if not model.pieces:
        # A pointer file of Git LFS parses as an empty model on occasion.
        raise UserError(f"{file}: no pieces in it; download it again")
    return model


def _read_own_layout(file: Path) -> _Pieces:
    model = _read_model(file)
    if not _begins_with_specials([piece.piece for piece in model.pieces]):
        raise UserError(f"{file}: does not begin with {' '.join(SPECIAL_TOKENS.values())}, so it is not KoBERT's")
    return _Pieces([(piece.piece, piece.score) for piece in model.pieces], _character_map(model, file))


def _read_split_layout(file: Path) -> _Pieces:
    model = _read_model(file)
    vocabulary_file = next((file.parent / name for name in SPLIT_LAYOUT[1:] if (file.parent / name).is_file()), None)
    if vocabulary_file is None:
        raise UserError(
            f"{file} has ids of its own, and KoBERT's stand in a vocabulary that is not beside it; "
            f"put {' or '.join(SPLIT_LAYOUT[1:])} there"
        )
    vocabulary = _read_vocabulary(vocabulary_file)
    scores = {piece.piece: piece.score for piece in model.pieces}
    strange = [token for token in vocabulary if token not in scores and token not in SPECIAL_TOKENS.values()]
    if not _begins_with_specials(vocabulary) or strange or len(set(vocabulary)) != len(vocabulary):
        why = f"{strange[0]!r} is no piece of it" if strange else "its special tokens are not KoBERT's"
        raise UserError(f"{vocabulary_file} does not belong to {file.name}: {why}; take both from one place")
    return _Pieces([(token, scores.get(token, 0.0)) for token in vocabulary], _character_map(model, file))


def _character_map(model: Any, file: Path) -> bytes:
    if not model.normalizer_spec.precompiled_charsmap:
        raise UserError(f"{file}: no character map in it, so it is not KoBERT's; download it again")
    return model.normalizer_spec.precompiled_charsmap


def _read_vocabulary(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
        tokens = json.loads(text)["idx_to_token"] if file.suffix == ".json" else text.removesuffix("\n").split("\n")
        return list(map(str, tokens))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{file}: not a vocabulary of KoBERT's, or damaged; download it again") from None


@cache
def _combining_characters() -> str:
    """A regular expression for the characters that `unicodedata.combining` names."""
    codes = [code for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code))]
    starts = [code for code, before in zip(codes, [-1, *codes[:-1]], strict=True) if code != before + 1]
    ends = [code for code, after in zip(codes, [*codes[1:], -1], strict=True) if code != after - 1]
    return f"[{''.join(f'{chr(start)}-{chr(end)}' for start, end in zip(starts, ends, strict=True))}]"


def _build(pieces: _Pieces) -> PreTrainedTokenizerFast:
    _, _, begin, end, _ = SPECIAL_TOKENS.values()
    scores = [(piece, score * _LIKE_FLOAT32) for piece, score in pieces.scores]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            # What Python's str.split() splits at: \s of the Regex lacks the four separators of ASCII.
            normalizers.Replace(Regex(r"[\s\x1c-\x1f]+"), " "),
            normalizers.Strip(),
            normalizers.Replace("``", '"'),
            normalizers.Replace("''", '"'),
            normalizers.NFKD(),
            # Not StripAccents: it also removes marks of combining class 0, such as an emoji's variation selector.
            normalizers.Replace(Regex(_combining_characters()), ""),
            # SentencePiece's map also composes jamo to syllables, but here it sees one grapheme at a time.
            normalizers.NFC(),
            normalizers.Precompiled(pieces.character_map),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    # Not split into words: the sums, and so their rounding, run over the whole text.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin}:0 $A:0 {end}:0",
        pair=f"{begin}:0 $A:0 {end}:0 $B:1 {end}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )
    # Reading its JSON shifts some scores by their last bit, once; so shifted, they stay the same whenever it is saved.
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=_MAX_LENGTH,
        padding_side="right",
        truncation_side="right",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL_TOKENS,
    )
