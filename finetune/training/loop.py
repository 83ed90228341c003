"""The loop: one for every family, one optimizer step at a time."""

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from finetune import tasks
from finetune.progress import ProgressBar
from finetune.recipe import Training
from finetune.run import RunDirectory
from finetune.training.batches import EpochBatches
from finetune.training.checkpoint import load_weights, save_weights

Validate = Callable[[nn.Module], dict[str, float]]


@dataclass
class LoopState:
    """All counters of the loop."""

    step: int = 0
    """Optimizer steps done."""
    best_step: int = 0
    """The step whose weights were best on validation; 0 before the first validation."""
    best_score: float = float("-inf")
    """Their score, larger being better."""
    validations_without_improvement: int = 0
    """Validations since then."""
    loss_sum: float = 0.0
    """Loss summed over the targets since the last log record."""
    targets: int = 0
    """Targets since the last log record."""
    rows: int = 0
    """Rows trained on."""
    seconds: float = 0.0
    """Time spent training, validation left out."""


class TrainingLog:
    """train_log.jsonl, and the tracker that the recipe names beside it; written by the main process only."""

    def __init__(self, run: RunDirectory, accelerator: Accelerator) -> None:
        """Start with an empty log."""
        self.accelerator = accelerator
        self.lines: TextIO | None = None
        accelerator.init_trackers(run.name)
        if accelerator.is_main_process:
            self.lines = run.log_file.open("w", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        if self.lines is not None:
            self.lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            self.lines.flush()
        numbers = {key: value for key, value in record.items() if isinstance(value, int | float) and key != "step"}
        numbers |= {f"validation/{key}": value for key, value in record.get("validation", {}).items()}
        self.accelerator.log(numbers, step=record["step"])

    def close(self) -> None:
        if self.lines is not None:
            self.lines.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()


def fit(
    model: nn.Module,
    batches: EpochBatches,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    training: Training,
    total_steps: int,
    validate: Validate,
    accelerator: Accelerator,
    log: TrainingLog,
    best_weights: Path,
) -> LoopState:
    """Train `model` for `total_steps` or until validation stops improving; it ends with its best weights.

    `model` and `optimizer` come prepared by the accelerator. `validate` gives the validation metrics of a model.
    """
    state = LoopState()
    per_epoch = batches.steps_per_epoch
    eval_steps = training.eval_steps or per_epoch
    with ProgressBar("training", total_steps, unit="steps", main_process=accelerator.is_main_process) as bar:
        while state.step < total_steps and not _is_stopped(state, training):
            epoch, done = divmod(state.step, per_epoch)
            for micro_batches in batches.steps(epoch, first_step=done):
                started = time.monotonic()
                learning_rate = float(scheduler.get_last_lr()[0])
                loss_sum, targets, grad_norm = _step(model, micro_batches, optimizer, training, accelerator)
                scheduler.step()
                state.step += 1
                state.loss_sum += loss_sum
                state.targets += targets
                state.rows += sum(len(batch["input_ids"]) for batch in micro_batches) * accelerator.num_processes
                state.seconds += time.monotonic() - started
                bar.advance(1, f"loss {loss_sum / targets:.3f} {state.rows / max(state.seconds, 1e-9):,.0f} rows/s")
                if state.step % training.logging_steps == 0 or state.step == total_steps:
                    log.write(_training_record(state, state.step / per_epoch, learning_rate, grad_norm))
                    state.loss_sum, state.targets = 0.0, 0
                if state.step % eval_steps == 0 or state.step == total_steps:
                    metrics = validate(model)
                    log.write({"step": state.step, "epoch": state.step / per_epoch, "validation": metrics})
                    _keep_best(model, state, metrics, training, accelerator, best_weights)
                if state.step == total_steps or _is_stopped(state, training):
                    break
    accelerator.wait_for_everyone()
    load_weights(accelerator.unwrap_model(model), best_weights)
    return state


def _step(
    model: nn.Module,
    micro_batches: list[dict[str, torch.Tensor]],
    optimizer: torch.optim.Optimizer,
    training: Training,
    accelerator: Accelerator,
) -> tuple[float, int, float]:
    """One optimizer step: (loss summed over all processes, targets of all processes, gradient norm before clipping).

    The summed loss is divided once by the targets of the whole step, over all micro batches and processes, so that the
    step does not depend on how it was cut. DDP averages gradients over processes; times the world size undoes that.
    """
    model.train()
    counts = torch.tensor(float(sum(tasks.target_count(batch) for batch in micro_batches)), device=accelerator.device)
    targets = int(accelerator.reduce(counts, "sum"))
    total = torch.zeros((), device=accelerator.device)
    for number, batch in enumerate(micro_batches, start=1):
        batch = {name: tensor.to(accelerator.device, non_blocking=True) for name, tensor in batch.items()}
        # Processes exchange gradients once per step, with the last micro batch.
        with accelerator.no_sync(model) if number < len(micro_batches) else nullcontext():
            loss = tasks.loss_sum(model, batch)
            accelerator.backward(loss * (accelerator.num_processes / targets))
        total += loss.detach()
    grad_norm = accelerator.clip_grad_norm_(model.parameters(), training.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return float(accelerator.reduce(total, "sum")), targets, float(grad_norm)


def _training_record(state: LoopState, epoch: float, learning_rate: float, grad_norm: float) -> dict[str, Any]:
    return {
        "step": state.step,
        "epoch": epoch,
        "loss": state.loss_sum / state.targets,
        "learning_rate": learning_rate,
        "grad_norm": grad_norm,
        "targets": state.targets,
        "seconds": round(state.seconds, 3),
    }


def _keep_best(
    model: nn.Module,
    state: LoopState,
    metrics: dict[str, float],
    training: Training,
    accelerator: Accelerator,
    best_weights: Path,
) -> None:
    value = metrics[training.metric_for_best_model]
    score = -value if training.metric_for_best_model == "loss" else value
    # The first of equals stays: it took fewer steps.
    if state.best_step and score <= state.best_score:
        state.validations_without_improvement += 1
        return
    state.best_score, state.best_step, state.validations_without_improvement = score, state.step, 0
    if accelerator.is_main_process:
        save_weights(accelerator.unwrap_model(model), best_weights)


def _is_stopped(state: LoopState, training: Training) -> bool:
    patience = training.early_stopping_patience
    return patience is not None and state.validations_without_improvement >= patience
