"""F1, macro and weighted."""

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.classification import confusion, macro_f1, weighted_f1


class F1(evaluate.Metric):
    """F1 averaged over the labels: evenly (macro_f1) and by support (weighted_f1)."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F1 averaged over the labels: evenly (macro_f1) and by support (weighted_f1).",
            citation="",
            inputs_description="Label ids: predictions, references; num_labels: how many labels there are.",
            format="numpy",  # one array a column, not a Python object a row
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(
        self, predictions: NDArray[np.int64], references: NDArray[np.int64], num_labels: int
    ) -> dict[str, Any]:
        matrix = confusion(references, predictions, num_labels)
        return {"macro_f1": float(macro_f1(matrix)), "weighted_f1": float(weighted_f1(matrix))}
