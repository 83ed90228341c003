"""What word vectors know: the nearest words of frequent ones, and analogies, "man is to woman as king is to queen"."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from finetune.significance import wilson_interval

_SHORTEST, _SHORTEST_HANGUL = 4, 2
"""Letters of a word whose neighbours are shown: the most frequent words of all are shorter, and say little."""
_ANSWERS = 3


@dataclass(frozen=True)
class Words:
    """The whole words among the tokens that have a vector, the most frequent first."""

    texts: list[str]
    token_ids: NDArray[np.int64]
    """(words,)"""
    vectors: NDArray[np.float32]
    """Of length 1, (words, dimensions)."""
    counts: NDArray[np.int64]
    """How often each was seen, (words,)."""
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def _places(self) -> dict[int, int]:
        return {int(token): place for place, token in enumerate(self.token_ids)}

    def places(self, texts: Sequence[str]) -> list[int | None]:
        """Where each text stands among the words; None where it is several tokens, or one without a vector."""
        return [None if token is None else self._places.get(token) for token in _single_tokens(texts, self.tokenizer)]


def whole_words(vectors: NDArray[np.float32], counts: NDArray[np.int64], tokenizer: PreTrainedTokenizerBase) -> Words:
    """The words with a vector, of `vectors` by token, (vocabulary, dimensions), and their `counts`, (vocabulary,).

    A word is a token of letters alone that its text is read as: pieces of longer words are none.
    """
    known = np.flatnonzero(vectors.any(axis=1))
    known = known[np.lexsort((known, -counts[known]))]
    texts = [str(tokenizer.decode([int(token)])).strip() for token in known]
    # A tokenizer may have a token for a word at the very beginning and one for it behind a space, which is the word.
    read = _single_tokens(texts, tokenizer)
    chosen = [i for i, text in enumerate(texts) if text.isalpha() and read[i] == known[i]]
    ids = known[chosen]
    found = vectors[ids]
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    return Words([texts[i] for i in chosen], ids, unit, counts[ids], tokenizer)


def _single_tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int | None]:
    """The token that each text is, as it stands within others or at their beginning; None where it is several."""
    if not texts:
        return []
    spaced, alone = (
        tokenizer(batch, add_special_tokens=False)["input_ids"] for batch in ([f" {text}" for text in texts], [*texts])
    )
    return [next((ids[0] for ids in both if len(ids) == 1), None) for both in zip(spaced, alone, strict=True)]


def nearest_words(words: Words, *, shown: int = 20, neighbours: int = 8) -> list[dict[str, Any]]:
    """The `neighbours` of the `shown` most frequent words by cosine, the nearest first.

    Words of fewer than four letters (in Hangul two) are passed over, and stand among the neighbours only.
    """
    chosen = [i for i, text in enumerate(words.texts) if len(text) >= _shortest(text)][:shown]
    found = []
    for place in chosen:
        cosines = words.vectors @ words.vectors[place]
        order = [int(i) for i in np.argsort(-cosines, kind="stable") if i != place][:neighbours]
        found.append(
            {
                "word": words.texts[place],
                "count": int(words.counts[place]),
                "neighbours": [{"word": words.texts[i], "cosine": round(float(cosines[i]), 4)} for i in order],
            }
        )
    return found


def _shortest(text: str) -> int:
    return _SHORTEST_HANGUL if "가" <= text[0] <= "힣" else _SHORTEST


def language_of(main_scripts: Mapping[str, float]) -> str | None:
    """Which questions suit texts with these shares of main scripts: Korean ones, English ones, or none."""
    languages = (("Hangul", "ko"), ("Latin", "en"))
    return next((language for script, language in languages if main_scripts.get(script, 0.0) > 0.5), None)


def questions_of(language: str) -> list[tuple[str, tuple[str, str, str, str]]]:
    """The analogies of a language as (section, (a, b, c, d)): a is to b as c is to d."""
    file = resources.files("finetune") / "evaluation" / "questions" / f"{language}.txt"
    section, questions = "", []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(":"):
            section = line.removeprefix(":").strip()
        elif line and not line.startswith("#"):
            a, b, c, d = line.split()
            questions.append((section, (a, b, c, d)))
    return questions


def score_analogies(words: Words, language: str | None, confidence_level: float) -> dict[str, Any]:
    """How many analogies of a language come out right, by 3CosAdd, with Wilson's interval (1927) for the share.

    To "a is to b as c is to ?" the answer is the word x other than a, b and c that has the largest
    cos(x, b) - cos(x, a) + cos(x, c) (Mikolov, Yih & Zweig 2013, "Linguistic Regularities in Continuous Space Word
    Representations"; as a sum of cosines Levy & Goldberg 2014, "Linguistic Regularities in Sparse and Explicit Word
    Representations", where it has its name). A question is covered where all four words are single tokens with a
    vector; the others are not asked, and are counted.
    """
    questions = questions_of(language) if language is not None else []
    answers = []
    sections: dict[str, dict[str, int]] = {}
    missing: dict[str, None] = {}
    for section, asked in questions:
        count = sections.setdefault(section, {"questions": 0, "covered": 0, "correct": 0})
        count["questions"] += 1
        places = words.places(asked)
        missing |= {word: None for word, place in zip(asked, places, strict=True) if place is None}
        known = [place for place in places if place is not None]
        if len(known) < len(asked):
            continue
        a, b, c, d = known
        sums = words.vectors @ (words.vectors[b] - words.vectors[a] + words.vectors[c])
        best = [int(i) for i in np.argsort(-sums, kind="stable") if i not in (a, b, c)][:_ANSWERS]
        is_correct = best[:1] == [d]
        count["covered"] += 1
        count["correct"] += is_correct
        answers.append(
            {
                "section": section,
                "question": list(asked[:3]),
                "expected": asked[3],
                "answers": [{"word": words.texts[i], "sum": round(float(sums[i]), 4)} for i in best],
                "correct": is_correct,
            }
        )
    correct = sum(count["correct"] for count in sections.values())
    return {
        "language": language,
        "count": len(questions),
        "covered": len(answers),
        "correct": correct,
        "accuracy": _share(correct, len(answers), confidence_level),
        "confidence_level": confidence_level,
        "sections": sections,
        "answers": answers,
        "not_covered": list(missing),
    }


def _share(correct: int, count: int, confidence_level: float) -> dict[str, float | None]:
    if count == 0:
        return {"value": None, "low": None, "high": None}
    return asdict(wilson_interval(correct, count, confidence_level))


def describe_analogies(entry: Mapping[str, Any]) -> str:
    """One line for a person."""
    if not entry["count"]:
        return "no analogies for this language"
    accuracy, of_all = entry["accuracy"], f"{entry['covered']} of {entry['count']} covered"
    if accuracy["value"] is None:
        return f"analogies: {of_all} by the vocabulary"
    interval = f"[{accuracy['low']:.1%}, {accuracy['high']:.1%}]"
    return f"analogies: {entry['correct']} right, {accuracy['value']:.1%} {interval}, {of_all} by the vocabulary"
