"""The confusion matrix."""

from typing import Any

import datasets
import evaluate

from finetune.evaluation.classification import confusion


class ConfusionMatrix(evaluate.Metric):
    """Counts with references as rows and predictions as columns."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Counts with references as rows and predictions as columns.",
            citation="",
            inputs_description="Label ids: predictions, references; num_labels: how many labels there are.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], references: list[int], num_labels: int) -> dict[str, Any]:
        return {"confusion_matrix": confusion(references, predictions, num_labels).tolist()}
