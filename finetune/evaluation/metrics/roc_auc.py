"""The area under the ROC curve."""

from typing import Any

import datasets
import evaluate
import numpy as np

from finetune.evaluation.classification import area_under_roc


class RocAuc(evaluate.Metric):
    """The area under the ROC curve; for more than two labels the mean of one against the rest."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The area under the ROC curve; for more than two labels the mean of one against the rest.",
            citation="",
            inputs_description="prediction_scores: a probability per label for each row; references: label ids.",
            features=datasets.Features(
                {
                    "prediction_scores": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, prediction_scores: list[list[float]], references: list[int]) -> dict[str, Any]:
        """`roc_auc` is None where it is undefined: a label has no rows, or all of them."""
        area = area_under_roc(np.asarray(prediction_scores), np.asarray(references))
        return {"roc_auc": None if np.isnan(area) else area}
