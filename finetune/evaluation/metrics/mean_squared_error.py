"""The mean squared error and its root."""

from typing import Any

import datasets
import evaluate
import numpy as np
import pyarrow as pa


class MeanSquaredError(evaluate.Metric):
    """The mean squared difference of rating and reference, and its root."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The mean squared difference of rating and reference, and its root.",
            citation="",
            inputs_description="predictions, references: a number for each row.",
            format="arrow",  # "numpy" would round to float32
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(self, predictions: pa.ChunkedArray, references: pa.ChunkedArray) -> dict[str, Any]:
        mse = float(np.square(predictions.to_numpy() - references.to_numpy()).mean())
        return {"mse": mse, "rmse": float(np.sqrt(mse))}
