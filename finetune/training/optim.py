"""The optimizer, its learning rate for each layer, and the schedule."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from transformers import get_scheduler

from finetune.models.layers import layer_depths
from finetune.recipe import Training


def build_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The recipe's optimizer; weight decay on matrices only, not on biases, norms or embeddings.

    `adamw` is fused AdamW (Loshchilov & Hutter 2019), `sgd` has momentum, `adafactor` is PyTorch's (Shazeer & Stern
    2018), its steps relative to the weights' own size, so that it needs higher rates. The first group is of the layer
    that learns fastest.
    """
    groups = list(_groups(model, training))
    match training.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum)
        case "adafactor":
            return torch.optim.Adafactor(groups, lr=training.learning_rate)
        case _:
            return torch.optim.AdamW(
                groups,
                lr=training.learning_rate,
                betas=(training.adam_beta1, training.adam_beta2),
                eps=training.adam_epsilon,
                fused=True,
            )


def _groups(model: nn.Module, training: Training) -> Iterator[dict[str, Any]]:
    """Parameter groups: per depth, the highest first, decayed and not; one depth if all layers learn alike."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    depths = layer_depths(model) if training.layerwise_lr_decay < 1 else {}
    by_depth: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decayed, others = by_depth.setdefault(depths.get(name, 0), ([], []))
            (decayed if parameter.ndim >= 2 and id(parameter) not in embeddings else others).append(parameter)
    top = max(depths.values(), default=0)
    for depth, (decayed, others) in sorted(by_depth.items(), reverse=True):
        rate = training.learning_rate * training.layerwise_lr_decay ** (top - depth)
        yield {"params": decayed, "weight_decay": training.weight_decay, "lr": rate}
        yield {"params": others, "weight_decay": 0.0, "lr": rate}


def keep_frozen(model: nn.Module, epoch: int) -> None:
    """Drop the gradients of what gradual unfreezing (Howard & Ruder 2018) does not train yet in this epoch, from 0.

    The gradients are computed all the same: processes that exchange them have to agree on whose, from start to end.
    """
    depths = layer_depths(model)
    lowest = max(depths.values()) - epoch
    for name, parameter in model.named_parameters():
        if depths[name] < lowest:
            parameter.grad = None


def build_scheduler(optimizer: torch.optim.Optimizer, training: Training, total_steps: int) -> LRScheduler:
    """Warm-up from zero over `warmup_ratio` of `total_steps`, then the recipe's shape; each group from its own peak.

    `linear` and `cosine` fall to zero, `inverse_sqrt` with the root of the steps (Vaswani et al. 2017), `constant` does
    not. `one_cycle` (Smith & Topin 2018) rises from a 25th of the peak and falls to a 10,000th of that, with the same
    momentum throughout, which Adam's betas want.
    """
    if training.lr_scheduler_type == "one_cycle":
        steps = max(1, total_steps) + 1  # it is asked once more, after the last step
        # A rise that is over at the very first step is divided by zero.
        rise = training.warmup_ratio if training.warmup_ratio * steps != 1 else 1.001 / steps
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=steps,
            pct_start=rise,
            cycle_momentum=False,
        )
    name = "constant_with_warmup" if training.lr_scheduler_type == "constant" else training.lr_scheduler_type
    warmup_steps = round(training.warmup_ratio * total_steps)
    return get_scheduler(name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=total_steps)
