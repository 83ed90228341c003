"""`Predictions`: what a model said of each row of a split, and the file that keeps it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """`ids` (n,), reference label ids (n,), and the probability of each label (n, labels)."""

    ids: list[str]
    references: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable label of each row, (n,); the first of equals."""
        return self.probabilities.argmax(axis=1)

    def without(self, ids: frozenset[str]) -> "Predictions":
        """The rows whose id is not in `ids`."""
        keep = np.array([row_id not in ids for row_id in self.ids], dtype=bool)
        kept = [row_id for row_id, stays in zip(self.ids, keep, strict=True) if stays]
        return Predictions(kept, self.references[keep], self.probabilities[keep])

    def write(self, path: Path, labels: Sequence[str]) -> None:
        """Columns id, reference, predicted (label names) and scores (probabilities in label order); no text."""
        names = pa.array(labels, type=pa.string())
        table = pa.table(
            {
                "id": pa.array(self.ids, type=pa.string()),
                "reference": names.take(pa.array(self.references)),
                "predicted": names.take(pa.array(self.predicted)),
                "scores": pa.FixedSizeListArray.from_arrays(pa.array(self.probabilities.ravel()), len(labels)),
            }
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd")
