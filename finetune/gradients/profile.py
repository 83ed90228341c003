"""One measurement: the gradients of rows by their embeddings, and the line through the logarithms of their norms."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn
from transformers import PreTrainedModel

from finetune import tasks
from finetune.errors import UserError
from finetune.gradients.rows import MeasuredRows
from finetune.gradients.variants import SHORTEST
from finetune.losses import Criterion
from finetune.reporting.comparison import Metric
from finetune.reporting.gradients import CONFIDENCE, Profile

_ROWS_AT_ONCE = 16
"""Measured at a time: a base model keeps a hundred megabytes of each for the gradient, in double precision."""

Norms = NDArray[np.float64]


def scale_recurrence(model: nn.Module, gain: float) -> None:
    """Make every recurrent matrix of plain RNNs an orthogonal one times `gain`, which is then its spectral radius.

    And its only singular value: without the tanh, the gradient grows by just this factor per step. Drawn from torch's
    seed.
    """
    for matrix in _recurrent_matrices(model):
        nn.init.orthogonal_(matrix, gain)


def _recurrent_matrices(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        if isinstance(module, nn.RNN):
            yield from (weight for name, weight in module.named_parameters() if name.startswith("weight_hh"))


def embedding_gradients(
    model: PreTrainedModel, batch: dict[str, Tensor], criterion: Criterion | None = None
) -> tuple[Tensor, float]:
    """dL_i/de_i,t, the gradient of each row's own loss by its embeddings, (rows, length, embedding); the summed loss.

    The loss is `criterion`, or cross-entropy. Rows do not see each other, so that one backward pass of the summed loss
    gives all of them.

    Raises:
        UserError: the model does not read a text by one table of embeddings.
    """
    read: list[Tensor] = []

    def make_leaf(_: nn.Module, __: object, states: Tensor) -> Tensor:
        read.append(states.detach().requires_grad_())
        return read[-1]

    try:
        embed: nn.Module = model.get_input_embeddings()
    except NotImplementedError:
        raise _not_embedding(model) from None
    hook = embed.register_forward_hook(make_leaf)
    try:
        loss, _ = tasks.loss_and_state(model, batch, criterion=criterion)
    finally:
        hook.remove()
    if len(read) != 1:
        raise _not_embedding(model)
    return torch.autograd.grad(loss, read[0])[0], float(loss.detach())


def _not_embedding(model: nn.Module) -> UserError:
    return UserError(f"{type(model).__name__} does not read a text by one table of embeddings; it cannot be measured")


def _gradient_norms(model: PreTrainedModel, rows: MeasuredRows, criterion: Criterion | None) -> tuple[Norms, float]:
    """||dL_i/de_i,t|| by distance from the last token of the text, (rows, tokens), 0 being the last; the mean loss."""
    found, loss = [], 0.0
    for begin in range(0, len(rows.are_text), _ROWS_AT_ONCE):
        some = {name: tensor[begin : begin + _ROWS_AT_ONCE].to(model.device) for name, tensor in rows.batch.items()}
        gradients, loss_of_these = embedding_gradients(model, some, criterion)
        found.append(gradients.norm(dim=-1).cpu().numpy())
        loss += loss_of_these
    norms: Norms = np.concatenate(found)[rows.are_text].reshape(len(rows.are_text), -1)
    return norms[:, ::-1], loss / len(norms)


def _measuring_twin(model: PreTrainedModel) -> PreTrainedModel:
    """A copy without dropout and in double precision, in which what vanishes by 10^-300 is still a number."""
    twin = copy.deepcopy(model)
    if model.device.type == "mps":  # it has no double precision
        twin = twin.cpu()
    twin = twin.double().eval()
    for module in twin.modules():
        if isinstance(module, nn.RNNBase):
            module.train()  # cuDNN has gradients in training mode only; these layers have no dropout of their own
    return twin


def measure(
    model: PreTrainedModel,
    measured: dict[int, MeasuredRows],
    criterion: Criterion | None,
    step: int,
    *,
    clipped: bool | None,
) -> list[Profile]:
    """A profile for each length."""
    twin = _measuring_twin(model)
    matrices = [matrix.detach() for matrix in _recurrent_matrices(twin)]
    radii = tuple(float(torch.linalg.eigvals(matrix).abs().max()) for matrix in matrices)
    singular = tuple(float(torch.linalg.matrix_norm(matrix, 2)) for matrix in matrices)
    found = []
    for length, rows in measured.items():
        norms, loss = _gradient_norms(twin, rows, criterion)
        found.append(
            replace(
                summarize(norms),
                step=step,
                clipped=clipped,
                length=length,
                loss=finite(loss),
                spectral_radii=radii,
                largest_singular_values=singular,
            )
        )
    return found


def summarize(norms: Norms) -> Profile:
    """Norms by row and distance, (rows, tokens), as a profile: means, quartiles, and the line through their logarithms.

    A least-squares line is linear in what it goes through: that of the mean logarithms is the mean of the rows' lines,
    and Student's interval over the rows' slopes is one for its slope. Places where any row's gradient is zero (a tanh
    that is saturated in all its bits) or not finite are left out.
    """
    rows, length = norms.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms: Norms = np.log10(norms)
    known = np.asarray(np.isfinite(logarithms).all(axis=0))
    kept, distances = logarithms[:, known], np.arange(length)[known]
    slope, r_squared = Metric(None, None, None), None
    if known.sum() >= SHORTEST:
        mean, centred = kept.mean(axis=0), distances - distances.mean()
        slopes = kept @ centred / (centred @ centred)
        error = slopes.std(ddof=1) / math.sqrt(rows) * stats.t.ppf((1 + CONFIDENCE) / 2, rows - 1)
        value = float(slopes.mean())
        slope = Metric(value, value - float(error), value + float(error))
        residuals = mean - mean.mean() - value * centred
        total = float(((mean - mean.mean()) ** 2).sum())
        r_squared = 1 - float((residuals**2).sum()) / total if total > 0 else None
    means = [float(10**m) if is_known else None for m, is_known in zip(logarithms.mean(axis=0), known, strict=True)]
    lower, upper = (
        tuple(float(10**q) if is_known else None for q, is_known in zip(of_rows, known, strict=True))
        for of_rows in np.quantile(np.where(known, logarithms, 0.0), [0.25, 0.75], axis=0)
    )
    first, last = means[-1], means[0]
    return Profile(
        step=0,
        clipped=None,
        length=length,
        loss=None,
        norms=tuple(means),
        lower=lower,
        upper=upper,
        slope=slope,
        r_squared=r_squared,
        half_life=-math.log10(2) / slope.value if slope.value else None,
        first_to_last=None if first is None or last is None else first / last,
        spectral_radii=(),
        largest_singular_values=(),
    )


def finite(value: float | None) -> float | None:
    """`value` where it is a number."""
    return value if value is not None and math.isfinite(value) else None
