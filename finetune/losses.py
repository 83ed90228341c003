"""What training minimises where labels are classes; what a model is scored by stays the same."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from finetune.recipe import Loss
from finetune.text.masking import IGNORED_LABEL

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Logits (batch, labels) and label ids (batch,) -> the loss summed over the rows that have a label, a scalar."""


def build_criterion(loss: Loss, counts: Sequence[int]) -> Criterion | None:
    """The recipe's loss for classes of which the training rows have `counts`; None for plain cross-entropy.

    With balanced class weights a row counts n / (classes * rows of its class), 1 on the average over the training rows,
    so that learning rates keep their meaning.
    """
    if loss == Loss():
        return None
    weights = None
    if loss.class_weights == "balanced":
        present = sum(count > 0 for count in counts)
        weights = torch.tensor([sum(counts) / (present * max(1, count)) for count in counts])

    def criterion(logits: Tensor, labels: Tensor) -> Tensor:
        known = labels != IGNORED_LABEL
        rows, targets = logits[known], labels[known]
        of_rows = _row_losses(loss, rows, targets)
        if weights is not None:
            of_rows = of_rows * weights.to(rows)[targets]
        return of_rows.sum()

    return criterion


def _row_losses(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """(rows,) of logits (rows, labels) and targets (rows,)."""
    match loss.kind:
        case "focal":
            # Lin et al. 2017, equation 4: what is sure already counts less.
            losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=loss.label_smoothing)
            surely = logits.softmax(dim=-1).gather(1, targets.unsqueeze(1)).squeeze(1)
            # At 0 a root has no derivative.
            return (1 - surely).clamp(min=1e-6) ** loss.focal_gamma * losses
        case "binary_cross_entropy":
            wanted = _smoothed(targets, logits, loss.label_smoothing)
            return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=-1)
        case "mse":
            wanted = _smoothed(targets, logits, loss.label_smoothing)
            return (logits.softmax(dim=-1) - wanted).square().sum(dim=-1)
        case _:
            return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=loss.label_smoothing)


def _smoothed(targets: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """One for the target and zero for the others, (rows, labels), drawn towards a like share of each."""
    classes = logits.shape[-1]
    return functional.one_hot(targets, classes).to(logits) * (1 - smoothing) + smoothing / classes
