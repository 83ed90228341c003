"""ROUGE-1, -2 and -L over syllables and words, so that Korean is seen."""

from typing import Any

import datasets
import evaluate

from finetune.evaluation import writing


class Rouge(evaluate.Metric):
    """ROUGE-1, -2 and -L over syllables and words, as F1."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="ROUGE-1, -2 and -L over syllables and words, as F1.",
            citation="",
            inputs_description="predictions, references: a text for each row.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        """`rouge1`, `rouge2` and `rougeL`, 0 to 1."""
        return writing.rouge(predictions, references)
