"""The learning-rate range test (Smith 2017, arXiv:1506.01186, section 3.3): at which rates does a recipe learn?"""

import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import torch
from torch.optim.lr_scheduler import LambdaLR

from finetune.data import load_splits
from finetune.errors import UserError
from finetune.progress import ProgressBar, say
from finetune.recipe import MajorityFloor, Recipe, TfidfFloor, WordVectorModel, with_values
from finetune.run import RunDirectory
from finetune.training import environment
from finetune.training.log import TrainingLog
from finetune.training.loop import Job, LoopState, train_step
from finetune.training.optim import build_optimizer
from finetune.training.train import _batches, _criterion, _encode, _start

_DIVERGED = 4.0
"""Times the lowest loss: beyond that nothing is learnt any more."""


@dataclass(frozen=True)
class RangePoint:
    """One step: the rate that it was made with, and the loss before it."""

    learning_rate: float
    loss: float
    smoothed: float
    """The loss, averaged over the steps before, the later the more."""


@dataclass(frozen=True)
class LearningRateRange:
    """What a range test found."""

    recipe: str
    optimizer: str
    points: tuple[RangePoint, ...]
    steepest: float | None
    """The rate at which the smoothed loss falls fastest per step; None if it never falls."""
    lowest: float
    """The rate at which it is lowest: from here on the steps are too large."""

    def to_json(self) -> str:
        """All of it, to read on with."""
        return json.dumps(asdict(self), indent=1) + "\n"


def learning_rate_range(
    recipe: Recipe, lowest: float = 1e-7, highest: float = 1.0, steps: int = 100
) -> LearningRateRange:
    """Train for `steps` steps, the rate growing by the same factor at each, until the loss runs away.

    The recipe's own rows, batches, optimizer and clipping, on training rows alone; its schedule and gradual unfreezing
    are left out. Nothing is kept of the model.

    Raises:
        UserError: a floor, which has no learning rate, bounds that are none, or data that cannot be used.
    """
    if isinstance(recipe.model, MajorityFloor | TfidfFloor):
        raise UserError(f"{recipe.name}: a {recipe.model.family} floor has no learning rate")
    if isinstance(recipe.model, WordVectorModel):
        raise UserError(f"{recipe.name}: word vectors have a learning rate of their own, which is not for choosing")
    if not 0 < lowest < highest or steps < 10:
        raise UserError(f"a range from {lowest:g} to {highest:g} in {steps} steps: it must rise, in 10 steps or more")
    recipe = with_values(recipe, training={"learning_rate": highest, "report_to": "none", "on_nonfinite": "skip"})
    recipe = with_values(recipe, training={"gradual_unfreezing": False})
    recipe = environment.resolve(recipe)
    accelerator = environment.start_accelerator(recipe, Path(tempfile.gettempdir()))  # nothing is tracked
    if accelerator.num_processes > 1:
        raise UserError("a range test runs in one process; leave the launcher out")
    datasets.disable_progress_bars()
    say(f"{recipe.name}: reading the data")
    splits = load_splits(recipe.data, recipe.task)
    model, tokenizer = _start(recipe, splits)
    assert model is not None
    assert tokenizer is not None
    encoded = _encode("train", recipe, splits, model, tokenizer)
    batches = _batches(recipe, encoded, tokenizer, accelerator)
    optimizer = build_optimizer(model, recipe.training)
    growth = (highest / lowest) ** (1 / (steps - 1))
    scheduler = LambdaLR(optimizer, lambda step: lowest / highest * growth**step)
    prepared_model, prepared_optimizer = accelerator.prepare(model, optimizer)
    torch.manual_seed(recipe.seed + 1)
    with tempfile.TemporaryDirectory(prefix="finetune-range-") as directory:
        log = TrainingLog(RunDirectory(Path(directory)), accelerator)
        job = Job(
            prepared_model,
            batches,
            prepared_optimizer,
            scheduler,
            recipe.training,
            steps,
            lambda _: {},
            accelerator,
            log,
            Path(directory),
            _criterion(recipe, encoded),
        )
        points = _climb(job)
    if not points:
        raise UserError(f"{recipe.name}: the loss is no number at the first step already; `finetune doctor` looks why")
    found = min(points, key=lambda point: point.smoothed)
    return LearningRateRange(
        recipe.name, recipe.training.optimizer, tuple(points), _steepest(points), found.learning_rate
    )


def _climb(job: Job) -> list[RangePoint]:
    state, points = LoopState(), list[RangePoint]()
    average = best = math.inf
    with ProgressBar("climbing", job.total_steps, unit="steps") as bar:
        while state.step < job.total_steps:
            epoch, done = divmod(state.step, job.batches.steps_per_epoch)
            if done == 0:
                state.carried = None
            for step in job.batches.steps(epoch, first_step=done):
                rate = float(job.scheduler.get_last_lr()[0])
                train_step(job, state, step, 0)
                loss = step.mean_loss
                if not math.isfinite(loss):
                    return points
                # A tenth of the way back from each: short enough to see the turn, long enough for small batches.
                keep = 1 - 10 / job.total_steps if job.total_steps > 20 else 0.5
                average = loss if not points else keep * average + (1 - keep) * loss
                points.append(RangePoint(rate, loss, average))
                best = min(best, average)
                bar.advance(1, f"rate {rate:.1e} loss {loss:.3f}")
                if average > _DIVERGED * best or state.step == job.total_steps:
                    return points
    return points


def _steepest(points: list[RangePoint]) -> float | None:
    """Where the smoothed loss falls fastest, before it is lowest; over five steps, so that no single batch decides."""
    lowest = min(range(len(points)), key=lambda i: points[i].smoothed)
    falls = {i: points[i].smoothed - points[i + 5].smoothed for i in range(0, max(0, lowest - 4))}
    best = max(falls, key=lambda i: falls[i], default=None)
    return None if best is None or falls[best] <= 0 else points[best + 2].learning_rate
