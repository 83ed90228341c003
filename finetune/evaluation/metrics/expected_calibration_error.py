"""The expected calibration error."""

from typing import Any

import datasets
import evaluate
import pyarrow as pa

from finetune.evaluation.calibration import calibration_error


class ExpectedCalibrationError(evaluate.Metric):
    """How far a classifier's confidence is from how often it is right, over 15 bins of equal width."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="How far a classifier's confidence is from how often it is right, over 15 bins of equal width.",
            citation="",
            inputs_description="confidences: the probability of the label given to each row; correct: 1 where right.",
            format="arrow",  # "numpy" would round the confidences to float32
            features=datasets.Features(
                {"confidences": datasets.Value("float64"), "correct": datasets.Value("float64")}
            ),
        )

    def _compute(self, confidences: pa.ChunkedArray, correct: pa.ChunkedArray) -> dict[str, Any]:
        return {"ece": calibration_error(confidences.to_numpy(), correct.to_numpy())}
