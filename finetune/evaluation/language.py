"""The formulas of language-model metrics, for one set of rows or a whole bootstrap of them.

Loss per token depends on how a tokenizer cuts the text. Bits per byte divides by the text that the predicted tokens
stand for; where tokens are hidden one by one, it still depends on the tokenizer, whose other tokens are shown.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SUMS = ("nats", "correct", "tokens", "bytes")
"""What is known of a row: sums over its predicted tokens, in the order of the last axis below."""


def loss(sums: Floats) -> Floats:
    """Nats per predicted token, of sums (..., 4)."""
    return _share(sums[..., 0], sums[..., 2])


def masked_accuracy(sums: Floats) -> Floats:
    """The share of predicted tokens that were the most probable one, of sums (..., 4)."""
    return _share(sums[..., 1], sums[..., 2])


def bits_per_byte(sums: Floats) -> Floats:
    """Bits per byte of the predicted tokens' text, of sums (..., 4)."""
    return _share(sums[..., 0] / np.log(2), sums[..., 3])


def _share(sums: Floats, of: Floats) -> Floats:
    """A quotient, NaN where nothing was to be predicted."""
    return np.divide(sums, of, out=np.full_like(sums, np.nan), where=of > 0)


METRICS: dict[str, Callable[[Floats], Floats]] = {
    "loss": loss,
    "masked_accuracy": masked_accuracy,
    "bits_per_byte": bits_per_byte,
}
