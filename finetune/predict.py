"""The one way to use a trained model: a run directory or a model becomes `classify(texts)`, or is scored on rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune import tasks
from finetune.data import load_file, load_splits
from finetune.data.splits import column, label_array
from finetune.errors import UserError
from finetune.evaluation import predict_one, predict_outputs, record_scores
from finetune.evaluation.features import FeatureReader
from finetune.evaluation.inference import Reader
from finetune.models import (
    Floor,
    decoder_start,
    is_encoder_decoder,
    load_model,
    load_writer,
    match_inputs,
    max_positions,
    writes_text,
)
from finetune.models.novelty import NoveltyDetector, last_layer, load_novelty
from finetune.recipe import Data, Evaluation, MajorityFloor, Task, TfidfFloor, local_name
from finetune.run import RunDirectory, open_run, run_of
from finetune.text import encode_documents, encode_pairs, load_tokenizer

_CONTEXT = 1024
"""Documents are read in windows of so many tokens by models that could read longer ones."""


@dataclass(frozen=True)
class Classifier:
    """A trained classifier with its tokenizer; `labels` are in the order of the model's label ids."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    batch_size: int = 128
    novelty: NoveltyDetector | None = None
    """Where one was fitted (`finetune novelty`)."""

    @property
    def labels(self) -> list[str]:
        config: Any = self.model.config
        names: dict[int, str] = config.id2label
        return [names[i] for i in range(len(names))]

    def answers(self, probabilities: NDArray[np.float64]) -> list[str]:
        """The label given to each row of `classify`'s probabilities, (texts, labels): the likeliest, one for each.

        Where training fitted a neutral band, and the second of two labels is as probable as lies within, its name.
        """
        labels, band = self.labels, getattr(self.model.config, "neutral_band", None)
        given = [labels[i] for i in probabilities.argmax(axis=1)]
        if band is None:
            return given
        is_neutral = (probabilities[:, 1] > band["low"]) & (probabilities[:, 1] < band["high"])
        return [band["label"] if neutral else label for label, neutral in zip(given, is_neutral, strict=True)]

    @property
    def task(self) -> Task:
        if tasks.is_rating(self.model):
            return "rate"
        return "multi_label" if tasks.gives_several(self.model) else "classify"

    def classify(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The probability of each label, (texts, labels), or the rating, (texts, 1).

        Where the task is multi_label each is by itself: they do not add up to one.
        """
        return self._read(texts, tasks.outputs)

    def classify_one(self, text: str, pair: str | None = None) -> NDArray[np.float64]:
        """`classify` for one text, or one pair, (1, labels)."""
        return predict_one(self.model, self.tokenizer, self.max_length, text, pair)

    def classify_rows(self, rows: datasets.Dataset) -> NDArray[np.float64]:
        """`classify` for rows with a text (and text_pair)."""
        return self._read_rows(rows, tasks.outputs)

    def classify_with_novelty(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """`classify`, and how novel each text is, (texts,): the share of the validation texts that are less so.

        None in place of that where no detector was fitted.
        """
        return self._parted(self._read(texts, self.reader))

    def classify_rows_with_novelty(
        self, rows: datasets.Dataset
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """`classify_with_novelty` for rows with a text (and text_pair)."""
        return self._parted(self._read_rows(rows, self.reader))

    def is_novel(self, shares: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which shares of `classify_with_novelty` reach the detector's threshold, (texts,)."""
        assert self.novelty is not None
        return self.novelty.is_novel(shares)

    @cached_property
    def reader(self) -> Reader:
        """What reads a batch: the outputs, and in the last column the novelty's share where it is known."""
        detector = self.novelty
        if detector is None:
            return tasks.outputs
        return FeatureReader(self.model, lambda features: detector.shares(detector.scores(features)))

    def features(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`classify`, and what the head saw of each text, (texts, features).

        Raises:
            UserError: the model does not end in a linear layer.
        """
        found = self._read(texts, self._feature_reader)
        width = len(self.labels)
        return found[:, :width], found[:, width:]

    @cached_property
    def _feature_reader(self) -> FeatureReader:
        """One for all calls: it listens to the model for as long as that lives."""
        return FeatureReader(self.model)

    def _parted(self, found: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        return (found, None) if self.novelty is None else (found[:, :-1], found[:, -1])

    def _read(self, texts: Sequence[str], read: Reader) -> NDArray[np.float64]:
        if not texts:
            return np.empty((0, len(self.labels) + (self.novelty is not None and read is not tasks.outputs)))
        if len(texts) == 1:
            return predict_one(self.model, self.tokenizer, self.max_length, texts[0], read=read)
        return self._read_rows(datasets.Dataset.from_dict({"text": list(texts)}), read)

    def _read_rows(self, rows: datasets.Dataset, read: Reader) -> NDArray[np.float64]:
        encoded = tasks.encode(rows, self.tokenizer, self.max_length)
        accelerator = Accelerator(cpu=self.model.device.type == "cpu")
        return predict_outputs(self.model, encoded, self.tokenizer, accelerator, self.batch_size, read=read)

    def evaluate_rows(self, rows: datasets.Dataset) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """The labels or ratings of labelled rows, (rows,) or (rows, labels), and what the classifier says of them."""
        return label_array(rows), self.classify_rows(rows)


@dataclass(frozen=True)
class LanguageModel:
    """A model that writes, with its tokenizer, and how it reads what it is scored on."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int | None
    """Longer documents are cut into windows of so many tokens."""
    chats: bool = False
    stream_length: int | None = None
    """With it all documents are read as one text, so many tokens at a time."""
    batch_size: int = 32
    task: Task = "generate"
    labels: tuple[str, ...] = ()

    def evaluate_rows(self, rows: datasets.Dataset) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """`causal.SIZES` of each row, (rows, 4), and the sums of its predicted tokens, (rows, 2)."""
        if is_encoder_decoder(self.model):
            assert self.max_length is not None
            encoded = encode_pairs(rows, self.tokenizer, self.max_length, decoder_start(self.model))
        else:
            encoded = encode_documents(rows, self.tokenizer, self.max_length, chats=self.chats)
        accelerator = Accelerator(cpu=self.model.device.type == "cpu")
        outputs = predict_outputs(
            self.model, encoded, self.tokenizer, accelerator, self.batch_size, stream_length=self.stream_length
        )
        return tasks.document_sizes(encoded), outputs


def load_classifier(run_or_model: str, revision: str | None = None) -> Classifier:
    """The classifier of a run directory, a local model directory or a Hub id.

    Raises:
        UserError: there is none; the floors have no model to load.
    """
    run = run_of(run_or_model)
    if run is not None:
        recipe = run.recipe()
        if recipe.task == "generate":
            raise UserError(f"{run.path}: it writes text, it has no labels; `finetune generate` uses it")
        if recipe.task == "masked_lm":
            raise UserError(
                f"{run.path}: a pretrained model has no labels yet; fine-tune it: finetune train RECIPE "
                f"--model.model_name_or_path {run.model_directory}"
            )
        source = run.trained_model()
        return _classifier(source, load_model(source), load_tokenizer(source), recipe.text.max_length)
    model = load_model(run_or_model, revision)
    tokenizer = load_tokenizer(run_or_model, revision)
    return _classifier(run_or_model, model, tokenizer, min(tokenizer.model_max_length, max_positions(model) or 512))


def load_language_model(run_or_model: str) -> LanguageModel | None:
    """The model of a run that learnt to generate, or one that is not a run; None if it is of another kind.

    Raises:
        UserError: it cannot be loaded.
    """
    run = run_of(run_or_model)
    if run is None:
        if not writes_text(run_or_model):
            return None
        model = load_writer(run_or_model)
        tokenizer = load_tokenizer(run_or_model, generates=True, pairs=is_encoder_decoder(model))
        return LanguageModel(model, tokenizer, min(max_positions(model) or _CONTEXT, _CONTEXT))
    recipe = run.recipe()
    if recipe.task != "generate":
        return None
    source = run.trained_model()
    model = load_writer(source)
    tokenizer = load_tokenizer(source, generates=True, pairs=is_encoder_decoder(model))
    return LanguageModel(
        model,
        tokenizer,
        recipe.window_length,
        recipe.data.holds_chats,
        recipe.training.truncated_bptt,
        recipe.evaluation.batch_size,
    )


def _classifier(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Classifier:
    head = last_layer(model)
    novelty = None if head is None else load_novelty(Path(local_name(name)), head.in_features)
    return Classifier(model, match_inputs(tokenizer, model), max_length, novelty=novelty)


def evaluate_split(run_path: str, split: str) -> dict[str, Any]:
    """Score a run's model once more on a split of its own data; the scores and the count go into the run.

    A floor, which keeps no model, is fitted again: that takes seconds and gives the same.

    Raises:
        UserError: no run, no model, or data that is no longer what the run was trained on.
    """
    run = open_run(run_path)
    recipe = run.recipe()
    floor = recipe.model if isinstance(recipe.model, MajorityFloor | TfidfFloor) else None
    scorer = None if floor is not None else load_language_model(run_path) or load_classifier(run_path)
    splits = load_splits(recipe.data, recipe.task)
    recorded = run.data()["splits"]
    for name in (split,) if floor is None else ("train", split):
        if splits.report["splits"][name]["rows_fingerprint"] != recorded[name]["rows_fingerprint"]:
            raise UserError(f"{run_path}: the {name} rows are no longer those of the run; restore the data it names")
    leaked = splits.leaked_test_ids if split == "test" else frozenset()
    if scorer is not None:
        references, outputs = scorer.evaluate_rows(splits[split])
    else:
        assert floor is not None
        texts, labels = column(splits.train, "text"), label_array(splits.train)
        references = label_array(splits[split])
        outputs = Floor(floor, texts, labels, len(splits.labels)).outputs(column(splits[split], "text"))
    return record_scores(
        run,
        split,
        splits[split],
        splits.labels,
        references,
        outputs,
        recipe.evaluation,
        leaked,
    )


def evaluate_file(
    run_or_model: str, file: Path, output: Path, text_column: str | None = None, label_column: str | None = None
) -> dict[str, Any]:
    """Score a run or model on a labelled file; scores and predictions go to `output`.

    Raises:
        UserError: an `output` that exists, or anything wrong with the model or the file.
    """
    if output.exists():
        raise UserError(f"{output} exists; choose another --output")
    scorer = load_language_model(run_or_model) or load_classifier(run_or_model)
    labels = {name: name for name in scorer.labels} if scorer.task in ("classify", "multi_label") else None
    data = Data(train_file=str(file), labels=labels)
    evaluation = Evaluation()
    if (Path(run_or_model) / "recipe.yaml").exists():
        recipe = open_run(run_or_model).recipe()
        data, evaluation = recipe.data, recipe.evaluation
        if labels:
            # A file from elsewhere may hold the names rather than the values of the training data.
            data = data.model_copy(update={"labels": labels | (data.labels or {})})
    columns = {"text_column": text_column, "label_column": label_column}
    # The ids are made of row numbers: a file from elsewhere need not have the id column of the training data.
    changes: dict[str, Any] = {"id_column": None}
    changes |= {name: value for name, value in columns.items() if value is not None}
    if label_column is not None:
        changes["label_columns"] = ()
    rows = load_file(data.model_copy(update=changes), file, scorer.task)
    references, outputs = scorer.evaluate_rows(rows)
    names = list(scorer.labels) if labels else []
    return record_scores(RunDirectory(output), "data", rows, names, references, outputs, evaluation)
