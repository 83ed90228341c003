"""Predictions -> scores: every metric with a bootstrap interval, computed through local `evaluate` modules."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any, Literal

import evaluate
import numpy as np
from numpy.typing import NDArray

from finetune import tasks
from finetune.evaluation import calibration, classification, label_sets, language, metrics, regression
from finetune.evaluation.predictions import LabelSets, Predictions, Ratings, TokenSums
from finetune.significance import bca_interval, percentile_interval, wilson_interval

IntervalMethod = Literal["percentile", "bca"]

_MATRIX_METRICS: dict[str, Callable[[NDArray[np.number]], NDArray[np.float64]]] = {
    "macro_f1": classification.macro_f1,
    "weighted_f1": classification.weighted_f1,
    "mcc": classification.matthews_correlation,
}
# `evaluate` makes a Python object of each value that it is given: some rows at a time, a million take no memory.
_ROWS_PER_BATCH = 10_000
_MAX_ROWS_IN_MEMORY = 100_000
# So many confusion matrices without one of their rows at a time: those of a hundred labels are 80 kB each.
_CELLS_AT_ONCE = 1000
# Enough for the third moment that an acceleration is; up to so many rows each is a group.
_GROUPS = 1000
_LABEL_METRICS: dict[str, Callable[[NDArray[np.number]], NDArray[np.float64]]] = {
    "precision": classification.precision,
    "recall": classification.recall,
    "f1": classification.f1,
}


_RATING_METRICS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mse": regression.squared_error,
    "rmse": lambda means: np.sqrt(regression.squared_error(means)),
    "mae": regression.absolute_error,
    "pearson": regression.correlation,
    "loss": regression.squared_error,
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
    interval: IntervalMethod = "percentile",
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics with intervals: accuracy has Wilson's, the others the bootstrap's over the rows, as `interval` says.

    Metrics of the confusion matrix are resampled as a multinomial over its cells, which has the same distribution as
    resampling rows (Efron & Tibshirani 1993, ch. 13) and does not depend on their number; the others resample rows.
    For `bca` each metric is also computed without each row in turn; of the areas under curves, which need a pass over
    all rows each time, without each of `_GROUPS` groups of rows.
    """
    of_interval = _Intervals(confidence, interval)
    if isinstance(predictions, LabelSets):
        return _score_sets(predictions, labels, samples, of_interval, seed)
    if isinstance(predictions, Ratings):
        return _score_ratings(predictions, samples, of_interval, seed)
    if isinstance(predictions, TokenSums):
        return _score_tokens(predictions, samples, of_interval, seed)
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
        overall[name] = of_interval(values[name], metric(resampled), partial(_matrix_without_each_row, matrix, metric))
    overall["roc_auc"] = of_interval(
        values["roc_auc"], areas, partial(_without_each_group, count, partial(classification.mean_area, ranked))
    )
    overall["loss"] = of_interval(values["loss"], means, partial(_means_without_each_row, losses))
    # It has no interval: rows drawn twice lie further apart within a bin, so that all draws are too high.
    overall["ece"] = {"value": values["ece"], "low": None, "high": None}
    overall["brier"] = of_interval(values["brier"], briers, partial(_means_without_each_row, distances))
    return {
        "count": count,
        "labels": list(labels),
        **of_interval.described(samples),
        "metrics": overall,
        "per_class": of_interval.by_label(
            labels,
            {
                name: (values[name], metric(resampled), partial(_matrix_without_each_row, matrix, metric))
                for name, metric in _LABEL_METRICS.items()
            },
        ),
        "confusion_matrix": values["confusion_matrix"],
        "reliability": [
            asdict(found) for found in calibration.reliability(predictions.probabilities, predictions.references)
        ],
        "coverage": calibration.coverage_curve(predictions.probabilities, predictions.references),
    }


