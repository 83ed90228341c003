"""The formulas of metrics for texts that were written: how varied they are, and how near to references.

Korean has no tokenizer here to lean on, and the usual ones see nothing in it: ROUGE's drops every Hangul letter. For
comparing with a reference a text is cut into units: each Hangul syllable and each Han or Kana character by itself, and
runs of other letters and digits, in lower case. Variety is counted in words as spaces part them.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

_UNITS = re.compile(r"[ㄱ-ㅎㅏ-ㅣ가-힣一-鿿㐀-䶿぀-ヿ]|[^\W_ㄱ-ㅎㅏ-ㅣ가-힣一-鿿㐀-䶿぀-ヿ]+")
_BLEU_ORDER = 4
_DRAWS = 1000
"""Of rows, for an interval."""
_SELF_BLEU_REFERENCES = 200
"""Each text is held against so many others at most; more change the mean little and take their number squared."""


def units(text: str) -> list[str]:
    """What a text is compared by: syllables and characters of East Asian scripts, words of others."""
    return _UNITS.findall(text.lower())


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` words, in their order."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def distinct(texts: Sequence[str], n: int) -> float | None:
    """The share of different n-grams among all of the texts (Li et al. 2016, arXiv:1510.03055); None without any."""
    every = [gram for text in texts for gram in ngrams(text.split(), n)]
    return len(set(every)) / len(every) if every else None


def repetition(texts: Sequence[str], n: int) -> float | None:
    """The share of n-grams that their own text has had before, averaged over the texts (seq-rep-n, arXiv:1908.04319).

    Texts too short for an n-gram are left out; None where all are.
    """
    shares = [1 - len(set(grams)) / len(grams) for text in texts if (grams := ngrams(text.split(), n))]
    return float(np.mean(shares)) if shares else None


def self_bleu(texts: Sequence[str]) -> float | None:
    """BLEU of each text against the others, averaged, 0 to 100 (Zhu et al. 2018, arXiv:1802.01886); low is varied."""
    if len(texts) < 2:
        return None
    cut = [" ".join(units(text)) for text in texts]
    metric = BLEU(tokenize="none", effective_order=True, force=True)
    scores = []
    for number, text in enumerate(cut):
        others = [*cut[:number], *cut[number + 1 :]][:_SELF_BLEU_REFERENCES]
        scores.append(metric.sentence_score(text, others).score)
    return float(np.mean(scores))


def bleu(texts: Sequence[str], references: Sequence[str]) -> float | None:
    """Corpus BLEU over units, 0 to 100 (Papineni et al. 2002; sacreBLEU, Post 2018).

    None where no reference has the four units that its longest n-gram takes: it would be 0 whatever is written.
    """
    score = _bleu(texts, references)
    return None if score is None else float(score.score)


def _bleu(texts: Sequence[str], references: Sequence[str], **options: Any) -> Any:
    wanted = [units(reference) for reference in references]
    if max(map(len, wanted), default=0) < _BLEU_ORDER:
        return None
    metric = BLEU(tokenize="none", force=True, max_ngram_order=_BLEU_ORDER)
    cut = [" ".join(units(text)) for text in texts]
    return metric.corpus_score(cut, [[" ".join(of_row) for of_row in wanted]], **options)


def chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF, 0 to 100: F2 over runs of up to six characters (Popović 2015; sacreBLEU)."""
    return float(CHRF().corpus_score(list(texts), [list(references)]).score)


def exact_matches(texts: Sequence[str], references: Sequence[str]) -> NDArray[np.bool_]:
    """Which texts are equal to their references, white space at the ends aside, (texts,)."""
    return np.array([text.strip() == wanted.strip() for text, wanted in zip(texts, references, strict=True)])


def bleu_interval(texts: Sequence[str], references: Sequence[str]) -> tuple[float, float] | None:
    """95 % of what `bleu` comes to when the rows are drawn anew, by sacreBLEU's own bootstrap; None where it is."""
    score = _bleu(texts, references, n_bootstrap=_DRAWS)
    return None if score is None else _ends(score)


def chrf_interval(texts: Sequence[str], references: Sequence[str]) -> tuple[float, float]:
    """95 % of what `chrf` comes to when the rows are drawn anew, by sacreBLEU's own bootstrap."""
    return _ends(CHRF().corpus_score(list(texts), [list(references)], n_bootstrap=_DRAWS))


def _ends(score: Any) -> tuple[float, float]:
    # Where sacreBLEU keeps what it prints.
    return float(score._mean - score._ci), float(score._mean + score._ci)


def rouge(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, -2 and -L over units as F1, 0 to 1, averaged over the texts (Lin 2004)."""
    scores: dict[str, list[float]] = {"rouge1": [], "rouge2": [], "rougeL": []}
    for text, reference in zip(texts, references, strict=True):
        found, wanted = units(text), units(reference)
        for n in (1, 2):
            shared = (Counter(ngrams(found, n)) & Counter(ngrams(wanted, n))).total()
            scores[f"rouge{n}"].append(_f1(shared, len(found) - n + 1, len(wanted) - n + 1))
        scores["rougeL"].append(_f1(_longest_common(found, wanted), len(found), len(wanted)))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _f1(shared: int, found: int, wanted: int) -> float:
    return 2 * shared / (found + wanted) if shared else 0.0


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest subsequence of both, row by row of the usual table."""
    before = [0] * (len(other) + 1)
    for left in one:
        row = [0]
        for j, right in enumerate(other):
            row.append(before[j] + 1 if left == right else max(before[j + 1], row[j]))
        before = row
    return before[-1]
