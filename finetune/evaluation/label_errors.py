"""Rows whose label is likely wrong, by what models that were not trained on them say: confident learning.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70,
arXiv:1911.00068).
"""

import numpy as np
from numpy.typing import NDArray


def confident_thresholds(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """How sure of each label is sure enough, (labels,): the mean probability of it over the rows that bear it.

    Equation 2 of the paper. What a model is too sure or too unsure of, it is so of most rows with the label, and so the
    threshold moves with it. No row is sure enough of a label that none bears.
    """
    return np.array(
        [of.mean() if len(of := probabilities[labels == j, j]) else np.inf for j in range(probabilities.shape[1])]
    )


def confident_labels(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The label that each row likely has, (rows,); -1 where no label is probable enough to say.

    Where several reach their thresholds it is the most probable of them (equation 1, the confident joint).
    """
    is_confident = probabilities >= confident_thresholds(probabilities, labels) - _ROUNDING
    likeliest = np.where(is_confident, probabilities, -1.0).argmax(axis=1)
    return np.where(is_confident.any(axis=1), likeliest, -1)


def likely_label_errors(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the rows that likely have another label than they bear, those first of whose own least is held.

    These are the off-diagonal entries of the confident joint, ordered by self-confidence, the probability of the row's
    own label. `probabilities` are (rows, labels) from models that were not trained on these rows: one that has seen a
    wrong label may know it by heart.
    """
    likely = confident_labels(probabilities, labels)
    places = np.flatnonzero((likely >= 0) & (likely != labels))
    own = probabilities[places, labels[places]]
    return places[np.argsort(own, kind="stable")]


_ROUNDING = 1e-6
"""A mean of equal probabilities may come out above each of them."""
