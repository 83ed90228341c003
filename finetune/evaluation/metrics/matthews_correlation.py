"""Matthews' correlation coefficient."""

from typing import Any

import datasets
import evaluate

from finetune.evaluation.classification import confusion, matthews_correlation


class MatthewsCorrelation(evaluate.Metric):
    """Matthews' correlation for two or more labels."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Matthews' correlation for two or more labels.",
            citation="",
            inputs_description="Label ids: predictions, references; num_labels: how many labels there are.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], references: list[int], num_labels: int) -> dict[str, Any]:
        return {"mcc": float(matthews_correlation(confusion(references, predictions, num_labels)))}
