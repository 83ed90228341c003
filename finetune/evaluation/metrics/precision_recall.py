"""Precision, recall and F1 of each label."""

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.classification import confusion, f1, precision, recall


class PrecisionRecall(evaluate.Metric):
    """Precision, recall and F1 of each label, in the order of the label ids."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Precision, recall and F1 of each label, in the order of the label ids.",
            citation="",
            inputs_description="Label ids: predictions, references; num_labels: how many labels there are.",
            format="numpy",  # one array a column, not a Python object a row
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(
        self, predictions: NDArray[np.int64], references: NDArray[np.int64], num_labels: int
    ) -> dict[str, Any]:
        matrix = confusion(references, predictions, num_labels)
        return {
            "precision": precision(matrix).tolist(),
            "recall": recall(matrix).tolist(),
            "f1": f1(matrix).tolist(),
        }
