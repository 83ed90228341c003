"""Predictions -> scores: every metric with a bootstrap interval, computed through local `evaluate` modules."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import evaluate
import numpy as np
from numpy.typing import NDArray

from finetune import tasks
from finetune.evaluation import calibration, classification, label_sets, language, metrics, regression
from finetune.evaluation.predictions import LabelSets, Predictions, Ratings, TokenSums
from finetune.significance import wilson_interval

_MATRIX_METRICS: dict[str, Callable[[NDArray[np.number]], NDArray[np.float64]]] = {
    "macro_f1": classification.macro_f1,
    "weighted_f1": classification.weighted_f1,
    "mcc": classification.matthews_correlation,
}
# `evaluate` makes a Python object of each value that it is given: some rows at a time, a million take no memory.
_ROWS_PER_BATCH = 10_000
_MAX_ROWS_IN_MEMORY = 100_000
_LABEL_METRICS: dict[str, Callable[[NDArray[np.number]], NDArray[np.float64]]] = {
    "precision": classification.precision,
    "recall": classification.recall,
    "f1": classification.f1,
}


_SET_METRICS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "precision": label_sets.precision,
    "recall": label_sets.recall,
    "f1": label_sets.f1,
}


def compute_metrics(predictions: Predictions | LabelSets | Ratings | TokenSums) -> dict[str, Any]:
    """The point values of all metrics, through `evaluate`; plain Python numbers, None where one is undefined."""
    if isinstance(predictions, LabelSets):
        return _set_metrics(predictions)
    if isinstance(predictions, Ratings):
        return _rating_metrics(predictions)
    if isinstance(predictions, TokenSums):
        return _token_metrics(predictions)
    predicted = predictions.predicted
    by_label = evaluate.combine(
        [
            new_metric(metrics.Accuracy, len(predicted)),
            new_metric(metrics.F1, len(predicted)),
            new_metric(metrics.MatthewsCorrelation, len(predicted)),
            new_metric(metrics.PrecisionRecall, len(predicted)),
            new_metric(metrics.ConfusionMatrix, len(predicted)),
        ]
    )
    # Of two labels the second is the one to find; of more, each against the rest.
    sought = [1] if predictions.probabilities.shape[1] == 2 else list(range(predictions.probabilities.shape[1]))
    by_score = [new_metric(metrics.RocAuc, len(predicted)) for _ in sought]
    for start in range(0, len(predicted), _ROWS_PER_BATCH):
        rows = slice(start, start + _ROWS_PER_BATCH)
        references = predictions.references[rows]
        by_label.add_batch(predictions=predicted[rows], references=references)
        for label, module in zip(sought, by_score, strict=True):
            module.add_batch(
                prediction_scores=predictions.probabilities[rows, label], references=(references == label).astype(int)
            )
    values: dict[str, Any] = by_label.compute(num_labels=predictions.probabilities.shape[1])
    areas = [module.compute()["roc_auc"] for module in by_score]
    values["roc_auc"] = None if None in areas else float(np.mean(areas))
    values["loss"] = float(_row_losses(predictions).mean())
    confidence, correct = calibration.confidences(predictions.probabilities, predictions.references)
    error = new_metric(metrics.ExpectedCalibrationError, len(predicted))
    for start in range(0, len(predicted), _ROWS_PER_BATCH):
        rows = slice(start, start + _ROWS_PER_BATCH)
        error.add_batch(confidences=confidence[rows], correct=correct[rows])
    values |= error.compute()
    values["brier"] = float(calibration.brier_scores(predictions.probabilities, predictions.references).mean())
    return values


def _set_metrics(predictions: LabelSets) -> dict[str, Any]:
    count, labels = predictions.probabilities.shape
    sets = new_metric(metrics.LabelSets, count)
    by_score = [new_metric(metrics.AveragePrecision, count) for _ in range(labels)]
    predicted, references = predictions.predicted.astype(np.int64), predictions.references.astype(np.int64)
    for start in range(0, count, _ROWS_PER_BATCH):
        rows = slice(start, start + _ROWS_PER_BATCH)
        sets.add_batch(predictions=predicted[rows], references=references[rows])
        for label, module in enumerate(by_score):
            module.add_batch(
                prediction_scores=predictions.probabilities[rows, label], references=references[rows, label]
            )
    values: dict[str, Any] = sets.compute()
    ranked = [module.compute()["average_precision"] for module in by_score]
    values["mean_average_precision"] = None if None in ranked else float(np.mean(ranked))
    values["loss"] = float(label_sets.losses(predictions.probabilities, predictions.references).mean())
    return values


def _rating_metrics(ratings: Ratings) -> dict[str, Any]:
    kinds = (metrics.MeanSquaredError, metrics.MeanAbsoluteError, metrics.Pearson)
    modules = evaluate.combine([new_metric(kind, len(ratings.ids)) for kind in kinds])
    for start in range(0, len(ratings.ids), _ROWS_PER_BATCH):
        rows = slice(start, start + _ROWS_PER_BATCH)
        modules.add_batch(predictions=ratings.predicted[rows], references=ratings.references[rows])
    values: dict[str, Any] = modules.compute()
    return {**values, "loss": values["mse"]}


def _token_metrics(predictions: TokenSums) -> dict[str, Any]:
    columns = predictions.columns()
    of_texts = {"config_name": "text"} if "characters" in columns else {}
    module = new_metric(metrics.TokenLikelihood, len(predictions.ids), **of_texts)
    for start in range(0, len(predictions.ids), _ROWS_PER_BATCH):
        rows = slice(start, start + _ROWS_PER_BATCH)
        module.add_batch(**{name: values[rows].to_numpy() for name, values in columns.items()})
    values: dict[str, float] = module.compute()
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def score(
    predictions: Predictions | LabelSets | Ratings | TokenSums,
    labels: Sequence[str],
    *,
    samples: int,
    confidence: float,
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics with intervals: accuracy has Wilson's, the others the percentile bootstrap's over the rows.

    Metrics of the confusion matrix are resampled as a multinomial over its cells, which has the same distribution as
    resampling rows (Efron & Tibshirani 1993, ch. 13) and does not depend on their number; the others resample rows.
    """
    if isinstance(predictions, LabelSets):
        return _score_sets(predictions, labels, samples, confidence, seed)
    if isinstance(predictions, Ratings):
        return _score_ratings(predictions, samples, confidence, seed)
    if isinstance(predictions, TokenSums):
        return _score_tokens(predictions, samples, confidence, seed)
    values = compute_metrics(predictions)
    matrix = np.asarray(values["confusion_matrix"])
    generator = np.random.default_rng(seed)
    count = len(predictions.ids)
    resampled = generator.multinomial(count, matrix.ravel() / count, size=samples).reshape(samples, *matrix.shape)
    ranked = classification.ranked_scores(predictions.probabilities, predictions.references)
    losses = _row_losses(predictions)
    distances = calibration.brier_scores(predictions.probabilities, predictions.references)
    areas, means, briers = (np.empty(samples) for _ in range(3))
    for sample in range(samples):
        weights = np.bincount(generator.integers(0, count, count), minlength=count)
        areas[sample] = classification.mean_area(ranked, weights)
        means[sample] = weights @ losses / count
        briers[sample] = weights @ distances / count
    overall: dict[str, Any] = {"accuracy": asdict(wilson_interval(int(np.trace(matrix)), count, confidence))}
    for name, metric in _MATRIX_METRICS.items():
        overall[name] = _interval(values[name], metric(resampled), confidence)
    overall["roc_auc"] = _interval(values["roc_auc"], areas, confidence)
    overall["loss"] = _interval(values["loss"], means, confidence)
    # It has no interval: rows drawn twice lie further apart within a bin, so that all draws are too high.
    overall["ece"] = {"value": values["ece"], "low": None, "high": None}
    overall["brier"] = _interval(values["brier"], briers, confidence)
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
        "reliability": [
            asdict(found) for found in calibration.reliability(predictions.probabilities, predictions.references)
        ],
        "coverage": calibration.coverage_curve(predictions.probabilities, predictions.references),
    }


