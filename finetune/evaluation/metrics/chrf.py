"""Corpus chrF, by sacreBLEU."""

from typing import Any

import datasets
import evaluate

from finetune.evaluation import writing


class Chrf(evaluate.Metric):
    """Corpus chrF, by sacreBLEU."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Corpus chrF, by sacreBLEU.",
            citation="",
            inputs_description="predictions, references: a text for each row.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        """`chrf`, 0 to 100."""
        return {"chrf": writing.chrf(predictions, references)}
