"""The formulas of language-model metrics, for one set of rows or a whole bootstrap of them.

Loss per token depends on how a tokenizer cuts the text; bits per byte compares models with different tokenizers, here
over the bytes of the predicted tokens.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SUMS = ("nats", "correct", "tokens", "bytes")
"""What is known of a row: sums over its predicted tokens, in the order of the last axis below."""


def loss(sums: Floats) -> Floats:
    """Nats per predicted token, of sums (..., 4)."""
    return sums[..., 0] / np.maximum(sums[..., 2], 1)


def masked_accuracy(sums: Floats) -> Floats:
    """The share of predicted tokens that were the most probable one, of sums (..., 4)."""
    return sums[..., 1] / np.maximum(sums[..., 2], 1)


def bits_per_byte(sums: Floats) -> Floats:
    """Bits per byte of the predicted tokens' text, of sums (..., 4)."""
    return sums[..., 0] / np.log(2) / np.maximum(sums[..., 3], 1)


METRICS: dict[str, Callable[[Floats], Floats]] = {
    "loss": loss,
    "masked_accuracy": masked_accuracy,
    "bits_per_byte": bits_per_byte,
}
