"""The confusion matrix."""

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.classification import confusion


class ConfusionMatrix(evaluate.Metric):
    """Counts with references as rows and predictions as columns."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Counts with references as rows and predictions as columns.",
            citation="",
            inputs_description="Label ids: predictions, references; num_labels: how many labels there are.",
            format="numpy",  # one array a column, not a Python object a row
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(
        self, predictions: NDArray[np.int64], references: NDArray[np.int64], num_labels: int
    ) -> dict[str, Any]:
        return {"confusion_matrix": confusion(references, predictions, num_labels).tolist()}
