"""`train`: a recipe goes in, a run directory comes out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune import tasks
from finetune.data import Splits, load_splits
from finetune.data.splits import column, label_array
from finetune.doctor import examine_splits, summarize
from finetune.errors import UserError
from finetune.evaluation import (
    calibration,
    compute_metrics,
    describe_analogies,
    describe_scores,
    predict_outputs,
    predictions_of,
    record_scores,
)
from finetune.losses import Criterion, build_criterion, build_set_criterion
from finetune.models import (
    Floor,
    build_model,
    decoder_start,
    divide_logits,
    match_inputs,
    merge_adapter,
    start_at,
    start_from_counts,
    start_from_vectors,
)
from finetune.predict import Classifier
from finetune.probe import record_probe
from finetune.progress import ProgressBar, say
from finetune.recipe import (
    VALIDATION_METRICS,
    BagModel,
    CnnModel,
    MajorityFloor,
    Recipe,
    RecurrentModel,
    Seq2SeqModel,
    TfidfFloor,
    TransformerModel,
    WordVectorModel,
    with_values,
)
from finetune.run import RunDirectory
from finetune.samples import write_samples
from finetune.text import (
    Masker,
    NoiseAugmenter,
    ScheduledSampler,
    SubwordSampler,
    build_tokenizer,
    bytes_of_tokens,
    encode_documents,
    encode_pairs,
    fingerprint,
    save_tokenizer,
)
from finetune.training import environment
from finetune.training.batches import Draw, EpochBatches
from finetune.training.cost import begin_memory, describe_resources, floor_latency, model_latency
from finetune.training.features import cut_frozen, with_features
from finetune.training.log import TrainingLog
from finetune.training.loop import Job, LoopState, fit, restore
from finetune.training.optim import build_optimizer, build_scheduler
from finetune.training.resume import check_surroundings, check_unchanged, claim, shared_checkpoint
from finetune.training.streams import StreamBatches
from finetune.training.word_vectors import check_processes, train_word_vectors


def train(
    recipe: Recipe, *, overwrite: bool = False, resume: bool = False, command: Sequence[str] = ()
) -> RunDirectory:
    """Run a recipe from its data to its scores; returns the run directory that it wrote.

    With `resume` a run that was stopped or killed goes on from its last good checkpoint, and ends as if nothing had
    happened; where there is no such run yet, it begins.

    Raises:
        UserError: anything in the recipe, the data or the run directory that the user has to mend.
        Interrupted: a signal asked the training to stop, and its state is saved.
    """
    run = RunDirectory(Path(recipe.output_dir) / recipe.name)
    goes_on = resume and run.recipe_file.exists()
    recipe = check_unchanged(recipe, run) if goes_on else environment.resolve(recipe)
    accelerator = environment.start_accelerator(recipe, run.tracking_directory)
    main = accelerator.is_main_process
    peak_before = begin_memory(accelerator.device)
    check_processes(recipe, accelerator)
    with claim(run, accelerator, replaces=not resume, overwrite=overwrite):
        if goes_on and run.is_finished():
            say(f"{run.path} is finished already; nothing is left to do", main_process=main)
            environment.end(accelerator)
            return run
        datasets.disable_progress_bars()
        say(f"{recipe.name}: reading the data", main_process=main)
        splits = load_splits(recipe.data, recipe.task)
        say(_describe_splits(splits), main_process=main)
        # Before anything is written: what does not fit together leaves no run behind.
        model, tokenizer = _start(recipe, splits, main_process=main)
        vocabulary = fingerprint(tokenizer) if tokenizer is not None else None
        findings = examine_splits(splits, tokenizer, recipe.text_limit, chats=recipe.data.holds_chats)
        for line in summarize(findings):
            say(f"  {line}", main_process=main)
        surroundings = environment.describe(recipe, accelerator, command)
        if goes_on:
            surroundings = check_surroundings(run, splits, vocabulary, surroundings)
        if main:
            run.write_recipe(_with_label_names(recipe, splits))
            run.write_json(run.data_file, {**splits.report, "tokenizer_sha256": vocabulary, "doctor": findings})
            run.write_json(run.environment_file, surroundings)
        if isinstance(recipe.model, MajorityFloor | TfidfFloor):
            cost = _train_floor(recipe.model, recipe, splits, run, main_process=main)
        elif isinstance(recipe.model, WordVectorModel):
            assert tokenizer is not None
            cost = train_word_vectors(recipe.model, tokenizer, recipe, splits, run, findings, goes_on=goes_on)
        else:
            assert model is not None
            assert tokenizer is not None
            cost = _train_model(model, tokenizer, recipe, splits, run, accelerator, goes_on=goes_on)
        if main:
            cost |= describe_resources(run, accelerator.device, peak_before)
            run.write_json(run.scores_file, {**run.scores(), "cost": cost})
            run.write_json(run.environment_file, {**surroundings, "end": environment.now()})
            say(f"{recipe.name}: {_describe_result(recipe, run)} -> {run.path}")
        environment.end(accelerator)
    return run


def _describe_result(recipe: Recipe, run: RunDirectory) -> str:
    scores = run.scores()
    if recipe.task == "word_vectors":
        return describe_analogies(scores["analogies"])
    last = _scored_splits(recipe)[-1]
    return describe_scores(last, scores["splits"][last])


def _start(
    recipe: Recipe, splits: Splits, *, main_process: bool = True
) -> tuple[PreTrainedModel | None, PreTrainedTokenizerBase | None]:
    """The model with its initial weights and its tokenizer; the floors have neither, and word vectors begin as none."""
    if isinstance(recipe.model, MajorityFloor | TfidfFloor):
        if recipe.data.text_pair_column:
            raise UserError("the floors read one text: leave data.text_pair_column out, or choose another model.family")
        return None, None
    if recipe.evaluation.neutral_accuracy is not None and len(splits.labels) != 2:
        raise UserError(f"evaluation.neutral_accuracy is for two labels; the data has {len(splits.labels)}")
    tokenizer = build_tokenizer(recipe, splits)
    if isinstance(recipe.model, WordVectorModel):
        return None, tokenizer
    attention = "eager"
    if isinstance(recipe.model, TransformerModel):
        attention = recipe.model.attn_implementation
    set_seed(recipe.seed)  # what was drawn before must not matter to the initial weights
    model = build_model(recipe.model, recipe.task, splits.labels, tokenizer, recipe.text.max_length, attention)
    if isinstance(recipe.model, RecurrentModel | BagModel | CnnModel) and recipe.model.initial_embeddings is not None:
        say(start_from_vectors(model, recipe.model, tokenizer), main_process=main_process)
    if recipe.task == "rate":
        start_at(model, float(label_array(splits.train).mean()))
    return model, match_inputs(tokenizer, model)


def _train_floor(
    model: MajorityFloor | TfidfFloor, recipe: Recipe, splits: Splits, run: RunDirectory, *, main_process: bool
) -> dict[str, Any]:
    """Fit and score a floor; returns what it cost."""
    started = time.monotonic()
    floor = Floor(model, column(splits.train, "text"), label_array(splits.train), len(splits.labels))
    training_seconds = time.monotonic() - started
    scoring_seconds = 0.0
    for split in _scored_splits(recipe):
        texts = column(splits[split], "text")
        started = time.monotonic()
        outputs = floor.outputs(texts)
        scoring_seconds = time.monotonic() - started
        _record(run, splits, split, label_array(splits[split]), outputs, recipe)
    return {
        "parameters": floor.parameter_count(),
        "trainable_parameters": floor.parameter_count(),
        "training_seconds": training_seconds,
        "training_rows_per_second": len(splits.train) / max(training_seconds, 1e-9),
        "scoring_rows_per_second": len(splits[_scored_splits(recipe)[-1]]) / max(scoring_seconds, 1e-9),
        "latency_ms": floor_latency(floor, splits.validation) if main_process else None,
        "model_bytes": None,
    }


def _train_model(
    raw_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    splits: Splits,
    run: RunDirectory,
    accelerator: Accelerator,
    *,
    goes_on: bool,
) -> dict[str, Any]:
    """Train, keep and score a neural model; returns what it cost."""
    main = accelerator.is_main_process
    # A chat that the model's template cannot write must not show at the end only.
    early = ("train", "validation", "test") if recipe.data.holds_chats else ("train", "validation")
    encoded = {split: _encode(split, recipe, splits, raw_model, tokenizer) for split in early}
    say(f"{recipe.name}: {_parameter_count(raw_model):,} parameters, {len(tokenizer):,} tokens", main_process=main)
    trainable = sum(p.numel() for p in raw_model.parameters() if p.requires_grad)
    started = time.monotonic()
    cut = cut_frozen(raw_model, recipe, encoded["train"], tokenizer, accelerator)
    if cut is None:
        model, state = _fit(raw_model, recipe, encoded, tokenizer, run, accelerator, goes_on=goes_on)
    else:
        rows = {
            split: with_features(cut, encoded[split], tokenizer, accelerator, recipe.evaluation.batch_size, split)
            for split in early
        }
        of_features = time.monotonic() - started
        _, state = _fit(cut, recipe, rows, tokenizer, run, accelerator, goes_on=goes_on)
        # Computing them is a part of what the training took.
        state.seconds += of_features
        # The head that was trained is the model's own.
        model = raw_model
    told = _calibrate(model, recipe, splits, encoded["validation"], tokenizer, accelerator)
    if getattr(recipe.model, "tuning", "full") == "lora":
        # What is scored is what is saved: the merged weights.
        model = raw_model = merge_adapter(raw_model, run.adapter_directory if main else None)
    if main:
        if told.get("neutral_band") is not None:
            # In the configuration, which goes wherever the model goes.
            raw_model.config.update({"neutral_band": told["neutral_band"]})
        raw_model.save_pretrained(run.model_directory)
        save_tokenizer(tokenizer, run.model_directory)
    scoring_seconds = 0.0
    for split in _scored_splits(recipe):
        rows = encoded[split] if split in encoded else _encode(split, recipe, splits, raw_model, tokenizer)
        started = time.monotonic()
        with ProgressBar(f"scoring {split}", len(rows), main_process=main) as bar:
            outputs = _outputs(model, rows, recipe, tokenizer, accelerator, bar.advance)
        scoring_seconds = time.monotonic() - started
        if main:
            _record(run, splits, split, _references(recipe, rows, tokenizer), outputs, recipe)
    if main and told:
        run.write_json(run.scores_file, {**run.scores(), "calibration": told})
    if main and recipe.task == "generate" and recipe.generation.samples and recipe.evaluation.score_test:
        say(f"{recipe.name}: writing samples")
        found = write_samples(run, recipe, splits, raw_model, tokenizer)
        run.write_json(run.scores_file, {**run.scores(), "samples": found})
    latency = None
    if main:
        # Accelerate has put autocast around the model; what is loaded from the files has none.
        plain = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        record_probe(run, plain, tokenizer, recipe)
        if recipe.task in ("classify", "multi_label", "rate"):
            classifier = Classifier(plain, tokenizer, recipe.text.max_length)
            latency = model_latency(classifier, splits.validation, environment.device_name(accelerator))
    return {
        "parameters": _parameter_count(raw_model),
        "trainable_parameters": trainable,
        "training_seconds": state.seconds,
        "training_rows_per_second": state.rows / max(state.seconds, 1e-9),
        "training_tokens_per_second": state.tokens / max(state.seconds, 1e-9),
        "training_tokens": state.tokens,
        "scoring_rows_per_second": len(splits[_scored_splits(recipe)[-1]]) / max(scoring_seconds, 1e-9),
        "latency_ms": latency,
        "model_bytes": (run.model_directory / "model.safetensors").stat().st_size if main else None,
        "steps": state.step,
        "best_step": state.best_step,
    }


def _calibrate(
    model: nn.Module,
    recipe: Recipe,
    splits: Splits,
    validation: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Fit what the recipe asks for on validation: the temperature, put into the model's head, and the neutral band."""
    asked = recipe.evaluation
    if asked.calibration == "none" and asked.neutral_accuracy is None:
        return {}
    main = accelerator.is_main_process
    references, outputs = label_array(validation), _outputs(model, validation, recipe, tokenizer, accelerator)
    told: dict[str, Any] = {"rows": len(validation), "temperature": None, "neutral_band": None}
    if asked.calibration == "temperature":
        temperature = calibration.fit_temperature(outputs, references)
        calibrated = calibration.apply_temperature(outputs, temperature)
        told |= {"temperature": temperature, "before": calibration.errors(outputs, references)}
        told["after"] = calibration.errors(calibrated, references)
        divide_logits(accelerator.unwrap_model(model), temperature)
        outputs = calibrated
        say(f"{recipe.name}: {calibration.describe_calibration(told)}", main_process=main)
    if asked.neutral_accuracy is not None:
        band = calibration.fit_neutral_band(outputs[:, 1], references, asked.neutral_accuracy)
        if band is None:
            say(f"{recipe.name}: no neutral band makes {asked.neutral_accuracy:.0%} right", main_process=main)
        else:
            told["neutral_band"] = {**asdict(band), "label": asked.neutral_label}
            line = f"{asked.neutral_label} between {band.low:.2f} and {band.high:.2f} of {splits.labels[1]}"
            said = f"{band.coverage:.0%} of the validation rows lie outside, {band.accuracy:.1%} of them right"
            say(f"{recipe.name}: {line}; {said}", main_process=main)
    return told


