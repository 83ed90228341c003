"""`Predictions`: what a model said of each row of a split, and the file that keeps it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

_ROWS_PER_GROUP = 100_000


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
        if not ids:
            return self
        keep = pc.invert(pc.is_in(self.ids, value_set=pa.array(sorted(ids), type=pa.string())))
        kept = keep.to_numpy(zero_copy_only=False)
        return Predictions(self.ids.filter(keep), self.references[kept], self.probabilities[kept])

    def write(self, path: Path, labels: Sequence[str]) -> None:
        """Columns id, reference, predicted (label names) and scores (probabilities in label order); no text."""
        names = pa.array(labels, type=pa.string())
        path.parent.mkdir(parents=True, exist_ok=True)
        kinds = {"id": pa.string(), "reference": pa.string(), "predicted": pa.string()}
        schema = pa.schema({**kinds, "scores": pa.list_(pa.float64(), len(labels))})
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for start in range(0, len(self.ids), _ROWS_PER_GROUP):
                rows = slice(start, start + _ROWS_PER_GROUP)
                scores = pa.array(self.probabilities[rows].ravel())
                columns = [
                    self.ids[rows],
                    names.take(pa.array(self.references[rows])),
                    names.take(pa.array(self.probabilities[rows].argmax(axis=1))),
                    pa.FixedSizeListArray.from_arrays(scores, len(labels)),
                ]
                writer.write_table(pa.table(columns, schema=schema))
