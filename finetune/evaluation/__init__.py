"""Evaluation: a model and a split become predictions, predictions become scores with intervals."""

from finetune.evaluation.analogies import describe_analogies, nearest_words, score_analogies, whole_words
from finetune.evaluation.inference import predict_encoded, predict_one, predict_outputs
from finetune.evaluation.predictions import LabelSets, Predictions, Ratings, TokenSums, predictions_of
from finetune.evaluation.record import record_scores
from finetune.evaluation.scores import compute_metrics, describe_scores, score

__all__ = [
    "LabelSets",
    "Predictions",
    "Ratings",
    "TokenSums",
    "compute_metrics",
    "describe_analogies",
    "describe_scores",
    "nearest_words",
    "predict_encoded",
    "predict_one",
    "predict_outputs",
    "predictions_of",
    "record_scores",
    "score",
    "score_analogies",
    "whole_words",
]
