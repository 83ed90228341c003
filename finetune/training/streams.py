"""The batches of truncated backpropagation through time: all documents as one text, read by several readers at once.

The documents stand one after another, each ended by the end token, which is also what the next begins with. The text is
cut into as many streams of equal length as a batch has rows; a step reads the next tokens of every stream, and a
recurrent model goes on from the state that the step before it ended in. The order is the text's own in every epoch.
"""

from collections.abc import Iterator

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.data.splits import column
from finetune.text.masking import IGNORED_LABEL
from finetune.text.streams import Streams
from finetune.training.batches import Indices, Step


class StreamBatches:
    """A text as steps: for each optimizer step the next tokens of this process's streams."""

    carries_state = True

    def __init__(
        self,
        encoded: datasets.Dataset,
        *,
        length: int,
        batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
    ) -> None:
        """`encoded` are whole documents; `length` is the number of tokens that a step reads of each stream."""
        self.streams = Streams(encoded, batch_size)
        self.ids = column(encoded, "id")
        self.length = length
        self.micro_batch_size = micro_batch_size
        self.share = np.arange(batch_size)[rank::world_size]

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.streams.length // self.length)

    def row_ids(self, rows: Indices) -> list[str]:
        """The ids of documents, as they stand in the data."""
        return [self.ids[row] for row in rows]

    def steps(self, epoch: int, first_step: int = 0) -> Iterator[Step]:
        """The steps of an epoch from `first_step` on; every epoch has the same."""
        for number in range(first_step, self.steps_per_epoch):
            window = self.streams.window(number * self.length, self.length)
            are_targets = window.labels != IGNORED_LABEL
            shares = [
                self.share[i : i + self.micro_batch_size] for i in range(0, len(self.share), self.micro_batch_size)
            ]
            yield Step(
                np.unique(window.rows[are_targets]),
                [_batch(window.inputs[share], window.labels[share]) for share in shares],
                row_count=int(window.ends.sum()),
                token_count=int(are_targets.sum()),
            )


def _batch(inputs: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, Tensor]:
    return {"input_ids": torch.from_numpy(inputs.copy()), "labels": torch.from_numpy(labels.copy())}