def _score_sets(
    predictions: LabelSets, labels: Sequence[str], samples: int, of_interval: "_Intervals", seed: int
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
    draws = label_sets.metrics_of(means)
    overall = {
        name: of_interval(values[name], drawn, partial(_without_each_row, rows, partial(_set_metric, name)))
        for name, drawn in draws.items()
    }
    overall["mean_average_precision"] = of_interval(
        values["mean_average_precision"],
        of_scores[:, 0],
        partial(_without_each_group, count, partial(label_sets.mean_average_precision, ranked)),
    )
    overall["loss"] = of_interval(values["loss"], of_scores[:, 1], partial(_means_without_each_row, losses))
    return {
        "count": count,
        "labels": list(labels),
        "threshold": tasks.THRESHOLD,
        **of_interval.described(samples),
        "metrics": overall,
        "per_class": of_interval.by_label(
            labels,
            {
                name: (values[name], metric(means), partial(_without_each_row, rows, metric))
                for name, metric in _SET_METRICS.items()
            },
        ),
    }


def _score_ratings(ratings: Ratings, samples: int, of_interval: "_Intervals", seed: int) -> dict[str, Any]:
    values = compute_metrics(ratings)
    generator = np.random.default_rng(seed)
    count = len(ratings.ids)
    rows = regression.moments(ratings.predicted, ratings.references)
    means = np.empty((samples, rows.shape[1]))
    for sample in range(samples):
        means[sample] = np.bincount(generator.integers(0, count, count), minlength=count) @ rows / count
    return {
        "count": count,
        "labels": [],
        **of_interval.described(samples),
        "metrics": {
            name: of_interval(values[name], metric(means), partial(_without_each_row, rows, metric))
            for name, metric in _RATING_METRICS.items()
        },
    }


def _score_tokens(predictions: TokenSums, samples: int, of_interval: "_Intervals", seed: int) -> dict[str, Any]:
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
        **of_interval.described(samples),
        "metrics": {
            name: of_interval(values[name], metric(sums), partial(_without_each_row, predictions.sums, metric))
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


# --- intervals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Intervals:
    """How intervals are made of draws."""

    confidence: float
    method: IntervalMethod

    def __call__(
        self, value: float | None, draws: NDArray[np.float64], left_out: Callable[[], NDArray[np.float64]]
    ) -> dict[str, float | None]:
        """The interval of draws (n,); `left_out` gives the values without each row, (rows,), should they be needed."""
        # A resample may lack a label altogether; it says nothing about a metric that needs both.
        draws = draws[~np.isnan(draws)]
        if value is None or not len(draws):
            return {"value": value, "low": None, "high": None}
        if self.method == "percentile":
            return asdict(percentile_interval(value, draws, self.confidence))
        values = left_out()
        return asdict(bca_interval(value, draws, values[~np.isnan(values)], self.confidence))

    def by_label(
        self,
        labels: Sequence[str],
        metrics: Mapping[str, tuple[Sequence[float], NDArray[np.float64], Callable[[], NDArray[np.float64]]]],
    ) -> dict[str, dict[str, dict[str, float | None]]]:
        """Intervals of metrics of one label each, of values (labels), draws (n, labels) and the same left out."""
        left_out = {name: cache(of_rows) for name, (_, _, of_rows) in metrics.items()}
        return {
            label: {
                name: self(values[i], draws[:, i], partial(_column, left_out[name], i))
                for name, (values, draws, _) in metrics.items()
            }
            for i, label in enumerate(labels)
        }

    def described(self, samples: int) -> dict[str, Any]:
        return {"confidence_level": self.confidence, "bootstrap_samples": samples, "interval_method": self.method}


def _matrix_without_each_row(
    matrix: NDArray[np.int64], metric: Callable[[NDArray[np.number]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """A metric of the confusion matrix without each row, (rows,) or (rows, labels); all rows of a cell are alike."""
    cells = np.flatnonzero(matrix)
    values = []
    for start in range(0, len(cells), _CELLS_AT_ONCE):
        chunk = cells[start : start + _CELLS_AT_ONCE]
        without = np.tile(matrix.ravel(), (len(chunk), 1))
        without[np.arange(len(chunk)), chunk] -= 1
        values.append(metric(without.reshape(-1, *matrix.shape)))
    return np.repeat(np.concatenate(values), matrix.ravel()[cells], axis=0)


def _without_each_row(
    rows: NDArray[np.float64], metric: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """A metric of the means of rows, (rows, columns), without each of them, (rows,) or (rows, labels)."""
    return metric(_means_without_each_row(rows))


def _set_metric(name: str, means: NDArray[np.float64]) -> NDArray[np.float64]:
    return label_sets.metrics_of(means)[name]


def _column(of_rows: Callable[[], NDArray[np.float64]], label: int) -> NDArray[np.float64]:
    return of_rows()[:, label]


def _means_without_each_row(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The means of rows, (rows, ...), without each of them; nothing of a single one."""
    count = len(rows)
    return (rows.sum(axis=0) - rows) / (count - 1) if count > 1 else rows[:0]


def _without_each_group(count: int, metric: Callable[[NDArray[np.int64]], float]) -> NDArray[np.float64]:
    """A metric of weights of rows, without each of at most `_GROUPS` random groups of them, (groups,)."""
    groups = np.random.default_rng(0).permutation(count) % _GROUPS
    return np.array([metric((groups != group).astype(np.int64)) for group in np.unique(groups)])


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
