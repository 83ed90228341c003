"""The formulas of language-model metrics, for one set of rows or a whole bootstrap of them.

Loss per token, and its exponential, the perplexity, depend on how a tokenizer cuts the text: they compare only between
models of one vocabulary. Bits per byte and per character divide by the text that the predicted tokens stand for. Of
whole documents they are fair to every vocabulary, once text that became unknown tokens is paid for; what a tokenizer
drops without a trace, the case of letters or the spaces between words, is not. Where tokens are hidden one by one, they
still depend on the tokenizer, whose other tokens are shown.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SUMS = ("nats", "correct", "tokens", "bytes", "characters", "unknown_bytes")
"""What is known of a row: sums over its predicted tokens, in the order of the last axis below.

Of masked rows there are the first four. The bytes of text that became unknown tokens are among the bytes."""
_NATS_PER_UNKNOWN_BYTE = np.log(256)
"""An unknown token says nothing of its text, which is charged as if its bytes were spelt out, all equally likely."""


def loss(sums: Floats) -> Floats:
    """Nats per predicted token, of sums (..., 4 or 6)."""
    return _share(sums[..., 0], sums[..., 2])


def perplexity(sums: Floats) -> Floats:
    """The exponential of the loss, of sums (..., 6)."""
    return np.exp(loss(sums))


def token_accuracy(sums: Floats) -> Floats:
    """The share of predicted tokens that were the most probable one, of sums (..., 4 or 6)."""
    return _share(sums[..., 1], sums[..., 2])


def bits_per_byte(sums: Floats) -> Floats:
    """Bits per byte of the predicted tokens' text, of sums (..., 4 or 6)."""
    return _share(_nats_of_text(sums) / np.log(2), sums[..., 3])


def bits_per_character(sums: Floats) -> Floats:
    """Bits per character of the predicted tokens' text, of sums (..., 6)."""
    return _share(_nats_of_text(sums) / np.log(2), sums[..., 4])


def unknown_share(sums: Floats) -> Floats:
    """The share of the text's bytes that became unknown tokens, of sums (..., 6)."""
    return _share(sums[..., 5], sums[..., 3])


def _nats_of_text(sums: Floats) -> Floats:
    return sums[..., 0] if sums.shape[-1] == _MASKED else sums[..., 0] + _NATS_PER_UNKNOWN_BYTE * sums[..., 5]


def _share(sums: Floats, of: Floats) -> Floats:
    """A quotient, NaN where nothing was to be predicted."""
    return np.divide(sums, of, out=np.full_like(sums, np.nan), where=of > 0)


Metrics = dict[str, Callable[[Floats], Floats]]
_MASKED = 4
_MASKED_METRICS: Metrics = {"loss": loss, "masked_accuracy": token_accuracy, "bits_per_byte": bits_per_byte}
_TEXT_METRICS: Metrics = {
    "loss": loss,
    "perplexity": perplexity,
    "token_accuracy": token_accuracy,
    "bits_per_byte": bits_per_byte,
    "bits_per_character": bits_per_character,
    "unknown_share": unknown_share,
}


def metrics_of(columns: int) -> Metrics:
    """The metrics of rows with that many sums: 4 of masked rows, 6 of whole texts."""
    return _MASKED_METRICS if columns == _MASKED else _TEXT_METRICS
