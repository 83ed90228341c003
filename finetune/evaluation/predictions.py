"""`Predictions`: what a model said of each row of a split, and the file that keeps it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """`ids` (n,), reference label ids (n,), and the probability of each label (n, labels).

    All three are arrays: scoring a million rows keeps some 40 bytes of each, and no Python object.
    """

    ids: pa.StringArray
    references: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable label of each row, (n,); the first of equals."""
        return self.probabilities.argmax(axis=1)

    def without(self, ids: frozenset[str]) -> "Predictions":
        """The rows whose id is not in `ids`."""
        keep = pc.invert(pc.is_in(self.ids, value_set=pa.array(sorted(ids), type=pa.string())))
        kept = keep.to_numpy(zero_copy_only=False)
        return Predictions(self.ids.filter(keep), self.references[kept], self.probabilities[kept])

    def write(self, path: Path, labels: Sequence[str]) -> None:
        """Columns id, reference, predicted (label names) and scores (probabilities in label order); no text."""
        names = pa.array(labels, type=pa.string())
        table = pa.table(
            {
                "id": self.ids,
                "reference": names.take(pa.array(self.references)),
                "predicted": names.take(pa.array(self.predicted)),
                "scores": pa.FixedSizeListArray.from_arrays(pa.array(self.probabilities.ravel()), len(labels)),
            }
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd")
