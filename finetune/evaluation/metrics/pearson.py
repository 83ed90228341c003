"""Pearson's correlation."""

from typing import Any

import datasets
import evaluate
import pyarrow as pa

from finetune.evaluation.regression import pearson


class Pearson(evaluate.Metric):
    """Pearson's correlation of ratings and references."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Pearson's correlation of ratings and references.",
            citation="",
            inputs_description="predictions, references: a number for each row.",
            format="arrow",  # "numpy" would round to float32
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(self, predictions: pa.ChunkedArray, references: pa.ChunkedArray) -> dict[str, Any]:
        """`pearson` is None where it is undefined: one side is the same for all rows."""
        return {"pearson": pearson(predictions.to_numpy(), references.to_numpy())}
