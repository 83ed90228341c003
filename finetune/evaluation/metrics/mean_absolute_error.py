"""The mean absolute error."""

from typing import Any

import datasets
import evaluate
import numpy as np
import pyarrow as pa


class MeanAbsoluteError(evaluate.Metric):
    """The mean absolute difference of rating and reference."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The mean absolute difference of rating and reference.",
            citation="",
            inputs_description="predictions, references: a number for each row.",
            format="arrow",  # "numpy" would round to float32
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(self, predictions: pa.ChunkedArray, references: pa.ChunkedArray) -> dict[str, Any]:
        return {"mae": float(np.abs(predictions.to_numpy() - references.to_numpy()).mean())}
