"""F1, exact matches and Hamming loss where a row may have several labels."""

from typing import Any

import datasets
import evaluate
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune.evaluation.label_sets import f1, metrics_of, precision, recall, row_counts


class LabelSets(evaluate.Metric):
    """F1 over all decisions, labels and rows, the share of rows with all labels right, and that of wrong decisions."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="micro_f1, macro_f1, samples_f1, subset_accuracy, hamming_loss; and by label.",
            citation="",
            inputs_description="predictions, references: of each row a 1 or 0 for each label.",
            format="arrow",
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("int64")),
                    "references": datasets.List(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions: pa.ChunkedArray, references: pa.ChunkedArray) -> dict[str, Any]:
        """`precision`, `recall` and `f1` are lists, by label."""
        means = row_counts(_bits(predictions), _bits(references)).mean(axis=0)
        by_label = {"precision": precision(means), "recall": recall(means), "f1": f1(means)}
        return {
            **{name: float(value) for name, value in metrics_of(means).items()},
            **{name: values.tolist() for name, values in by_label.items()},
        }


def _bits(rows: pa.ChunkedArray) -> NDArray[np.bool_]:
    """(n, labels)."""
    return rows.combine_chunks().flatten().to_numpy().reshape(len(rows), -1) == 1
