"""How many written texts are training texts."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from finetune.data.splits import normalized_key


class Copies(evaluate.Metric):
    """The share of texts that are a training text as a whole, spacing, case and punctuation aside."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The share of texts that are a training text as a whole, spacing, case and punctuation aside.",
            citation="",
            inputs_description="predictions: the texts; training_texts: what the model learnt from.",
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    def _compute(self, predictions: list[str], training_texts: Sequence[str]) -> dict[str, Any]:
        """`copies`, 0 to 1."""
        known = {normalized_key(text) for text in training_texts}
        return {"copies": sum(normalized_key(text) in known for text in predictions) / len(predictions)}
