"""`Predictions`, `LabelSets`, `Ratings`, `TokenSums`: what a model said of each row, and the file that keeps it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from finetune import tasks
from finetune.evaluation.language import SUMS

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
        keep = _keep(self.ids, ids)
        kept = keep.to_numpy(zero_copy_only=False)
        return Predictions(self.ids.filter(keep), self.references[kept], self.probabilities[kept])

    def write(self, path: Path, labels: Sequence[str]) -> None:
        """Columns id, reference, predicted (label names) and scores (probabilities in label order); no text."""
        names = pa.array(labels, type=pa.string())

        def group(rows: slice) -> list[pa.Array]:
            scores = pa.array(self.probabilities[rows].ravel())
            return [
                names.take(pa.array(self.references[rows])),
                names.take(pa.array(self.probabilities[rows].argmax(axis=1))),
                pa.FixedSizeListArray.from_arrays(scores, len(labels)),
            ]

        _write(path, self.ids, pa.string(), pa.list_(pa.float64(), len(labels)), group)


@dataclass(frozen=True)
class LabelSets:
    """`ids` (n,), which labels each row has, (n, labels), and the probability of each, (n, labels)."""

    ids: pa.StringArray
    references: NDArray[np.bool_]
    probabilities: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Which labels each row gets, (n, labels): those whose probability reaches the threshold."""
        return self.probabilities >= tasks.THRESHOLD

    def without(self, ids: frozenset[str]) -> "LabelSets":
        """The rows whose id is not in `ids`."""
        keep = _keep(self.ids, ids)
        kept = keep.to_numpy(zero_copy_only=False)
        return LabelSets(self.ids.filter(keep), self.references[kept], self.probabilities[kept])

    def write(self, path: Path, labels: Sequence[str]) -> None:
        """Columns id, reference, predicted (lists of names) and scores (probabilities in label order); no text."""
        names = pa.array(labels, type=pa.string())

        def named(held: NDArray[np.bool_]) -> pa.ListArray:
            offsets = np.concatenate([[0], held.sum(axis=1).cumsum()])
            return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names.take(pa.array(np.nonzero(held)[1])))

        def group(rows: slice) -> list[pa.Array]:
            scores = pa.array(self.probabilities[rows].ravel())
            return [
                named(self.references[rows]),
                named(self.predicted[rows]),
                pa.FixedSizeListArray.from_arrays(scores, len(labels)),
            ]

        _write(path, self.ids, pa.list_(pa.string()), pa.list_(pa.float64(), len(labels)), group)


@dataclass(frozen=True)
class Ratings:
    """`ids` (n,), reference ratings (n,) and the ratings given (n,)."""

    ids: pa.StringArray
    references: NDArray[np.float64]
    predicted: NDArray[np.float64]

    def without(self, ids: frozenset[str]) -> "Ratings":
        """The rows whose id is not in `ids`."""
        keep = _keep(self.ids, ids)
        kept = keep.to_numpy(zero_copy_only=False)
        return Ratings(self.ids.filter(keep), self.references[kept], self.predicted[kept])

    def write(self, path: Path, labels: Sequence[str]) -> None:
        """Columns id, reference, predicted (numbers) and scores (the rating alone); no text. There are no `labels`."""

        def group(rows: slice) -> list[pa.Array]:
            predicted = pa.array(self.predicted[rows])
            return [pa.array(self.references[rows]), predicted, pa.FixedSizeListArray.from_arrays(predicted, 1)]

        _write(path, self.ids, pa.float64(), pa.list_(pa.float64(), 1), group)


@dataclass(frozen=True)
class TokenSums:
    """`ids` (n,), and for each row sums over the tokens that were to be predicted, as `language.SUMS` names them.

    (n, 4) of masked rows, (n, 6) of whole texts.
    """

    ids: pa.StringArray
    sums: NDArray[np.float64]

    def without(self, ids: frozenset[str]) -> "TokenSums":
        """The rows whose id is not in `ids`."""
        keep = _keep(self.ids, ids)
        return TokenSums(self.ids.filter(keep), self.sums[keep.to_numpy(zero_copy_only=False)])

    def columns(self) -> dict[str, pa.Array]:
        """The sums by name: nats as floats, counts as whole numbers."""
        kinds = [pa.float64(), *[pa.int64()] * (self.sums.shape[1] - 1)]
        names = SUMS[: self.sums.shape[1]]
        return {
            name: pa.array(self.sums[:, i]).cast(kind) for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
        }

    def write(self, path: Path, labels: Sequence[str]) -> None:
        """Columns id, nats, correct, tokens, bytes (characters, unknown_bytes); no text. There are no `labels`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": self.ids, **self.columns()}), path, compression="zstd")


def predictions_of(
    ids: pa.StringArray, references: NDArray[Any], outputs: NDArray[np.float64]
) -> Predictions | LabelSets | Ratings | TokenSums:
    """What a model's outputs (n, columns) say of rows with references: (n,) label ids or ratings, sets, or counts.

    Of label sets the references are zeros and ones as floats, (n, labels). The counts, (n, 2) of masked rows and (n, 4)
    of texts, are those of `language.SUMS` that follow the outputs: tokens that were to be predicted, the bytes of their
    text, and of whole texts the characters and the unknown bytes.
    """
    is_float = np.issubdtype(references.dtype, np.floating)
    if references.ndim == 2 and is_float:
        return LabelSets(ids, references > 0, outputs)
    if references.ndim == 2:
        return TokenSums(ids, np.concatenate([outputs, references], axis=1))
    if is_float:
        return Ratings(ids, references, outputs[:, 0])
    return Predictions(ids, references, outputs)


def _keep(ids: pa.StringArray, left_out: frozenset[str]) -> pa.BooleanArray:
    return pc.invert(pc.is_in(ids, value_set=pa.array(sorted(left_out), type=pa.string())))


def _write(
    path: Path, ids: pa.StringArray, kind: pa.DataType, scores: pa.DataType, group: Callable[[slice], list[pa.Array]]
) -> None:
    """Some rows at a time: reference, predicted and scores of a slice come from `group`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema({"id": pa.string(), "reference": kind, "predicted": kind, "scores": scores})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(ids), _ROWS_PER_GROUP):
            rows = slice(start, start + _ROWS_PER_GROUP)
            writer.write_table(pa.table([ids[rows], *group(rows)], schema=schema))
