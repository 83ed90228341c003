"""Metrics as local `evaluate` modules: `evaluate.load` of a file's path and the class itself both work offline.

Each file is complete in itself but for the formulas, which `classification`, `calibration`, `label_sets`, `regression`,
`language` and `writing` beside this package keep for the point values and the bootstrap alike.
"""

from finetune.evaluation.metrics.accuracy import Accuracy
from finetune.evaluation.metrics.average_precision import AveragePrecision
from finetune.evaluation.metrics.bleu import Bleu
from finetune.evaluation.metrics.chrf import Chrf
from finetune.evaluation.metrics.confusion_matrix import ConfusionMatrix
from finetune.evaluation.metrics.copies import Copies
from finetune.evaluation.metrics.exact_match import ExactMatch
from finetune.evaluation.metrics.expected_calibration_error import ExpectedCalibrationError
from finetune.evaluation.metrics.f1 import F1
from finetune.evaluation.metrics.label_sets import LabelSets
from finetune.evaluation.metrics.matthews_correlation import MatthewsCorrelation
from finetune.evaluation.metrics.mean_absolute_error import MeanAbsoluteError
from finetune.evaluation.metrics.mean_squared_error import MeanSquaredError
from finetune.evaluation.metrics.pearson import Pearson
from finetune.evaluation.metrics.precision_recall import PrecisionRecall
from finetune.evaluation.metrics.roc_auc import RocAuc
from finetune.evaluation.metrics.rouge import Rouge
from finetune.evaluation.metrics.token_likelihood import TokenLikelihood
from finetune.evaluation.metrics.variety import Variety

__all__ = [
    "F1",
    "Accuracy",
    "AveragePrecision",
    "Bleu",
    "Chrf",
    "ConfusionMatrix",
    "Copies",
    "ExactMatch",
    "ExpectedCalibrationError",
    "LabelSets",
    "MatthewsCorrelation",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Pearson",
    "PrecisionRecall",
    "RocAuc",
    "Rouge",
    "TokenLikelihood",
    "Variety",
]
