"""Accuracy."""

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.classification import accuracy, confusion


class Accuracy(evaluate.Metric):
    """The share of rows whose predicted label is the reference."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The share of rows whose predicted label is the reference.",
            citation="",
            inputs_description="Label ids: predictions, references; num_labels: how many labels there are.",
            format="numpy",  # one array a column, not a Python object a row
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(
        self, predictions: NDArray[np.int64], references: NDArray[np.int64], num_labels: int
    ) -> dict[str, Any]:
        return {"accuracy": float(accuracy(confusion(references, predictions, num_labels)))}
