"""Accuracy."""

from typing import Any

import datasets
import evaluate

from finetune.evaluation.classification import accuracy, confusion


class Accuracy(evaluate.Metric):
    """The share of rows whose predicted label is the reference."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The share of rows whose predicted label is the reference.",
            citation="",
            inputs_description="Label ids: predictions, references; num_labels: how many labels there are.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], references: list[int], num_labels: int) -> dict[str, Any]:
        return {"accuracy": float(accuracy(confusion(references, predictions, num_labels)))}
