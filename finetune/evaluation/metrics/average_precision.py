"""Average precision."""

from typing import Any

import datasets
import evaluate
import numpy as np
import pyarrow as pa

from finetune.evaluation.label_sets import RankedLabel


class AveragePrecision(evaluate.Metric):
    """The area under the precision-recall curve of one label's scores, by steps."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The area under the precision-recall curve of one label's scores, by steps.",
            citation="",
            inputs_description="prediction_scores: the label's score of each row; references: 1 where a row has it.",
            format="arrow",  # "numpy" would round the scores to float32, which makes ties
            features=datasets.Features(
                {"prediction_scores": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, prediction_scores: pa.ChunkedArray, references: pa.ChunkedArray) -> dict[str, Any]:
        """`average_precision` is None where it is undefined: no row has the label."""
        value = RankedLabel(prediction_scores.to_numpy(), references.to_numpy() == 1).average_precision()
        return {"average_precision": None if np.isnan(value) else value}
