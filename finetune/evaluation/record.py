"""Scores go into the run directory: with intervals, without leaked rows, and with a count of scorings."""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from finetune.data.splits import id_array, rows_fingerprint
from finetune.evaluation.predictions import predictions_of
from finetune.evaluation.scores import score
from finetune.recipe import Evaluation
from finetune.run import RunDirectory


def record_scores(
    run: RunDirectory,
    split: str,
    rows: datasets.Dataset,
    labels: Sequence[str],
    references: NDArray[Any],
    outputs: NDArray[np.float64],
    evaluation: Evaluation,
    leaked_ids: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Score `outputs`, (rows, columns), of a split against `references`; write predictions and scores; return these.

    Every call counts as one more look at the split: the test split is meant to have one. Where some of `leaked_ids` are
    among the rows, the scores are given without these too.
    """
    predictions = predictions_of(id_array(rows), references, outputs)
    options: dict[str, Any] = {
        "samples": evaluation.bootstrap_samples,
        "confidence": evaluation.confidence_level,
        "interval": evaluation.interval,
    }
    entry = score(predictions, labels, **options)
    entry["rows_fingerprint"] = rows_fingerprint(rows, labels)
    unseen = predictions.without(leaked_ids) if leaked_ids else predictions
    if 0 < len(unseen.ids) < len(predictions.ids):
        rest = score(unseen, labels, **options)
        left_out = len(predictions.ids) - len(unseen.ids)
        entry["without_leaked_rows"] = {"count": rest["count"], "left_out": left_out, "metrics": rest["metrics"]}
    scores = run.scores()
    entry["times_scored"] = scores["splits"].get(split, {}).get("times_scored", 0) + 1
    scores["splits"][split] = entry
    predictions.write(run.predictions_file(split), labels)
    run.write_json(run.scores_file, scores)
    return entry
