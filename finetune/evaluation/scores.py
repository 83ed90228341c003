"""Predictions -> scores: every metric with a bootstrap interval, computed through local `evaluate` modules."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import evaluate
import numpy as np
from numpy.typing import NDArray

from finetune.evaluation import classification, metrics
from finetune.evaluation.predictions import Predictions

_MATRIX_METRICS: dict[str, Callable[[NDArray[np.number]], NDArray[np.float64]]] = {
    "accuracy": classification.accuracy,
    "macro_f1": classification.macro_f1,
    "weighted_f1": classification.weighted_f1,
    "mcc": classification.matthews_correlation,
}
_LABEL_METRICS: dict[str, Callable[[NDArray[np.number]], NDArray[np.float64]]] = {
    "precision": classification.precision,
    "recall": classification.recall,
    "f1": classification.f1,
}


def compute_metrics(predictions: Predictions) -> dict[str, Any]:
    """The point values of all metrics, through `evaluate`; plain Python numbers, None where one is undefined."""
    labels = {"predictions": predictions.predicted, "references": predictions.references}
    by_label = evaluate.combine(
        [
            _module(metrics.Accuracy),
            _module(metrics.F1),
            _module(metrics.MatthewsCorrelation),
            _module(metrics.PrecisionRecall),
            _module(metrics.ConfusionMatrix),
        ]
    )
    values: dict[str, Any] = by_label.compute(**labels, num_labels=predictions.probabilities.shape[1])
    values |= _module(metrics.RocAuc).compute(
        prediction_scores=predictions.probabilities, references=predictions.references
    )
    values["loss"] = float(_row_losses(predictions).mean())
    return values


def score(
    predictions: Predictions, labels: Sequence[str], *, samples: int, confidence: float, seed: int = 0
) -> dict[str, Any]:
    """All metrics with percentile bootstrap intervals over the rows (Efron & Tibshirani 1993, ch. 13).

    Metrics of the confusion matrix are resampled as a multinomial over its cells, which has the same distribution as
    resampling rows and does not depend on their number; the others resample rows.
    """
    values = compute_metrics(predictions)
    matrix = np.asarray(values["confusion_matrix"])
    generator = np.random.default_rng(seed)
    count = len(predictions.ids)
    resampled = generator.multinomial(count, matrix.ravel() / count, size=samples).reshape(samples, *matrix.shape)
    ranked = classification.ranked_scores(predictions.probabilities, predictions.references)
    losses = _row_losses(predictions)
    areas, means = np.empty(samples), np.empty(samples)
    for sample in range(samples):
        weights = np.bincount(generator.integers(0, count, count), minlength=count)
        areas[sample] = classification.mean_area(ranked, weights)
        means[sample] = weights @ losses / count
    overall = {name: _interval(values[name], metric(resampled), confidence) for name, metric in _MATRIX_METRICS.items()}
    overall["roc_auc"] = _interval(values["roc_auc"], areas, confidence)
    overall["loss"] = _interval(values["loss"], means, confidence)
    by_label = {name: metric(resampled) for name, metric in _LABEL_METRICS.items()}
    return {
        "count": count,
        "labels": list(labels),
        "confidence_level": confidence,
        "bootstrap_samples": samples,
        "metrics": overall,
        "per_class": {
            label: {name: _interval(values[name][i], draws[:, i], confidence) for name, draws in by_label.items()}
            for i, label in enumerate(labels)
        },
        "confusion_matrix": values["confusion_matrix"],
    }


def _module(metric: type[evaluate.Metric]) -> evaluate.Metric:
    # In memory, and each instance with an id of its own: instances that share one wait for each other's file lock.
    return metric(keep_in_memory=True, experiment_id=uuid.uuid4().hex)


def _row_losses(predictions: Predictions) -> NDArray[np.float64]:
    """The negative log probability of each row's reference, (n,), in nats."""
    chosen = predictions.probabilities[np.arange(len(predictions.references)), predictions.references]
    return -np.log(np.maximum(chosen, np.finfo(np.float64).tiny))


def _interval(value: float | None, draws: NDArray[np.float64], confidence: float) -> dict[str, float | None]:
    if value is None or np.isnan(draws).all():
        return {"value": value, "low": None, "high": None}
    # A resample may lack a label altogether; it says nothing about a metric that needs both.
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return {"value": value, "low": float(low), "high": float(high)}


def describe_scores(split: str, entry: Mapping[str, Any]) -> str:
    """One line for a person: accuracy and macro F1 of a split with their intervals."""
    parts = []
    for name, title in (("accuracy", "accuracy"), ("macro_f1", "macro F1")):
        metric = entry["metrics"][name]
        parts.append(f"{title} {metric['value']:.1%} [{metric['low']:.1%}, {metric['high']:.1%}]")
    return f"{split}: {', '.join(parts)} on {entry['count']:,} rows"
