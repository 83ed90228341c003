"""The loop: one for every family, one optimizer step at a time."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from finetune import tasks
from finetune.errors import Interrupted, UserError
from finetune.losses import Criterion
from finetune.models.layers import still_frozen_parts
from finetune.models.recurrent_lm import State
from finetune.progress import ProgressBar, say
from finetune.recipe import Training
from finetune.training.batches import EpochBatches, Step, halve
from finetune.training.checkpoint import (
    load_best_weights,
    load_carried,
    load_checkpoint,
    restore_best_weights,
    save_best_weights,
    save_checkpoint,
)
from finetune.training.interrupt import StopSignals
from finetune.training.log import Timer, TrainingLog
from finetune.training.optim import keep_frozen
from finetune.training.streams import StreamBatches


@dataclass
class LoopState:
    """All counters of the loop; what else a training is made of lies in weights, optimizer, schedule and generators."""

    step: int = 0
    """Optimizer steps done."""
    best_step: int = 0
    """The step whose weights were best on validation; 0 before the first validation."""
    best_score: float | None = None
    """Their score, larger being better."""
    validations_without_improvement: int = 0
    """Validations since then."""
    loss_sum: float = 0.0
    """Loss summed over the targets since the last log record."""
    targets: int = 0
    """Targets since the last log record."""
    rows: int = 0
    """Rows trained on."""
    tokens: int = 0
    """Their tokens, special ones included, padding not; with subword sampling those of the unsampled text."""
    seconds: float = 0.0
    """Time spent training, validation left out."""
    carried: State | None = None
    """What a recurrent model carries on from this process's last batch, where batches go on from one another."""

    def counters(self) -> dict[str, Any]:
        """All but what is carried, as JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "carried"}


@dataclass(frozen=True)
class Job:
    """What the loop works with; `model` and `optimizer` come prepared by the accelerator."""

    model: nn.Module
    batches: EpochBatches | StreamBatches
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    training: Training
    total_steps: int
    validate: Callable[[nn.Module], dict[str, float]]
    """A model -> its validation metrics."""
    accelerator: Accelerator
    log: TrainingLog
    checkpoints: Path
    criterion: Criterion | None = None
    """The loss of classes, where it is not plain cross-entropy."""


def fit(job: Job, state: LoopState) -> LoopState:
    """Train for `total_steps` or until validation stops improving; the model ends with its best weights.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the state is saved.
        UserError: the loss or its gradient is not finite and the recipe says to stop, or the disk is full.
    """
    training, per_epoch = job.training, job.batches.steps_per_epoch
    eval_steps = training.eval_steps or per_epoch
    save_steps = training.save_steps or eval_steps
    main = job.accelerator.is_main_process
    if job.total_steps == 0:  # the model as it is
        metrics = job.validate(job.model)
        job.log.write({"step": 0, "epoch": 0.0, "validation": metrics})
        _keep_best(job, state, metrics)
    with (
        StopSignals() as signals,
        ProgressBar("training", job.total_steps, done=state.step, unit="steps", main_process=main) as bar,
    ):
        while state.step < job.total_steps and not _is_stopped(state, training):
            epoch, done = divmod(state.step, per_epoch)
            if done == 0:
                state.carried = None  # a text is read from its beginning
            for step in job.batches.steps(epoch, first_step=done):
                signal_number = train_step(job, state, step, signals.received)
                bar.advance(1, _progress(state, step))
                is_last = state.step == job.total_steps
                if state.step % eval_steps == 0 or is_last:
                    metrics = job.validate(job.model)
                    job.log.write({"step": state.step, "epoch": state.step / per_epoch, "validation": metrics})
                    _keep_best(job, state, metrics)
                    is_last = is_last or _is_stopped(state, training)
                if state.step % save_steps == 0 or is_last or signal_number:
                    _save(job, state)
                if signal_number:
                    raise Interrupted(state.step, signal_number)
                if is_last:
                    break
    job.accelerator.wait_for_everyone()
    load_best_weights(job.accelerator.unwrap_model(job.model), job.checkpoints)
    return state


def _progress(state: LoopState, step: Step) -> str:
    seconds = max(state.seconds, 1e-9)
    speed = f"{state.rows / seconds:,.0f} rows/s {state.tokens / seconds:,.0f} tokens/s"
    return f"loss {step.mean_loss:.3f} {speed}"


def train_step(job: Job, state: LoopState, step: Step, signal_number: int) -> int:
    """One optimizer step and its log record; returns the signal that any process received, or 0.

    The summed loss is divided once by the targets of the whole step, over all micro batches and processes, so that the
    step does not depend on how it was cut.
    """
    timer = Timer()
    own = sum(tasks.target_count(batch) for batch in step.micro_batches)
    step.targets, signal_number = (int(total) for total in _sum(job, [own, signal_number]))
    learning_rate = float(job.scheduler.get_last_lr()[0])
    job.model.train()
    still_frozen_parts(job.accelerator.unwrap_model(job.model))
    own_loss, carried = _accumulate(job, state, step)
    loss_sum = _sum(job, [own_loss])[0]
    step.mean_loss = loss_sum / max(1, step.targets)  # rows of nothing but unmaskable tokens have none
    if job.training.gradual_unfreezing:
        keep_frozen(job.accelerator.unwrap_model(job.model), state.step // job.batches.steps_per_epoch)
    grad_norm = float(job.accelerator.clip_grad_norm_(job.model.parameters(), job.training.max_grad_norm))
    # With fp16 a gradient that overflows is the scaler's affair: it skips the step and scales down.
    is_finite = math.isfinite(loss_sum) and (math.isfinite(grad_norm) or job.training.mixed_precision == "fp16")
    state.step += 1
    if is_finite:
        job.optimizer.step()
        state.loss_sum += loss_sum
        state.targets += step.targets
        state.carried = carried
    else:
        _refuse_or_skip(job, state, step, loss_sum, grad_norm)
    job.optimizer.zero_grad()
    job.scheduler.step()
    state.rows += step.row_count
    state.tokens += step.token_count
    state.seconds += timer.seconds()
    if (state.step % job.training.logging_steps == 0 or state.step == job.total_steps) and state.targets:
        job.log.write(_training_record(job, state, learning_rate, grad_norm))
        state.loss_sum, state.targets = 0.0, 0
    return signal_number


def _accumulate(job: Job, state: LoopState, step: Step) -> tuple[float, State | None]:
    """Forward and backward over this process's micro batches; returns the summed loss and what is to be carried on.

    Where the GPU's memory does not hold a micro batch, all are halved and the step starts again: the global batch, and
    so the training, stays the same.
    """
    accelerator = job.accelerator
    while True:
        try:
            total, begin, carried = 0.0, 0, list[State]()
            for number, batch in enumerate(step.micro_batches, start=1):
                batch = {name: tensor.to(accelerator.device, non_blocking=True) for name, tensor in batch.items()}
                # Processes exchange gradients once per step, with the last micro batch. DDP averages them over the
                # processes; times their number undoes that.
                is_last = number == len(step.micro_batches)
                end = begin + len(batch["labels"])
                before = None if state.carried is None else tuple(part[:, begin:end] for part in state.carried)
                with nullcontext() if is_last else accelerator.no_sync(job.model):
                    loss, after = tasks.loss_and_state(job.model, batch, before, job.criterion)
                    accelerator.backward(loss * (accelerator.num_processes / max(1, step.targets)))
                total, begin = total + float(loss.detach()), end
                if job.batches.carries_state:
                    assert after is not None  # held by the recipe's own check
                    # Cut off from what computed it: the gradient reaches back to the beginning of the batch only.
                    carried.append(tuple(part.detach() for part in after))
            joined = tuple(torch.cat(parts, dim=1) for parts in zip(*carried, strict=True))
            return total, joined or None
        except torch.OutOfMemoryError:
            size = max(len(batch["labels"]) for batch in step.micro_batches)
            if size == 1 or accelerator.num_processes > 1:
                raise UserError(
                    f"the GPU's memory does not hold {size} row(s) at step {state.step + 1}; lower "
                    "training.micro_batch_size (the global batch stays the same) or text.max_length"
                ) from None
        job.optimizer.zero_grad()
        torch.cuda.empty_cache()
        job.batches.micro_batch_size = -(-size // 2)
        step.micro_batches = halve(step.micro_batches)
        job.log.write({"step": state.step, "micro_batch_size": job.batches.micro_batch_size, "reason": "out of memory"})
        say(f"out of memory: micro_batch_size is now {job.batches.micro_batch_size}; the global batch stays the same")


def _sum(job: Job, values: list[float]) -> list[float]:
    """Each value summed over all processes, in double precision."""
    if job.accelerator.num_processes == 1:
        return values
    totals = torch.tensor(values, dtype=torch.float64, device=job.accelerator.device)
    return job.accelerator.reduce(totals, "sum").tolist()


def _refuse_or_skip(job: Job, state: LoopState, step: Step, loss_sum: float, grad_norm: float) -> None:
    what = f"loss {step.mean_loss}" if not math.isfinite(loss_sum) else f"gradient norm {grad_norm}"
    ids = job.batches.row_ids(step.rows)
    rows = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    if job.training.on_nonfinite == "stop":
        raise UserError(
            f"{what} at step {state.step} (rows {rows}); lower training.learning_rate, mend the rows, or set "
            "training.on_nonfinite skip"
        )
    job.log.write({"step": state.step, "skipped": what, "rows": ids})
    say(f"step {state.step} skipped: {what} (rows {rows})", main_process=job.accelerator.is_main_process)


def _training_record(job: Job, state: LoopState, learning_rate: float, grad_norm: float) -> dict[str, Any]:
    return {
        "step": state.step,
        "epoch": state.step / job.batches.steps_per_epoch,
        "loss": state.loss_sum / state.targets,
        "learning_rate": learning_rate,
        "grad_norm": grad_norm,
        "targets": state.targets,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 3),
    }


def _keep_best(job: Job, state: LoopState, metrics: dict[str, float]) -> None:
    value = metrics[job.training.metric_for_best_model]
    score = -value if job.training.metric_for_best_model in ("loss", "rmse", "mae", "bits_per_byte") else value
    # The first of equals stays: it took fewer steps. A score that is not a number is never better, and beats nothing.
    best = -math.inf if state.best_score is None or math.isnan(state.best_score) else state.best_score
    if state.best_score is not None and not score > best:
        state.validations_without_improvement += 1
        return
    state.best_score, state.best_step, state.validations_without_improvement = score, state.step, 0
    if job.accelerator.is_main_process:
        save_best_weights(job.accelerator.unwrap_model(job.model), job.checkpoints)


def _is_stopped(state: LoopState, training: Training) -> bool:
    patience = training.early_stopping_patience
    return patience is not None and state.validations_without_improvement >= patience


# --- saving and going on ----------------------------------------------------------------------------------------------


def _save(job: Job, state: LoopState) -> None:
    accelerator = job.accelerator
    generators: dict[str, Tensor] = {f"{accelerator.process_index}.cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        generators[f"{accelerator.process_index}.cuda"] = torch.cuda.get_rng_state(accelerator.device)
    if accelerator.num_processes > 1:
        generators = {name: tensor for part in gather_object([generators]) for name, tensor in part.items()}
    carried = {
        f"{accelerator.process_index}.carried.{number}": part.cpu() for number, part in enumerate(state.carried or ())
    }
    if accelerator.num_processes > 1:
        carried = {name: tensor for part in gather_object([carried]) for name, tensor in part.items()}
    schedule = {name: value for name, value in job.scheduler.state_dict().items() if name != "lr_lambdas"}
    scaler = None if accelerator.scaler is None else accelerator.scaler.state_dict()
    if accelerator.is_main_process:
        save_checkpoint(
            job.checkpoints,
            state.step,
            accelerator.unwrap_model(job.model),
            job.optimizer,
            generators,
            {"loop": state.counters(), "schedule": schedule, "scaler": scaler},
            keep=job.training.save_total_limit,
            carried=carried,
        )
    accelerator.wait_for_everyone()


def restore(job: Job, checkpoint: Path) -> LoopState:
    """Put everything back as it was when `checkpoint` was written, and cut the log back to its step."""
    accelerator = job.accelerator
    generators, saved = load_checkpoint(checkpoint, accelerator.unwrap_model(job.model), job.optimizer)
    if accelerator.is_main_process:
        restore_best_weights(checkpoint)
    job.scheduler.load_state_dict({**job.scheduler.state_dict(), **saved["schedule"]})
    for group, learning_rate in zip(job.optimizer.param_groups, job.scheduler.get_last_lr(), strict=True):
        group["lr"] = learning_rate
    if saved["scaler"] and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(saved["scaler"])
    torch.set_rng_state(generators[f"{accelerator.process_index}.cpu"])
    if accelerator.device.type == "cuda":
        torch.cuda.set_rng_state(generators[f"{accelerator.process_index}.cuda"], accelerator.device)
    state = LoopState(**saved["loop"], carried=_own_carried(load_carried(checkpoint), accelerator))
    job.log.begin(state.step)
    accelerator.wait_for_everyone()
    return state


def _own_carried(carried: dict[str, Tensor], accelerator: Accelerator) -> State | None:
    """What this process carried on, by layer."""
    prefix = f"{accelerator.process_index}.carried."
    numbers = sorted(int(name.removeprefix(prefix)) for name in carried if name.startswith(prefix))
    return tuple(carried[f"{prefix}{number}"].to(accelerator.device) for number in numbers) or None
