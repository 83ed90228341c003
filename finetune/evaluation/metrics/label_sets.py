"""F1, exact matches and Hamming loss where a row may have several labels."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from finetune.evaluation.label_sets import f1, metrics_of, precision, recall, row_counts


class LabelSets(evaluate.Metric):
    """F1 over all decisions, labels and rows, the share of rows with all labels right, and that of wrong decisions."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="micro_f1, macro_f1, samples_f1, subset_accuracy, hamming_loss; and by label.",
            citation="",
            inputs_description="predictions, references: of each row a 1 or 0 for each label.",
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("int64")),
                    "references": datasets.List(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> dict[str, Any]:
        """`precision`, `recall` and `f1` are lists, by label."""
        predicted, wanted = (np.asarray(rows, dtype=np.int8) == 1 for rows in (predictions, references))
        means = row_counts(predicted, wanted).mean(axis=0)
        by_label = {"precision": precision(means), "recall": recall(means), "f1": f1(means)}
        return {
            **{name: float(value) for name, value in metrics_of(means).items()},
            **{name: values.tolist() for name, values in by_label.items()},
        }
