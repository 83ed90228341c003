"""How varied written texts are: distinct n-grams, repetition within a text, likeness among the texts."""

from typing import Any

import datasets
import evaluate

from finetune.evaluation import writing


class Variety(evaluate.Metric):
    """Distinct-1 to -3, repetition of n-grams of 1 to 3 words within a text, and self-BLEU."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Distinct-1 to -3, repetition of n-grams of 1 to 3 words within a text, and self-BLEU.",
            citation="",
            inputs_description="predictions: the texts.",
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    def _compute(self, predictions: list[str]) -> dict[str, Any]:
        """`distinct_N` and `repetition_N`, 0 to 1, and `self_bleu`, 0 to 100; None where nothing could be counted."""
        values: dict[str, float | None] = {f"distinct_{n}": writing.distinct(predictions, n) for n in (1, 2, 3)}
        values |= {f"repetition_{n}": writing.repetition(predictions, n) for n in (1, 2, 3)}
        return {**values, "self_bleu": writing.self_bleu(predictions)}
