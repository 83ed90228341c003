"""The formulas of metrics where a row may have several labels, for one set of rows or a whole bootstrap of them.

All but the average precision are of counts: per label of rows that have it and get it, and of means over the rows. They
equal scikit-learn's on indicator matrices. What a metric is undefined for (a label that no row has or gets) counts as
zero, as in scikit-learn's `zero_division=0`; but a row without labels that gets none is right, and its F1 is 1.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]
PER_ROW = ("samples_f1", "subset_accuracy", "hamming_loss")
"""Metrics that are means over the rows, in the order in which `row_counts` has them."""


def row_counts(predicted: Bits, references: Bits) -> Floats:
    """Per row what all metrics here are made of, (n, 3 * labels + 3), of (n, labels) and (n, labels).

    Whether it rightly gets each label, whether it has it, and whether it gets it; then its F1, whether all of its
    labels are right, and the share of labels that are wrong.
    """
    hits = predicted & references
    sizes = references.sum(axis=1) + predicted.sum(axis=1)
    f1 = np.where(sizes > 0, 2 * hits.sum(axis=1) / np.maximum(sizes, 1), 1.0)
    wrong = (predicted != references).mean(axis=1)
    return np.concatenate([hits, references, predicted, np.stack([f1, wrong == 0, wrong], axis=1)], axis=1, dtype=float)


def _parts(means: Floats) -> tuple[Floats, Floats, Floats]:
    """Hits, support and predicted, as shares of the rows, each (..., labels)."""
    labels = (means.shape[-1] - len(PER_ROW)) // 3
    return means[..., :labels], means[..., labels : 2 * labels], means[..., 2 * labels : 3 * labels]


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)


def precision(means: Floats) -> Floats:
    """Per label, (..., labels), of mean `row_counts` (..., 3 * labels + 3), as all functions here."""
    hits, _, predicted = _parts(means)
    return _ratio(hits, predicted)


def recall(means: Floats) -> Floats:
    """Per label, (..., labels)."""
    hits, support, _ = _parts(means)
    return _ratio(hits, support)


def f1(means: Floats) -> Floats:
    """Per label, (..., labels): the harmonic mean of precision and recall."""
    hits, support, predicted = _parts(means)
    return _ratio(2 * hits, support + predicted)


def macro_f1(means: Floats) -> Floats:
    """The mean of F1 over all labels."""
    return f1(means).mean(axis=-1)


def micro_f1(means: Floats) -> Floats:
    """F1 of all decisions, whichever label they are on."""
    hits, support, predicted = (part.sum(axis=-1) for part in _parts(means))
    return _ratio(2 * hits, support + predicted)


def metrics_of(means: Floats) -> dict[str, Floats]:
    """All metrics of the counts that are one number, (...), of mean `row_counts`."""
    of_rows = {name: means[..., number - len(PER_ROW)] for number, name in enumerate(PER_ROW)}
    return {"micro_f1": micro_f1(means), "macro_f1": macro_f1(means), **of_rows}


class RankedLabel:
    """Rows ranked once by their score for a label, so that the average precision of many reweightings is cheap."""

    def __init__(self, scores: ArrayLike, positive: ArrayLike) -> None:
        """`scores` (n,) and whether each row has the label, (n,)."""
        values = np.asarray(scores, dtype=np.float64)
        self.order = np.argsort(-values, kind="stable")
        ranked = values[self.order]
        self.ends = np.flatnonzero(np.concatenate([ranked[1:] != ranked[:-1], [True]]))
        self.positive = np.asarray(positive, dtype=bool)[self.order]

    def average_precision(self, weights: NDArray[np.number] | None = None) -> float:
        """The precision at each score, weighted by the rise in recall (scikit-learn's); NaN where no row has it."""
        weight = np.ones(len(self.order)) if weights is None else weights[self.order].astype(np.float64)
        found = np.cumsum(weight * self.positive)[self.ends]
        if found[-1] == 0:
            return float("nan")
        taken = np.cumsum(weight)[self.ends]
        rises = np.diff(found, prepend=0.0)
        return float((rises * _ratio(found, taken)).sum() / found[-1])


def mean_average_precision(ranked: list[RankedLabel], weights: NDArray[np.number] | None = None) -> float:
    """The mean over the labels; NaN where it is undefined for one of them."""
    return float(np.mean([label.average_precision(weights) for label in ranked]))


def losses(probabilities: Floats, references: Bits) -> Floats:
    """Per row the binary cross-entropy, as a mean over its labels, (n,), in nats."""
    right = np.where(references, probabilities, 1 - probabilities)
    # A probability of 1 that is wrong: what is left of it in float64.
    return -np.log(np.maximum(right, np.finfo(np.float64).eps / 2)).mean(axis=1)