def _score_sets(
    predictions: LabelSets, labels: Sequence[str], samples: int, confidence: float, seed: int
) -> dict[str, Any]:
    values = compute_metrics(predictions)
    generator = np.random.default_rng(seed)
    count = len(predictions.ids)
    rows = label_sets.row_counts(predictions.predicted, predictions.references)
    losses = label_sets.losses(predictions.probabilities, predictions.references)
    ranked = [
        label_sets.RankedLabel(predictions.probabilities[:, i], predictions.references[:, i])
        for i in range(len(labels))
    ]
    means = np.empty((samples, rows.shape[1]))
    of_scores = np.empty((samples, 2))
    for sample in range(samples):
        weights = np.bincount(generator.integers(0, count, count), minlength=count)
        means[sample] = weights @ rows / count
        of_scores[sample] = label_sets.mean_average_precision(ranked, weights), weights @ losses / count
    draws = {
        **label_sets.metrics_of(means),
        "mean_average_precision": of_scores[:, 0],
        "loss": of_scores[:, 1],
    }
    by_label = {name: metric(means) for name, metric in _SET_METRICS.items()}
    return {
        "count": count,
        "labels": list(labels),
        "threshold": tasks.THRESHOLD,
        "confidence_level": confidence,
        "bootstrap_samples": samples,
        "metrics": {name: _interval(values[name], drawn, confidence) for name, drawn in draws.items()},
        "per_class": {
            label: {name: _interval(values[name][i], drawn[:, i], confidence) for name, drawn in by_label.items()}
            for i, label in enumerate(labels)
        },
    }


