"""Whether a classifier is right as often as it is sure: how far apart the two are, and one number that mends it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Floats = NDArray[np.float64]

BINS = 15
"""Bins of equal width over the confidence, as in Guo et al. 2017."""
_LOWEST, _HIGHEST = 0.05, 20.0
"""A temperature beyond these says that validation has all rows right, or that nothing was learnt."""


def confidences(probabilities: Floats, references: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Of probabilities (n, labels) that of the label given, (n,), and whether that is the reference, (n,): 0 or 1."""
    given = probabilities.argmax(axis=1)
    return probabilities.max(axis=1), (given == references).astype(np.float64)


def calibration_error(confidence: Floats, correct: Floats) -> float:
    """The expected calibration error (Guo et al. 2017, arXiv:1706.04599, equation 3), between 0 and 1.

    Rows fall into bins of equal width by their confidence, (n,); in each the mean confidence is held against the share
    of rows that are right, and bins count by their rows.
    """
    gaps = np.bincount(_bin_of(confidence), confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _bin_of(confidence: Floats) -> NDArray[np.int64]:
    """The bin of each row, from 0: those at an edge belong to the bin below, as a confidence of 1 to the last."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def brier_scores(probabilities: Floats, references: NDArray[np.int64]) -> Floats:
    """Each row's squared distance to the reference, summed over labels (Brier 1950), (n,): 0 at best and 2 at worst."""
    wanted = np.zeros_like(probabilities)
    wanted[np.arange(len(references)), references] = 1
    return ((probabilities - wanted) ** 2).sum(axis=1)


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose confidence lies above `low` and up to `high`: how sure, how often right, how many."""

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


def reliability(probabilities: Floats, references: NDArray[np.int64]) -> list[ReliabilityBin]:
    """The bins that have rows, the least sure first."""
    confidence, correct = confidences(probabilities, references)
    places = _bin_of(confidence)
    found = []
    for place in np.unique(places).tolist():
        rows = places == place
        found.append(
            ReliabilityBin(
                place / BINS,
                (place + 1) / BINS,
                float(confidence[rows].mean()),
                float(correct[rows].mean()),
                int(rows.sum()),
            )
        )
    return found


def errors(probabilities: Floats, references: NDArray[np.int64]) -> dict[str, float]:
    """`ece`, `brier` and `loss` (nats), of probabilities (n, labels)."""
    chosen = probabilities[np.arange(len(references)), references]
    return {
        "ece": calibration_error(*confidences(probabilities, references)),
        "brier": float(brier_scores(probabilities, references).mean()),
        "loss": float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean()),
    }


def fit_temperature(probabilities: Floats, references: NDArray[np.int64]) -> float:
    """The temperature at which the rows' log loss is least (Guo et al. 2017, section 4.2).

    Dividing logits by it changes how sure the classifier is, never which label it gives: above 1 it was too sure. The
    logarithms of softmax's probabilities are logits but for a number that is the same for all labels of a row.
    """
    logits = _logits(probabilities)
    own = np.arange(len(references))

    def log_loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[own, references]).mean())

    bounds = np.log([_LOWEST, _HIGHEST])
    return float(np.exp(minimize_scalar(log_loss, bounds=tuple(bounds), method="bounded").x))


def apply_temperature(probabilities: Floats, temperature: float) -> Floats:
    """The probabilities, (n, labels), that the same logits give at another temperature."""
    scaled = _logits(probabilities) / temperature
    return np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))


def _logits(probabilities: Floats) -> Floats:
    return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))


# --- a neutral band ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NeutralBand:
    """Probabilities of the second of two labels between which neither is given: `low` and `high`.

    On validation `coverage` of the rows lay outside of it, and of those `accuracy` were right.
    """

    low: float
    high: float
    coverage: float
    accuracy: float


def fit_neutral_band(second: Floats, references: NDArray[np.int64], accuracy: float) -> NeutralBand | None:
    """The narrowest band around 0.5 outside of which at least `accuracy` of each label's answers are right.

    Each side is chosen by itself, over the probabilities of the second label, (n,). None where a side has no threshold
    that reaches it.
    """
    low = _threshold(1 - second, references == 0, accuracy)
    high = _threshold(second, references == 1, accuracy)
    if low is None or high is None:
        return None
    outside = (second <= 1 - low) | (second >= high)
    right = ((second >= high) == (references == 1)) & outside
    return NeutralBand(1 - low, high, float(outside.mean()), float(right.sum() / outside.sum()))


def _threshold(score: Floats, is_right: NDArray[np.bool_], accuracy: float) -> float | None:
    """The lowest score, 0.5 or above, from which on at least `accuracy` of the rows are right."""
    order = np.argsort(-score, kind="stable")
    order = order[score[order] >= 0.5]
    if not len(order):
        return None
    share = np.cumsum(is_right[order]) / np.arange(1, len(order) + 1)
    # Rows of one score are taken together.
    ends = np.append(score[order][1:] != score[order][:-1], True)
    reached = np.flatnonzero((share >= accuracy) & ends)
    return float(score[order][reached[-1]]) if len(reached) else None


def coverage_curve(probabilities: Floats, references: NDArray[np.int64]) -> Mapping[str, list[float]]:
    """How often the surest rows are right, by how many are answered (El-Yaniv & Wiener 2010), at every twentieth."""
    confidence, correct = confidences(probabilities, references)
    order = np.argsort(-confidence, kind="stable")
    shares = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    places = [max(1, round(len(order) * part / 20)) for part in range(1, 21)]
    return {
        "coverage": [place / len(order) for place in places],
        "accuracy": [float(shares[place - 1]) for place in places],
    }


def describe_calibration(entry: Mapping[str, Any]) -> str:
    """One line for a person: what the temperature does to the calibration error."""
    return (
        f"temperature {entry['temperature']:.2f} by validation: calibration error {entry['before']['ece']:.1%} before, "
        f"{entry['after']['ece']:.1%} after"
    )