def _encode(
    split: str, recipe: Recipe, splits: Splits, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> datasets.Dataset:
    """A split's rows as the model sees them; those that are scored have their masks for good."""
    is_train = split == "train"
    if recipe.reads_prompts:
        return encode_pairs(splits[split], tokenizer, recipe.text.max_length, decoder_start(model))
    if recipe.task == "generate":
        return encode_documents(splits[split], tokenizer, recipe.window_length, chats=recipe.data.holds_chats)
    keep_text = is_train and (recipe.text.subword_sampling_alpha is not None or bool(recipe.text.noise))
    encoded = tasks.encode(splits[split], tokenizer, recipe.text.max_length, keep_text=keep_text)
    if recipe.task != "masked_lm" or is_train:
        return encoded
    # By the seed of the splits: runs with several seeds share their held-out masks as they share the rows.
    return Masker(tokenizer, recipe.masking, recipe.data.split_seed).hide(encoded)


def _references(recipe: Recipe, encoded: datasets.Dataset, tokenizer: PreTrainedTokenizerBase) -> NDArray[Any]:
    """Label ids or ratings, (n,), or label sets, (n, labels); counts of masked rows, (n, 2), or of documents, (n, 4).

    The counts are those of tokens and bytes, and `SIZES`.
    """
    if recipe.task == "generate":
        return tasks.document_sizes(encoded)
    if recipe.task == "masked_lm":
        return tasks.target_sizes(encoded, bytes_of_tokens(tokenizer))
    return label_array(encoded)


def _outputs(
    model: nn.Module,
    rows: datasets.Dataset,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    advance: Callable[[int], None] = lambda rows: None,
) -> NDArray[np.float64]:
    """What the model says of each row, read as it was in training: by itself, or as part of one text."""
    batch_size, stream_length = recipe.evaluation.batch_size, recipe.training.truncated_bptt
    return predict_outputs(model, rows, tokenizer, accelerator, batch_size, advance, stream_length=stream_length)


def _batches(
    recipe: Recipe, encoded: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, accelerator: Accelerator
) -> EpochBatches | StreamBatches:
    """The training rows in the order that the task asks for: like lengths together, or as one text."""
    training = recipe.training
    assert training.micro_batch_size != "auto"  # resolved
    if training.truncated_bptt is not None:
        return StreamBatches(
            encoded,
            length=training.truncated_bptt,
            batch_size=training.batch_size,
            micro_batch_size=training.micro_batch_size,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
    return EpochBatches(
        encoded,
        tokenizer,
        batch_size=training.batch_size,
        micro_batch_size=training.micro_batch_size,
        pool_batches=training.bucket_batches,
        seed=recipe.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        workers=training.dataloader_num_workers,
        draws=_draws(recipe, tokenizer),
    )


def _draws(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> list[Draw]:
    """What is drawn anew in every epoch, in its order."""
    draws: list[Draw] = []
    if recipe.text.noise:
        draws.append(
            NoiseAugmenter(
                tokenizer,
                recipe.text.noise,
                recipe.text.noise_share,
                recipe.seed,
                recipe.text.max_length,
                encodes=recipe.text.subword_sampling_alpha is None,
            )
        )
    if recipe.text.subword_sampling_alpha is not None:
        alpha = recipe.text.subword_sampling_alpha
        draws.append(SubwordSampler(tokenizer, alpha, recipe.seed, recipe.text.max_length))
    if recipe.task == "masked_lm":
        draws.append(Masker(tokenizer, recipe.masking, recipe.seed))
    if isinstance(recipe.model, Seq2SeqModel) and recipe.model.teacher_forcing < 1:
        epochs = recipe.training.num_train_epochs
        draws.append(ScheduledSampler(recipe.model.teacher_forcing, epochs, recipe.seed))
    return draws


def _fit(
    raw_model: nn.Module,
    recipe: Recipe,
    encoded: dict[str, datasets.Dataset],
    tokenizer: PreTrainedTokenizerBase,
    run: RunDirectory,
    accelerator: Accelerator,
    *,
    goes_on: bool = False,
) -> tuple[nn.Module, LoopState]:
    """Assemble what the loop needs and run it; the model returned has its best weights."""
    training = recipe.training
    batches = _batches(recipe, encoded["train"], tokenizer, accelerator)
    total_steps = training.num_train_epochs * batches.steps_per_epoch
    if training.max_steps is not None:
        total_steps = min(total_steps, training.max_steps)
    checkpoint = shared_checkpoint(run, accelerator) if goes_on else None
    sizes = recipe.model.from_scratch if isinstance(recipe.model, TransformerModel) else None
    if checkpoint is None and sizes is not None and sizes.initial_embeddings == "ppmi":
        # Before the processes are joined, so that all begin with the main one's.
        say(f"{recipe.name}: counting word vectors", main_process=accelerator.is_main_process)
        start_from_counts(cast("PreTrainedModel", raw_model), encoded["train"], tokenizer, recipe.seed)
    optimizer = build_optimizer(raw_model, training)
    scheduler = build_scheduler(optimizer, training, total_steps)
    model, prepared = accelerator.prepare(raw_model, optimizer)
    references = _references(recipe, encoded["validation"], tokenizer)
    ids = tasks.document_ids(encoded["validation"])

    def validate(current: nn.Module) -> dict[str, float]:
        outputs = _outputs(current, encoded["validation"], recipe, tokenizer, accelerator)
        metrics = compute_metrics(predictions_of(ids, references, outputs))
        # A correlation is undefined (None) while the model gives every row the same rating.
        values = {name: metrics[name] for name in VALIDATION_METRICS[recipe.task]}
        return {name: float("nan") if value is None else value for name, value in values.items()}

    log = TrainingLog(run, accelerator)
    checkpoints = run.checkpoints_directory
    criterion = _criterion(recipe, encoded["train"])
    job = Job(
        model, batches, prepared, scheduler, training, total_steps, validate, accelerator, log, checkpoints, criterion
    )
    # Every process draws dropout of its own; the initial weights are the same on all.
    torch.manual_seed(recipe.seed + 1 + accelerator.process_index)
    try:
        state = LoopState()
        if checkpoint is not None:
            say(f"{recipe.name}: going on from {checkpoint}", main_process=accelerator.is_main_process)
            state = restore(job, checkpoint)
        else:
            log.begin(0)
        state = fit(job, state)
    finally:
        log.close()
    return model, state


def _criterion(recipe: Recipe, encoded: datasets.Dataset) -> Criterion | None:
    """The recipe's loss, for labels as frequent as in the training rows."""
    if recipe.task == "multi_label":
        labels = label_array(encoded)
        return build_set_criterion(recipe.loss, labels.sum(axis=0).astype(int).tolist(), len(labels))
    if recipe.task != "classify":
        return None
    return build_criterion(recipe.loss, np.bincount(label_array(encoded)).tolist())


def _record(
    run: RunDirectory,
    splits: Splits,
    split: str,
    references: NDArray[Any],
    outputs: NDArray[np.float64],
    recipe: Recipe,
) -> None:
    if split in run.scores()["splits"]:
        return  # a killed run had come this far; the test split is not scored a second time
    leaked = splits.leaked_test_ids if split == "test" else frozenset()
    record_scores(run, split, splits[split], splits.labels, references, outputs, recipe.evaluation, leaked)


def _scored_splits(recipe: Recipe) -> tuple[str, ...]:
    return ("validation", "test") if recipe.evaluation.score_test else ("validation",)


def _with_label_names(recipe: Recipe, splits: Splits) -> Recipe:
    """The recipe with the label values that were found in the data written out."""
    if recipe.data.labels is not None or recipe.task not in ("classify", "multi_label"):
        return recipe
    return with_values(recipe, data={"labels": splits.label_values})


def _parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _describe_splits(splits: Splits) -> str:
    counts = ", ".join(f"{len(splits[name]):,} {name}" for name in ("train", "validation", "test"))
    ratings = splits.report["splits"]["train"].get("ratings")
    what = f"labels {', '.join(splits.labels)}" if splits.labels else "text without labels"
    if ratings is not None:
        what = f"ratings {ratings['min']:g} to {ratings['max']:g}"
    lines = [f"  {counts} rows; {what}"]
    dropped = sum(sum(split["dropped"].values()) for split in splits.report["splits"].values())
    if dropped:
        lines.append(f"  {dropped:,} empty rows left out")
    return "\n".join(lines)
