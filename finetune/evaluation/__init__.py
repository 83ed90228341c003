"""Evaluation: a model and a split become predictions, predictions become scores with intervals."""

from finetune.evaluation.inference import predict_outputs
from finetune.evaluation.predictions import LabelSets, Predictions, Ratings, TokenSums, predictions_of
from finetune.evaluation.record import record_scores
from finetune.evaluation.scores import compute_metrics, describe_scores, score

__all__ = [
    "LabelSets",
    "Predictions",
    "Ratings",
    "TokenSums",
    "compute_metrics",
    "describe_scores",
    "predict_outputs",
    "predictions_of",
    "record_scores",
    "score",
]
