"""Corpus BLEU over syllables and words, by sacreBLEU."""

from typing import Any

import datasets
import evaluate

from finetune.evaluation import writing


class Bleu(evaluate.Metric):
    """Corpus BLEU over syllables and words, by sacreBLEU."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Corpus BLEU over syllables and words, by sacreBLEU.",
            citation="",
            inputs_description="predictions, references: a text for each row.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        """`bleu`, 0 to 100; None where the references are too short for it."""
        return {"bleu": writing.bleu(predictions, references)}
