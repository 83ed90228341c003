"""The canary: a tokenizer that reads Korean wrongly is refused when it is loaded, before it can spoil a training.

The special tokens and the size of the vocabulary look right when a checkpoint's tokenizer is read by another class or
with other settings than it was made with, and everything after it runs; only the ids are wrong. What gives such a
tokenizer away is that it does not find the words of its own vocabulary.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetune.errors import UserError

KOBERT_SENTENCE = "한국어 모델을 공유합니다."
KOBERT_IDS = (2, 4958, 6855, 2046, 7088, 1050, 7843, 54, 3)
"""KoBERT's ids of that sentence, as its authors give them (README of SKTBrain/KoBERT)."""

_KOBERT_SIZE = 8002
_KOBERT_VOCABULARY = "a1ee1433464e8bf5bb0708fe15dc344e1b8d612619fc6bdd7a46bd8c6d52ef94"
"""sha256 of its tokens in the order of their ids, a line each."""
_SYLLABLES = re.compile(r"[가-힣]+")
_FEW_WORDS = 20
"""With fewer Hangul words than this in its vocabulary a tokenizer is not made for Korean."""
_SAMPLE = 200
_LOST_LIMIT = 0.1
_OTHER_LIMIT = 0.5
"""Some words have a better segmentation than themselves in a Unigram; most do not."""
_LETTERS = "ㅋㅎㅠㅜ"
_ADVICE = (
    "it was read or saved by another class, or with other settings, than it was made with (lower-casing, for one, "
    "takes Hangul apart)"
)


def is_kobert_vocabulary(vocabulary: Sequence[str]) -> bool:
    """Whether a vocabulary, in the order of its ids, is KoBERT's; tokens added behind it do not matter."""
    return _fingerprint(vocabulary[:_KOBERT_SIZE]) == _KOBERT_VOCABULARY


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer that does not read Korean as its vocabulary was made to.

    Raises:
        UserError: KoBERT's vocabulary without KoBERT's ids, or Hangul words of the vocabulary that come out unknown.
    """
    ids: dict[str, int] = tokenizer.get_vocab()
    vocabulary = sorted(ids, key=lambda token: ids[token])
    if is_kobert_vocabulary(vocabulary):
        _check_kobert(tokenizer, name)
    words = _words(vocabulary)
    if len(words) >= _FEW_WORDS:
        _check_words(tokenizer, name, words, ids)
        _check_letters(tokenizer, name, set(vocabulary))


def _fingerprint(vocabulary: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(vocabulary).encode()).hexdigest()


def _check_kobert(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    found = list(tokenizer(KOBERT_SENTENCE)["input_ids"])
    pair = tokenizer("가", "나")
    if found == list(KOBERT_IDS) and pair.get("token_type_ids", [1])[-1] == 1 and tokenizer.padding_side == "right":
        return
    unknown = found.count(tokenizer.unk_token_id)
    what = (
        f"{KOBERT_SENTENCE!r} becomes {found} ({unknown} of {len(found)} unknown) instead of {list(KOBERT_IDS)}"
        if found != list(KOBERT_IDS)
        else "it pads on the left, or gives a second text the token type of the first"
    )
    raise UserError(
        f"tokenizer {name!r} holds KoBERT's vocabulary but is not KoBERT's tokenizer: {what}; give "
        "text.tokenizer_name_or_path a directory or Hub model with KoBERT's own files (spiece.model as in "
        "skt/kobert-base-v1, or tokenizer_78b3253a26.model and vocab.txt as in monologg/kobert)"
    )


def _words(vocabulary: Sequence[str]) -> dict[str, str]:
    """The tokens that are whole Hangul words, or begin one, each with its text."""
    marked = {
        "▁": {token: token[1:] for token in vocabulary if token.startswith("▁")},
        "</w>": {token: token.removesuffix("</w>") for token in vocabulary if token.endswith("</w>")},
    }
    for words in marked.values():
        # A single ▁ is a character as any other.
        if len(words) > len(vocabulary) / 20:
            return {token: text for token, text in words.items() if _SYLLABLES.fullmatch(text)}
    return {token: token for token in vocabulary if _SYLLABLES.fullmatch(token)}  # WordPiece's others begin with ##


def _check_words(tokenizer: PreTrainedTokenizerBase, name: str, words: dict[str, str], ids: dict[str, int]) -> None:
    tokens = list(words)
    tokens = [tokens[i] for i in np.unique(np.linspace(0, len(tokens) - 1, _SAMPLE).astype(int))]
    encoded = tokenizer([words[token] for token in tokens], add_special_tokens=False)["input_ids"]
    lost = [token for token, row in zip(tokens, encoded, strict=True) if not row or tokenizer.unk_token_id in row]
    other = [token for token, row in zip(tokens, encoded, strict=True) if ids[token] not in row]
    for wrong, limit, how in ((lost, _LOST_LIMIT, "unknown"), (other, _OTHER_LIMIT, "in other pieces")):
        if len(wrong) > limit * len(tokens):
            example = words[wrong[0]]
            pieces = " ".join(tokenizer.tokenize(example))
            raise UserError(
                f"tokenizer {name!r} does not read Korean as its vocabulary was made to: of {len(tokens)} Hangul words "
                f"in that vocabulary {len(wrong)} come out {how} ({example!r} becomes {pieces}); {_ADVICE}"
            )


def _check_letters(tokenizer: PreTrainedTokenizerBase, name: str, vocabulary: set[str]) -> None:
    """ㅋㅋ and ㅠㅠ carry the sentiment of half of all reviews; NFKC turns them into other code points."""
    for letter in _LETTERS:
        forms = {letter, unicodedata.normalize("NFKC", letter)}
        row = tokenizer(letter, add_special_tokens=False)["input_ids"]
        if forms & vocabulary and tokenizer.unk_token_id in row:
            raise UserError(
                f"tokenizer {name!r}: {letter} is in its vocabulary and comes out unknown all the same; {_ADVICE}"
            )
