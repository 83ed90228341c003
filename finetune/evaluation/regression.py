"""The formulas of rating metrics, for one set of rows or a whole bootstrap of them."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_CONSTANT = 1e-12
"""A variance below this, as a share of the mean square, is rounding."""


def pearson(predictions: Floats, references: Floats) -> float | None:
    """Pearson's correlation of (n,) and (n,); None where one side is the same for all rows."""
    value = float(correlation(moments(predictions, references).mean(axis=0)))
    return None if np.isnan(value) else value


def moments(predictions: Floats, references: Floats) -> Floats:
    """Per row what all metrics are means of: p, r, p², r², pr, |p - r|, each about the references' mean, (n, 6)."""
    # About the mean: raw second moments of large, alike numbers cancel.
    p, r = predictions - references.mean(), references - references.mean()
    return np.stack([p, r, p * p, r * r, p * r, np.abs(p - r)], axis=1)


def squared_error(means: Floats) -> Floats:
    """The mean squared error of mean moments (..., 6)."""
    return np.maximum(means[..., 2] - 2 * means[..., 4] + means[..., 3], 0.0)


def absolute_error(means: Floats) -> Floats:
    """The mean absolute error of mean moments (..., 6)."""
    return means[..., 5]


def correlation(means: Floats) -> Floats:
    """Pearson's correlation of mean moments (..., 6); NaN where one side is constant."""
    p, r, pp, rr, pr = (means[..., i] for i in range(5))
    p_variance, r_variance = pp - p * p, rr - r * r
    is_defined = (p_variance > _CONSTANT * np.maximum(pp, 1.0)) & (r_variance > _CONSTANT * np.maximum(rr, 1.0))
    spread = np.sqrt(np.where(is_defined, p_variance * r_variance, 1.0))
    return np.where(is_defined, (pr - p * r) / spread, np.nan)
