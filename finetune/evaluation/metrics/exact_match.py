"""The share of texts that are what was wanted, by strict comparison."""

from typing import Any

import datasets
import evaluate

from finetune.evaluation import writing


class ExactMatch(evaluate.Metric):
    """The share of texts that are what was wanted, by strict comparison."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The share of texts that are equal to their references, white space at the ends aside.",
            citation="",
            inputs_description="predictions, references: a text for each row.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        """`exact_match`, 0 to 1."""
        return {"exact_match": float(writing.exact_matches(predictions, references).mean())}
