"""Documents as one text, cut into streams that are read side by side."""

from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from finetune.text.masking import IGNORED_LABEL


@dataclass(frozen=True)
class Window:
    """Some places of all streams, each array (streams, length)."""

    inputs: NDArray[np.int64]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    """The document that a place is of."""
    ends: NDArray[np.bool_]
    """Whether it is its document's last."""


class Streams:
    """Documents as one text, cut into streams of equal length; what is missing at the end of the last is no target."""

    def __init__(self, encoded: datasets.Dataset, count: int) -> None:
        columns = encoded.select_columns(["input_ids", "label", "row"]).with_format("arrow")[:]
        sizes = columns["input_ids"].combine_chunks().value_lengths().to_numpy()
        total = int(sizes.sum())
        self.length = -(-total // count)
        missing = self.length * count - total

        def in_streams(values: NDArray[Any], fill: int) -> NDArray[Any]:
            return np.concatenate([values, np.full(missing, fill)]).reshape(count, self.length)

        inputs = columns["input_ids"].combine_chunks().flatten().to_numpy()
        labels = columns["label"].combine_chunks().flatten().to_numpy()
        rows = np.repeat(columns["row"].to_numpy(), sizes)
        self.inputs = in_streams(inputs, int(inputs[-1]))
        self.labels = in_streams(labels, IGNORED_LABEL)
        self.rows = in_streams(rows, int(rows[-1]))
        last = np.zeros(total, dtype=bool)
        last[np.cumsum(sizes) - 1] = True
        self.ends = in_streams(last, 0).astype(bool)

    def window(self, start: int, length: int) -> Window:
        """The next `length` places of all streams from `start` on; the last window is shorter."""
        some = slice(start, start + length)
        return Window(self.inputs[:, some], self.labels[:, some], self.rows[:, some], self.ends[:, some])
