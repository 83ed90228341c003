"""Each model from its initial weights through a short training, measured on the way."""

import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from finetune import __version__
from finetune.data import Splits, load_splits
from finetune.data.splits import label_array
from finetune.errors import UserError
from finetune.gradients.profile import finite, measure, scale_recurrence
from finetune.gradients.rows import MeasuredRows, Texts, read_texts
from finetune.gradients.variants import Plan, Variant, build, check_recipes, prepare, variants_of
from finetune.losses import build_criterion
from finetune.models import start_from_counts
from finetune.progress import ProgressBar, say
from finetune.recipe import EncoderModel, Recipe, published_tree
from finetune.reporting.comparison import describe_model
from finetune.reporting.gradients import (
    CONFIDENCE,
    QUANTITY,
    GradientReport,
    Profile,
    StepNorms,
    TracedModel,
    check_output,
    write_gradients,
)
from finetune.run import RunDirectory
from finetune.training import environment
from finetune.training.batches import EpochBatches
from finetune.training.log import TrainingLog
from finetune.training.loop import Job, LoopState, train_step
from finetune.training.optim import build_optimizer, build_scheduler


def gradients(recipes: Sequence[Recipe], output: Path, plan: Plan | None = None, command: Sequence[str] = ()) -> Path:
    """Measure each recipe before and after a short training, and write what was found into `output`.

    Returns the path of gradients.md. The measured rows are held out of the training, which is as the recipe says but
    for its length: `plan.steps` steps. Each model is trained twice, with clipping and without. Nothing is kept of it.

    Raises:
        UserError: recipes that cannot be measured together, a plan that makes no sense, or rows that are too short.
    """
    plan = plan or Plan()
    plan.check()
    check_recipes(recipes, plan)
    check_output(output)
    datasets.disable_progress_bars()
    prepared = [prepare(recipe) for recipe in recipes]
    variants = [variant for recipe, changes in prepared for variant in variants_of(recipe, changes, plan)]
    variants.sort(key=lambda variant: variant.recurrent_gain is not None)
    say("reading the data")
    splits = load_splits(recipes[0].data)
    texts, lengths, rows = read_texts([recipe for recipe, _ in prepared], splits, plan)
    by_recipe = dict(zip((recipe.name for recipe in recipes), texts, strict=True))
    steps = tuple(sorted({0, *plan.steps}))
    models = []
    for number, variant in enumerate(variants, start=1):
        say(f"{variant.name} ({number} of {len(variants)})")
        models.append(_trace(variant, splits, by_recipe[variant.recipe.name], steps, output))
    vocabularies = [of_recipe.tokenizer.get_vocab() for of_recipe in texts]
    report = GradientReport(
        finetune_version=__version__,
        quantity=QUANTITY,
        data=splits.report["source"],
        rows=rows,
        lengths=lengths,
        steps=steps,
        seeds=tuple(sorted({recipe.seed for recipe in recipes})),
        confidence_level=CONFIDENCE,
        same_vocabulary=all(vocabulary == vocabularies[0] for vocabulary in vocabularies),
        models=tuple(models),
        recipes={recipe.name: published_tree(recipe.model_dump(mode="json")) for recipe, _ in prepared},
        environment=environment.describe(variants[0].recipe, Accelerator(), command),
    )
    return write_gradients(report, output)


def _trace(variant: Variant, splits: Splits, texts: Texts, steps: Sequence[int], output: Path) -> TracedModel:
    """One model: before training, and after so many steps with clipping and without."""
    profiles: list[Profile] = []
    trainings: list[StepNorms] = []
    limit = variant.recipe.training.max_grad_norm
    for max_grad_norm in (limit, None) if steps[-1] else (limit,):
        with _training(variant, splits, texts, steps[-1], max_grad_norm, output) as training:
            # Before the first step there is nothing to clip: once is enough.
            for step in steps if max_grad_norm is not None else steps[1:]:
                training.go_on(step)
                # By length before training only: it takes time.
                longest = max(texts.measured)
                profiles += training.measure({longest: texts.measured[longest]} if step else texts.measured)
            trainings += [training.norms()] if steps[-1] else []
            parameters = sum(parameter.numel() for parameter in training.model.parameters())
    return TracedModel(
        name=variant.name,
        recipe=variant.recipe.name,
        model=describe_model(variant.recipe.model),
        parameters=parameters,
        layers=variant.layers,
        recurrent_gain=variant.recurrent_gain,
        changes=variant.changes,
        profiles=tuple(profiles),
        trainings=tuple(trainings),
    )