def _score_ratings(ratings: Ratings, samples: int, confidence: float, seed: int) -> dict[str, Any]:
    values = compute_metrics(ratings)
    generator = np.random.default_rng(seed)
    count = len(ratings.ids)
    rows = regression.moments(ratings.predicted, ratings.references)
    means = np.empty((samples, rows.shape[1]))
    for sample in range(samples):
        means[sample] = np.bincount(generator.integers(0, count, count), minlength=count) @ rows / count
    draws = {
        "mse": regression.squared_error(means),
        "rmse": np.sqrt(regression.squared_error(means)),
        "mae": regression.absolute_error(means),
        "pearson": regression.correlation(means),
        "loss": regression.squared_error(means),
    }
    return {
        "count": count,
        "labels": [],
        "confidence_level": confidence,
        "bootstrap_samples": samples,
        "metrics": {name: _interval(values[name], drawn, confidence) for name, drawn in draws.items()},
    }


def _score_tokens(predictions: TokenSums, samples: int, confidence: float, seed: int) -> dict[str, Any]:
    values = compute_metrics(predictions)
    generator = np.random.default_rng(seed)
    count = len(predictions.ids)
    sums = np.stack(
        [np.bincount(generator.integers(0, count, count), minlength=count) @ predictions.sums for _ in range(samples)]
    )
    return {
        "count": count,
        "labels": [],
        "tokens": int(predictions.sums[:, 2].sum()),
        "confidence_level": confidence,
        "bootstrap_samples": samples,
        "metrics": {
            name: _interval(values[name], metric(sums), confidence)
            for name, metric in language.metrics_of(sums.shape[1]).items()
        },
    }


def new_metric(metric: type[evaluate.Metric], rows: int, **options: str) -> evaluate.Metric:
    """An instance of a local module, to compute one result over `rows` rows."""
    # Many rows go through files. Each instance has an id of its own: those that share one wait for each other's lock.
    return metric(keep_in_memory=rows <= _MAX_ROWS_IN_MEMORY, experiment_id=uuid.uuid4().hex, **options)


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
    """One line for a person, with intervals: accuracy and macro F1, the errors of ratings, or the loss of tokens.

    Where rows may have several labels, micro and macro F1, and how often all of a row's labels are right.
    """
    parts = []
    if "perplexity" in entry["metrics"]:
        for name, title in (("bits_per_byte", "bits per byte"), ("perplexity", "perplexity")):
            metric, form = entry["metrics"][name], ".1f" if name == "perplexity" else ".3f"
            parts.append(f"{title} {metric['value']:{form}} [{metric['low']:{form}}, {metric['high']:{form}}]")
        return f"{split}: {', '.join(parts)} on {entry['tokens']:,} tokens of {entry['count']:,} texts"
    if "bits_per_byte" in entry["metrics"]:
        for name, title in (
            ("loss", "loss"),
            ("masked_accuracy", "masked accuracy"),
            ("bits_per_byte", "bits per byte"),
        ):
            metric, form = entry["metrics"][name], ".1%" if name == "masked_accuracy" else ".3f"
            parts.append(f"{title} {metric['value']:{form}} [{metric['low']:{form}}, {metric['high']:{form}}]")
        return f"{split}: {', '.join(parts)} on {entry['tokens']:,} masked tokens of {entry['count']:,} rows"
    if "rmse" in entry["metrics"]:
        for name, title in (("rmse", "RMSE"), ("mae", "MAE"), ("pearson", "Pearson")):
            metric = entry["metrics"][name]
            if metric["value"] is None:
                parts.append(f"{title} undefined")
            else:
                parts.append(f"{title} {metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]")
        return f"{split}: {', '.join(parts)} on {entry['count']:,} rows"
    titles = {"micro_f1": "micro F1", "macro_f1": "macro F1", "subset_accuracy": "all labels right"}
    if "micro_f1" not in entry["metrics"]:
        titles = {"accuracy": "accuracy", "macro_f1": "macro F1"}
    for name, title in titles.items():
        metric = entry["metrics"][name]
        parts.append(f"{title} {metric['value']:.1%} [{metric['low']:.1%}, {metric['high']:.1%}]")
    return f"{split}: {', '.join(parts)} on {entry['count']:,} rows"
