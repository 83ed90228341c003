"""How well tokens are predicted: loss per token, accuracy, and bits per byte of text."""

from typing import Any

import datasets
import evaluate
import numpy as np
import pyarrow as pa

from finetune.evaluation import language


class TokenLikelihood(evaluate.Metric):
    """Loss per token in nats, accuracy, and bits per byte, from sums over the tokens of each row.

    With `config_name="text"` of whole texts: perplexity, bits per character and the share of unknown text as well.
    """

    def _info(self) -> evaluate.MetricInfo:
        names = language.SUMS if self.config_name == "text" else language.SUMS[:4]
        kinds = {name: "float64" if name == "nats" else "int64" for name in names}
        return evaluate.MetricInfo(
            description="Loss per token in nats, accuracy, and bits per byte, from sums over the tokens of each row.",
            citation="",
            inputs_description="For each row: nats, the negative log probability of its predicted tokens; correct, how "
            "many of them were the most probable; tokens, how many there are; bytes, the text that they stand for; of "
            "whole texts (config_name 'text') also its characters, and unknown_bytes, what became unknown tokens.",
            format="arrow",  # "numpy" would round to float32
            features=datasets.Features({name: datasets.Value(kind) for name, kind in kinds.items()}),
        )

    def _compute(self, **sums: pa.ChunkedArray) -> dict[str, Any]:
        """`loss`, `masked_accuracy` and `bits_per_byte`; of texts what `language.metrics_of` has for them."""
        rows = np.stack([sums[name].to_numpy() for name in language.SUMS if name in sums], axis=1)
        return {name: float(metric(rows.sum(axis=0))) for name, metric in language.metrics_of(rows.shape[1]).items()}
