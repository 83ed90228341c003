"""F1, macro and weighted."""

from typing import Any

import datasets
import evaluate

from finetune.evaluation.classification import confusion, macro_f1, weighted_f1


class F1(evaluate.Metric):
    """F1 averaged over the labels: evenly (macro_f1) and by support (weighted_f1)."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F1 averaged over the labels: evenly (macro_f1) and by support (weighted_f1).",
            citation="",
            inputs_description="Label ids: predictions, references; num_labels: how many labels there are.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], references: list[int], num_labels: int) -> dict[str, Any]:
        matrix = confusion(references, predictions, num_labels)
        return {"macro_f1": float(macro_f1(matrix)), "weighted_f1": float(weighted_f1(matrix))}
