"""What training minimises where labels are classes; what a model is scored by stays the same."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from finetune.recipe import Loss
from finetune.text.masking import IGNORED_LABEL

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Logits (batch, labels) and label ids (batch,) -> the loss summed over the rows that have a label, a scalar.

Or zeros and ones (batch, labels) in place of the ids, NaN in rows that are no targets.
"""


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


def build_set_criterion(loss: Loss, counts: Sequence[int], rows: int) -> Criterion | None:
    """The recipe's loss where a row may have several labels, of which so many of the `rows` training rows have each.

    None for plain binary cross-entropy. With balanced class weights a row that has a label counts (rows - count) /
    count for it, as PyTorch's `pos_weight` does: together those that have it weigh as much as those that have not.
    """
    if loss.kind != "focal" and loss.class_weights == "none":
        return None
    weights = None
    if loss.class_weights == "balanced":
        weights = torch.tensor([max(1, rows - count) / max(1, count) for count in counts])
    gamma = loss.focal_gamma if loss.kind == "focal" else 0.0

    def criterion(logits: Tensor, labels: Tensor) -> Tensor:
        return label_set_loss(logits, labels, weights, gamma)

    return criterion


def label_set_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None, focal_gamma: float = 0.0) -> Tensor:
    """The binary cross-entropy of logits and zeros and ones, both (batch, labels), in nats.

    A mean over the labels of a row, so that learning rates keep their meaning whatever their number, and a sum over
    the rows that are targets. `weights` (labels,) are those of the ones. With a `focal_gamma` what is sure already
    counts less, by (1 - p)^gamma of the probability p of what is right (Lin et al. 2017, equation 4).
    """
    known = ~labels.isnan().any(dim=1)
    logits, wanted = logits[known], labels[known].to(logits)
    of_ones = None if weights is None else weights.to(logits)
    losses = functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=of_ones, reduction="none")
    if focal_gamma:
        surely = torch.where(wanted > 0, logits, -logits).sigmoid()
        # At 0 a root has no derivative.
        losses = (1 - surely).clamp(min=1e-6) ** focal_gamma * losses
    return losses.mean(dim=-1).sum()


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