class _Training:
    """A training that can be stopped at any step, to be looked at, and gone on with."""

    def __init__(self, name: str, model: PreTrainedModel, job: Job, run: RunDirectory) -> None:
        self.name = name
        self.model = model
        self.job = job
        self.run = run
        self.state = LoopState()
        self.applied: dict[int, float] = {}
        """Norms of what the optimizer was given, by step."""

    def record(self, *_: object) -> None:
        """Called by the optimizer before each of its steps, which the loop counted just before."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.applied[self.state.step] = float(nn.utils.get_total_norm(gradients))

    def go_on(self, until: int) -> None:
        """Train until so many steps are done."""
        job, state = self.job, self.state
        with ProgressBar(self.name, job.total_steps, done=state.step, unit="steps") as bar:
            while state.step < until:
                epoch, done = divmod(state.step, job.batches.steps_per_epoch)
                for step in job.batches.steps(epoch, first_step=done):
                    train_step(job, state, step, 0)
                    bar.advance(1, f"loss {step.mean_loss:.3f}")
                    if state.step == until:
                        break

    def measure(self, measured: dict[int, MeasuredRows]) -> list[Profile]:
        """A profile for each length; the longest one goes to the tracker too."""
        step = self.state.step
        clipped = math.isfinite(self.job.training.max_grad_norm) if step else None
        profiles = measure(self.model, measured, self.job.criterion, step, clipped=clipped)
        for distance, norm in enumerate(profiles[-1].norms):
            if norm is not None:
                self.job.accelerator.log({f"gradient_norm_by_distance/step_{step}": norm}, step=distance)
        return profiles

    def norms(self) -> StepNorms:
        """What the log says of each step."""
        records = {record["step"]: record for record in self.run.log() if "loss" in record}
        limit, steps = self.job.training.max_grad_norm, range(1, self.state.step + 1)

        def of_each(key: str) -> tuple[float | None, ...]:
            return tuple(finite(records[step][key]) if step in records else None for step in steps)

        return StepNorms(
            max_grad_norm=finite(limit),
            losses=of_each("loss"),
            norms=of_each("grad_norm"),
            applied_norms=tuple(finite(self.applied.get(step)) for step in steps),
        )


@contextmanager
def _training(
    variant: Variant, splits: Splits, texts: Texts, steps: int, max_grad_norm: float | None, output: Path
) -> Iterator[_Training]:
    """The training of a variant from its initial weights, clipped to `max_grad_norm` or, if it is None, not at all."""
    recipe = variant.recipe
    free = recipe.training.model_copy(update={"max_grad_norm": math.inf})
    training = free if max_grad_norm is None else recipe.training
    name = re.sub(r"[^\w.]+", "-", variant.name).strip("-") + ("" if max_grad_norm is not None else "-unclipped")
    accelerator = environment.start_accelerator(recipe, output / "tracking")
    if accelerator.num_processes > 1:
        raise UserError("gradients are measured in one process; leave the launcher out")
    model = begin(variant, splits, texts)
    optimizer = build_optimizer(model, training)
    assert training.micro_batch_size != "auto"  # resolved
    batches = EpochBatches(
        texts.train,
        texts.tokenizer,
        batch_size=training.batch_size,
        micro_batch_size=training.micro_batch_size,
        pool_batches=training.bucket_batches,
        seed=recipe.seed,
        rank=0,
        world_size=1,
        workers=0,
    )
    scheduler = build_scheduler(optimizer, training, steps)
    prepared, prepared_optimizer = accelerator.prepare(model, optimizer)
    with tempfile.TemporaryDirectory(prefix="finetune-gradients-") as directory:
        run = RunDirectory(Path(directory) / name)
        run.path.mkdir()
        log = TrainingLog(run, accelerator)
        job = Job(
            prepared,
            batches,
            prepared_optimizer,
            scheduler,
            training,
            steps,
            lambda _: {},
            accelerator,
            log,
            run.checkpoints_directory,
            build_criterion(recipe.loss, np.bincount(label_array(texts.train)).tolist()),
        )
        found = _Training(name, model, job, run)
        optimizer.register_step_pre_hook(found.record)
        log.begin(0)
        torch.manual_seed(recipe.seed + 1)
        try:
            yield found
        finally:
            log.close()


def begin(variant: Variant, splits: Splits, texts: Texts) -> PreTrainedModel:
    """The model with its initial weights."""
    recipe = variant.recipe
    model = build(recipe, splits, texts.tokenizer)
    if variant.recurrent_gain is not None:
        scale_recurrence(model, variant.recurrent_gain)
    sizes = recipe.model.from_scratch if isinstance(recipe.model, EncoderModel) else None
    if sizes is not None and sizes.initial_embeddings == "ppmi":
        start_from_counts(model, texts.train, texts.tokenizer, recipe.seed)
    return model
