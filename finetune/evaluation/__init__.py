"""Evaluation: a model and a split become predictions, predictions become scores with intervals."""

from finetune.evaluation.inference import predict_probabilities
from finetune.evaluation.predictions import Predictions
from finetune.evaluation.record import record_scores
from finetune.evaluation.scores import compute_metrics, describe_scores, score

__all__ = ["Predictions", "compute_metrics", "describe_scores", "predict_probabilities", "record_scores", "score"]
