"""The area under the ROC curve."""

from typing import Any

import datasets
import evaluate
import numpy as np
import pyarrow as pa

from finetune.evaluation.classification import RankedScores


class RocAuc(evaluate.Metric):
    """The area under the ROC curve of one label's scores against the rest."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The area under the ROC curve of one label's scores against the rest.",
            citation="",
            inputs_description="prediction_scores: the label's score of each row; references: 1 where it is the label.",
            format="arrow",  # "numpy" would round the scores to float32, which makes ties
            features=datasets.Features(
                {"prediction_scores": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, prediction_scores: pa.ChunkedArray, references: pa.ChunkedArray) -> dict[str, Any]:
        """`roc_auc` is None where it is undefined: the label has no rows, or all of them."""
        area = RankedScores(prediction_scores.to_numpy(), references.to_numpy() == 1).area()
        return {"roc_auc": None if np.isnan(area) else area}
