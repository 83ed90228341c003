"""Metrics as local `evaluate` modules: `evaluate.load` of a file's path and the class itself both work offline.

Each file is complete in itself but for the formulas, which `classification`, `regression` and `language` beside this
package keep for the point values and the bootstrap alike.
"""

from finetune.evaluation.metrics.accuracy import Accuracy
from finetune.evaluation.metrics.confusion_matrix import ConfusionMatrix
from finetune.evaluation.metrics.f1 import F1
from finetune.evaluation.metrics.matthews_correlation import MatthewsCorrelation
from finetune.evaluation.metrics.mean_absolute_error import MeanAbsoluteError
from finetune.evaluation.metrics.mean_squared_error import MeanSquaredError
from finetune.evaluation.metrics.pearson import Pearson
from finetune.evaluation.metrics.precision_recall import PrecisionRecall
from finetune.evaluation.metrics.roc_auc import RocAuc
from finetune.evaluation.metrics.token_likelihood import TokenLikelihood

__all__ = [
    "F1",
    "Accuracy",
    "ConfusionMatrix",
    "MatthewsCorrelation",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Pearson",
    "PrecisionRecall",
    "RocAuc",
    "TokenLikelihood",
]
