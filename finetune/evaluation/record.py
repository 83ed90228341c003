"""Scores go into the run directory: with intervals, without leaked rows, and with a count of how often they were made."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data import Splits
from finetune.data.splits import column, label_array
from finetune.evaluation.predictions import Predictions
from finetune.evaluation.scores import score
from finetune.recipe import Evaluation
from finetune.run import RunDirectory


def record_scores(
    run: RunDirectory, splits: Splits, split: str, probabilities: NDArray[np.float64], evaluation: Evaluation
) -> dict[str, Any]:
    """Score `probabilities` (rows, labels) of a split; write predictions and scores; return the scores.

    Every call counts as one more look at the split: the test split is meant to have one.
    """
    rows = splits[split]
    predictions = Predictions(column(rows, "id"), label_array(rows), probabilities)
    options = {"samples": evaluation.bootstrap_samples, "confidence": evaluation.confidence_level}
    entry = score(predictions, splits.labels, **options)
    entry["rows_fingerprint"] = splits.report["splits"][split]["rows_fingerprint"]
    if split == "test" and splits.leaked_test_ids:
        unseen = predictions.without(splits.leaked_test_ids)
        if unseen.ids:
            rest = score(unseen, splits.labels, **options)
            left_out = len(predictions.ids) - len(unseen.ids)
            entry["without_leaked_rows"] = {"count": rest["count"], "left_out": left_out, "metrics": rest["metrics"]}
    scores = run.scores()
    entry["times_scored"] = scores["splits"].get(split, {}).get("times_scored", 0) + 1
    scores["splits"][split] = entry
    predictions.write(run.predictions_file(split), splits.labels)
    run.write_json(run.scores_file, scores)
    return entry
