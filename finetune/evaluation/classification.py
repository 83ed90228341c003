"""The formulas of classification metrics on confusion matrices, for one matrix or a whole bootstrap of them.

A confusion matrix has references as rows and predictions as columns, (..., labels, labels). What a metric is undefined
for (a label that is never predicted has no precision) counts as zero, as in scikit-learn's `zero_division=0`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def confusion(references: ArrayLike, predictions: ArrayLike, label_count: int) -> NDArray[np.int64]:
    """Counts (labels, labels) of label ids (n,) and (n,)."""
    cells = np.asarray(references, dtype=np.int64) * label_count + np.asarray(predictions, dtype=np.int64)
    return np.bincount(cells, minlength=label_count**2).reshape(label_count, label_count)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)


def _parts(matrix: NDArray[np.number]) -> tuple[Floats, Floats, Floats]:
    """Hits, support (row sums) and predicted counts (column sums), each (..., labels)."""
    counts = matrix.astype(np.float64)
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)


def accuracy(matrix: NDArray[np.number]) -> Floats:
    hits, support, _ = _parts(matrix)
    return _ratio(hits.sum(-1), support.sum(-1))


def precision(matrix: NDArray[np.number]) -> Floats:
    """Per label, (..., labels)."""
    hits, _, predicted = _parts(matrix)
    return _ratio(hits, predicted)


def recall(matrix: NDArray[np.number]) -> Floats:
    """Per label, (..., labels)."""
    hits, support, _ = _parts(matrix)
    return _ratio(hits, support)


def f1(matrix: NDArray[np.number]) -> Floats:
    """Per label, (..., labels): the harmonic mean of precision and recall."""
    hits, support, predicted = _parts(matrix)
    return _ratio(2 * hits, support + predicted)


def macro_f1(matrix: NDArray[np.number]) -> Floats:
    """The mean of F1 over the labels that occur, as references or as predictions."""
    _, support, predicted = _parts(matrix)
    present = (support + predicted) > 0
    return _ratio(np.where(present, f1(matrix), 0.0).sum(-1), present.sum(-1).astype(np.float64))


def weighted_f1(matrix: NDArray[np.number]) -> Floats:
    """The mean of F1 over labels, weighted by how often each is the reference."""
    _, support, _ = _parts(matrix)
    return _ratio((f1(matrix) * support).sum(-1), support.sum(-1))


def matthews_correlation(matrix: NDArray[np.number]) -> Floats:
    """Matthews' correlation for any number of labels (Gorodkin 2004, R_K); 0 where one side is constant."""
    hits, support, predicted = _parts(matrix)
    total = support.sum(-1)
    covariance = hits.sum(-1) * total - (support * predicted).sum(-1)
    spread_predicted = total**2 - (predicted**2).sum(-1)
    spread_support = total**2 - (support**2).sum(-1)
    return _ratio(covariance, np.sqrt(spread_predicted * spread_support))


class RankedScores:
    """Scores of rows, ranked once, so that the area under the ROC curve of many reweightings is cheap."""

    def __init__(self, scores: ArrayLike, positive: ArrayLike) -> None:
        """`scores` (n,) and whether each row is positive, (n,)."""
        values = np.asarray(scores, dtype=np.float64)
        self.order = np.argsort(values, kind="stable")
        ranked = values[self.order]
        self.ties = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        self.positive = np.asarray(positive, dtype=bool)[self.order]

    def area(self, weights: NDArray[np.number] | None = None) -> float:
        """The chance that a positive row scores above a negative one, ties counting half; NaN without both kinds."""
        weight = np.ones(len(self.order)) if weights is None else weights[self.order].astype(np.float64)
        positive = np.add.reduceat(weight * self.positive, self.ties)
        negative = np.add.reduceat(weight * ~self.positive, self.ties)
        below = np.cumsum(negative) - negative
        pairs = positive.sum() * negative.sum()
        return float((positive * (below + negative / 2)).sum() / pairs) if pairs > 0 else float("nan")


def ranked_scores(scores: Floats, references: NDArray[np.int64]) -> list[RankedScores]:
    """Probabilities (n, labels) ranked for `mean_area`: the second of two labels, or each of more against the rest."""
    labels = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    return [RankedScores(scores[:, label], references == label) for label in labels]


def mean_area(ranked: list[RankedScores], weights: NDArray[np.number] | None = None) -> float:
    """The mean area under the ROC curves; NaN where one of them is undefined."""
    return float(np.mean([scores.area(weights) for scores in ranked]))
