"""Weights on disk during a training: the best so far, as safetensors, replaced whole or not at all."""

from pathlib import Path

from safetensors.torch import load_model, save_model
from torch import nn


def save_weights(model: nn.Module, file: Path) -> None:
    """Write the weights so that a reader sees the old file or the new one, never half of one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    save_model(model, str(temporary))
    temporary.replace(file)


def load_weights(model: nn.Module, file: Path) -> None:
    """Read the weights that `save_weights` wrote into `model`.

    Raises:
        RuntimeError: the file holds other tensors than the model.
    """
    load_model(model, str(file), strict=True)
