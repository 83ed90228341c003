"""Checkpoints: everything a training needs to go on, written whole or not at all, and believed only when intact.

A checkpoint is a directory of safetensors and JSON, nothing that could run code, with a manifest of sizes and sha256.
It is written beside its place, flushed to the disk and put in place by one rename.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from finetune.errors import UserError, is_disk_full

BEST_WEIGHTS = "best.safetensors"
_MODEL, _OPTIMIZER, _GENERATORS, _STATE = (
    "model.safetensors",
    "optimizer.safetensors",
    "generators.safetensors",
    "state.json",
)
_CARRIED = "carried.safetensors"
_MANIFEST = "manifest.json"
_UNFINISHED = ".unfinished-"


def save_checkpoint(
    directory: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: dict[str, Tensor],
    state: dict[str, Any],
    keep: int,
    carried: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write `directory`/step-NNNNNN and remove all but the newest `keep` checkpoints; returns its path.

    `generators` are random states as byte tensors; `state` is JSON; `carried` is what recurrent models carry on. The
    best weights so far, in `directory`, go along.

    Raises:
        UserError: the disk is full or the file cannot be written; earlier checkpoints are untouched.
    """
    final = directory / f"step-{step:06d}"
    unfinished = directory / f"{_UNFINISHED}{final.name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        save_model(model, str(unfinished / _MODEL))
        save_file(_flatten(optimizer.state_dict()["state"]), unfinished / _OPTIMIZER)
        save_file(generators, unfinished / _GENERATORS)
        if carried:
            save_file({name: tensor.contiguous() for name, tensor in carried.items()}, unfinished / _CARRIED)
        (unfinished / _STATE).write_text(json.dumps(state), encoding="utf-8")
        if (directory / BEST_WEIGHTS).exists():
            shutil.copyfile(directory / BEST_WEIGHTS, unfinished / BEST_WEIGHTS)
        files = {path.name: _fingerprint(path) for path in sorted(unfinished.iterdir())}
        (unfinished / _MANIFEST).write_text(json.dumps(files, indent=2), encoding="utf-8")
        for path in (*unfinished.iterdir(), unfinished):
            _flush(path)
        if final.exists():  # a damaged one of the same step, which a resumed run passed over
            shutil.rmtree(final)
        unfinished.rename(final)
        _flush(directory)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise _explain(error, directory) from None
    for old in list_checkpoints(directory)[keep:]:
        shutil.rmtree(old)
    return final


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in `directory`, the newest first."""
    return sorted(directory.glob("step-*"), reverse=True)


def find_checkpoint(directory: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is intact; each damaged one before it is named through `say`."""
    for unfinished in directory.glob(f"{_UNFINISHED}*"):
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        else:  # the best weights are one file
            unfinished.unlink()
    for checkpoint in list_checkpoints(directory):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint
        say(f"{checkpoint}: {damage}; the checkpoint before it is used")
    return None


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, by its manifest; None if it is intact."""
    try:
        manifest = json.loads((checkpoint / _MANIFEST).read_text(encoding="utf-8"))
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{_MANIFEST} is missing or damaged"
    for name, (size, digest) in expected.items():
        path = checkpoint / name
        if Path(name).name != name or not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
        if _fingerprint(path)["sha256"] != digest:
            return f"{name} is damaged (its sha256 differs)"
    absent = {_MODEL, _OPTIMIZER, _GENERATORS, _STATE} - expected.keys()
    return f"{min(absent)} is missing" if absent else None


def load_checkpoint(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Put a checkpoint's weights and optimizer state in place; returns (generators, state)."""
    load_model(model, str(checkpoint / _MODEL), strict=True)
    fresh = optimizer.state_dict()
    optimizer.load_state_dict({**fresh, "state": _unflatten(load_file(checkpoint / _OPTIMIZER))})
    state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    return load_file(checkpoint / _GENERATORS), state


def load_carried(checkpoint: Path) -> dict[str, Tensor]:
    """What recurrent models carried on, by name; nothing where nothing was."""
    return load_file(checkpoint / _CARRIED) if (checkpoint / _CARRIED).exists() else {}


def restore_best_weights(checkpoint: Path) -> None:
    """Put the best weights of a checkpoint's time back in their place; one process only, since all share the file."""
    best = checkpoint / BEST_WEIGHTS
    if best.exists():
        _replace(checkpoint.parent / BEST_WEIGHTS, lambda path: shutil.copyfile(best, path))


def save_best_weights(model: nn.Module, directory: Path) -> None:
    """Keep the weights as the best so far; a reader sees the old file or the new one, never half of one.

    Raises:
        UserError: the disk is full or the file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        _replace(directory / BEST_WEIGHTS, lambda path: save_model(model, str(path)))
    except (OSError, SafetensorError) as error:
        raise _explain(error, directory) from None


def load_best_weights(model: nn.Module, directory: Path) -> None:
    """Read the weights that `save_best_weights` kept into `model`."""
    load_model(model, str(directory / BEST_WEIGHTS), strict=True)


def _replace(file: Path, write: Callable[[Path], object]) -> None:
    temporary = file.with_name(f"{_UNFINISHED}{file.name}")
    try:
        write(temporary)
        _flush(temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(file.parent)


def _explain(error: Exception, directory: Path) -> UserError:
    last = next((path.name for path in list_checkpoints(directory)), "none yet")
    what = "no space left on the disk" if is_disk_full(error) else f"cannot write a checkpoint: {error}"
    return UserError(f"{directory}: {what}; the last good checkpoint ({last}) is intact: make room, then --resume")


def _flatten(state: dict[int, dict[str, Any]]) -> dict[str, Tensor]:
    """Optimizer state by parameter number and name -> one flat mapping, as safetensors needs it."""
    return {
        f"{number}.{name}": value.detach().cpu().contiguous().clone()
        for number, values in state.items()
        for name, value in values.items()
    }


def _unflatten(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    return state


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _flush(path: Path) -> None:
    """Make sure that a file's content, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
