"""How well tokens are predicted: loss per token, accuracy, and bits per byte of text."""

from typing import Any

import datasets
import evaluate
import numpy as np
import pyarrow as pa

from finetune.evaluation import language


class TokenLikelihood(evaluate.Metric):
    """Loss per token in nats, accuracy, and bits per byte, from sums over the tokens of each row."""

    def _info(self) -> evaluate.MetricInfo:
        kinds = {"nats": "float64", "correct": "int64", "tokens": "int64", "bytes": "int64"}
        return evaluate.MetricInfo(
            description="Loss per token in nats, accuracy, and bits per byte, from sums over the tokens of each row.",
            citation="",
            inputs_description="For each row: nats, the negative log probability of its predicted tokens; correct, how "
            "many of them were the most probable; tokens, how many there are; bytes, the text that they stand for.",
            format="arrow",  # "numpy" would round to float32
            features=datasets.Features({name: datasets.Value(kind) for name, kind in kinds.items()}),
        )

    def _compute(self, **sums: pa.ChunkedArray) -> dict[str, Any]:
        """`loss`, `masked_accuracy` and `bits_per_byte`."""
        rows = np.stack([sums[name].to_numpy() for name in language.SUMS], axis=1)
        return {name: float(metric(rows.sum(axis=0))) for name, metric in language.METRICS.items()}
