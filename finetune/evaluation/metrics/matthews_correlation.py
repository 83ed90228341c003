"""Matthews' correlation coefficient."""

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.classification import confusion, matthews_correlation


class MatthewsCorrelation(evaluate.Metric):
    """Matthews' correlation for two or more labels."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Matthews' correlation for two or more labels.",
            citation="",
            inputs_description="Label ids: predictions, references; num_labels: how many labels there are.",
            format="numpy",  # one array a column, not a Python object a row
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(
        self, predictions: NDArray[np.int64], references: NDArray[np.int64], num_labels: int
    ) -> dict[str, Any]:
        return {"mcc": float(matthews_correlation(confusion(references, predictions, num_labels)))}
