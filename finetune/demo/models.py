"""The models of a page: told apart when it opens, and loaded when one is first asked for."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizerBase

from finetune import tasks
from finetune.errors import UserError
from finetune.evaluation import predict_encoded
from finetune.generate import Generator, load_generator
from finetune.models import writes_text
from finetune.predict import Classifier, load_classifier
from finetune.recipe import MajorityFloor, TfidfFloor, local_name
from finetune.run import RunDirectory, run_of

Loaded = TypeVar("Loaded")
_FEW_ROWS = 10
"""Test rows that say nothing yet about how often a model is right."""


_LOADING = threading.Lock()
"""One model at a time: while transformers loads one it changes what is the same for all, and another one that is loaded
beside it may come out without its tied weights."""


class Lazy(Generic[Loaded]):
    """What is loaded at its first use, and only once, however many ask for it at the same time.

    A load that fails is tried again when the next one asks.
    """

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loaded: Loaded | None = None

    def get(self) -> Loaded:
        """Raises whatever loading raises."""
        with self._lock:
            if self._loaded is None:
                with _LOADING:
                    self._loaded = self._load()
            return self._loaded


@dataclass(frozen=True)
class TrackRecord:
    """How often a model was right on the test rows where its confidence lay from `low` to `high`."""

    low: float
    high: float
    right: float
    rows: int


@dataclass(frozen=True)
class Predictor:
    """A classifier or rater under the name that the page shows."""

    name: str
    classifier: Lazy[Classifier]
    records: tuple[TrackRecord, ...] = ()
    """By confidence, of a run that gives one of several labels and was scored on its test rows."""

    def record_of(self, prediction: "Prediction") -> TrackRecord | None:
        """What its test rows say of an answer that is as sure as this one; None where they say too little."""
        if prediction.label is None or prediction.neutral is not None or prediction.gives_several:
            return None
        sure = prediction.probabilities[prediction.label]
        found = [record for record in self.records if record.low < sure <= record.high]
        return found[0] if found and found[0].rows >= _FEW_ROWS else None


@dataclass(frozen=True)
class Writer:
    """A model that writes, under the name that the page shows."""

    name: str
    generator: Lazy[Generator]
    kinds: tuple[str, ...] = ()
    """The prompts that it was trained with, where these are labels: it takes no others."""
    chats: bool = False


@dataclass(frozen=True)
class Prediction:
    """What a classifier or rater says of a text."""

    probabilities: dict[str, float]
    """By label, in the order of the model's label ids; none from a rater. Of several labels each is by itself."""
    rating: float | None
    milliseconds: float
    """From the text to the prediction."""
    unknown_share: float
    """Which part of what was read the tokenizer does not know."""
    tokens: int
    """How many were read, special tokens apart."""
    is_cut: bool
    """Whether the text has more tokens than the model takes."""
    gives_several: bool = False
    """Whether a text may have any number of the labels."""
    neutral: str | None = None
    """What is said where neither of two labels is probable enough; None where one is."""
    novelty: float | None = None
    """Which share of the validation texts is less unlike the training texts; None where no detector was fitted."""
    is_novel: bool = False
    """Whether that reaches the detector's threshold."""

    @property
    def answer(self) -> str | None:
        """What is said of the text: the likeliest label, or that it is neutral; None from a rater."""
        return self.neutral or self.label

    @property
    def label(self) -> str | None:
        """The likeliest label; None from a rater."""
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else None

    @property
    def labels(self) -> list[str]:
        """The labels that the text gets: the likeliest, or of several all that are likely enough. None from a rater."""
        if self.gives_several:
            return tasks.given_labels(list(self.probabilities.values()), list(self.probabilities))
        return [] if self.answer is None else [self.answer]


def models_of(names: Sequence[str]) -> tuple[dict[str, Predictor], dict[str, Writer]]:
    """Run directories, model directories, embedded models or Hub ids -> those that predict and those that write.

    Both are by the name shown, in the order given. Nothing is loaded.

    A floor keeps no model: it is passed over here, and stands in the report only.

    Raises:
        UserError: none is named, or one is no model that the page could use.
    """
    if not names:
        raise UserError("a demo needs at least one run or model")
    predictors: dict[str, Predictor] = {}
    writers: dict[str, Writer] = {}
    for name, shown in _shown_names(names).items():
        run = run_of(name)
        if run is not None and run.recipe().task == "masked_lm":
            raise UserError(f"{run.path}: a pretrained model has no labels yet; fine-tune it, and show that run")
        if run is not None and isinstance(run.recipe().model, MajorityFloor | TfidfFloor) and run.scores()["splits"]:
            continue
        if run is not None:
            run.trained_model()  # an unfinished run has none yet: better said now than in the page
        writes = writes_text(name) if run is None else run.recipe().task == "generate"
        if not writes:
            predictors[shown] = Predictor(shown, Lazy(partial(_ready_classifier, name)), _track_records(run))
        elif run is None:
            chats = _has_chat_template(name)
            writers[shown] = Writer(shown, Lazy(partial(_ready_generator, name, chats)), chats=chats)
        else:
            chats = run.recipe().data.holds_chats
            generator = Lazy(partial(_ready_generator, name, chats))
            writers[shown] = Writer(shown, generator, tuple(run.prompt_labels()), chats)
    if not predictors and not writers:
        raise UserError("floors keep no model; name a run or model beside them")
    return predictors, writers


def predict_one(classifier: Classifier, text: str) -> Prediction:
    """What `classifier.classify` says of one text, and how much of the text that rests on.

    From the tokenizer straight to the model: the data set in between, made for files, takes longer than a small model,
    and the time is shown.
    """
    started = time.perf_counter()
    # With the same settings at every call: a tokenizer that is set anew while another thread uses it raises.
    encoded = classifier.tokenizer(
        [text], truncation=True, max_length=classifier.max_length, return_attention_mask=False
    )
    row = predict_encoded(classifier.model, classifier.tokenizer, encoded, classifier.reader)[0].tolist()
    novelty = row.pop() if classifier.novelty is not None else None
    milliseconds = 1000 * (time.perf_counter() - started)
    tokens, unknown_share, is_cut = _reading(encoded, text, classifier.tokenizer)
    rates = classifier.task == "rate"
    neutral = None
    if classifier.task == "classify":
        (answer,) = classifier.answers(np.array([row]))
        neutral = answer if answer not in classifier.labels else None
    return Prediction(
        probabilities={} if rates else dict(zip(classifier.labels, row, strict=True)),
        rating=row[0] if rates else None,
        milliseconds=milliseconds,
        unknown_share=unknown_share,
        tokens=tokens,
        is_cut=is_cut,
        gives_several=classifier.task == "multi_label",
        neutral=neutral,
        novelty=novelty,
        is_novel=novelty is not None and bool(classifier.is_novel(np.array([novelty]))[0]),
    )


def _reading(encoded: BatchEncoding, text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, float, bool]:
    """How many tokens were read of a text, which share of it they do not know, and whether others were cut off.

    The share is of characters other than spaces: some tokenizers make one unknown token of a whole word, and tokens of
    the spaces, which they all know.
    """
    unknown = tokenizer.unk_token_id
    if not encoded.encodings:  # a tokenizer in Python does not say where its tokens stand, nor what it cut
        special = set(tokenizer.all_special_ids) - {unknown}
        ids = [token for token in encoded["input_ids"][0] if token not in special]
        return len(ids), ids.count(unknown) / len(ids) if ids else 0.0, False
    encoding = encoded.encodings[0]
    added = encoding.special_tokens_mask
    spans = [
        (token, span)
        for token, span, is_added in zip(encoding.ids, encoding.offsets, added, strict=True)
        if not is_added
    ]
    read = {place for _, span in spans for place in range(*span) if not text[place].isspace()}
    not_known = {place for token, span in spans if token == unknown for place in range(*span)} & read
    return len(spans), len(not_known) / len(read) if read else 0.0, bool(encoding.overflowing)


def _ready_classifier(name: str) -> Classifier:
    classifier = load_classifier(name)
    predict_one(classifier, ".")  # what only the first text has to wait for is over before any time is taken
    return classifier


def _track_records(run: RunDirectory | None) -> tuple[TrackRecord, ...]:
    """None of a model without a run, of a run of an earlier version, or of one whose test rows are sealed."""
    found = {} if run is None else run.scores()["splits"].get("test", {})
    return tuple(
        TrackRecord(bin_["low"], bin_["high"], bin_["accuracy"], bin_["count"]) for bin_ in found.get("reliability", [])
    )


def _has_chat_template(name: str) -> bool:
    """Whether a model directory or an embedded model brings a chat template, by its files alone."""
    directory = Path(local_name(name))
    if (directory / "chat_template.jinja").is_file():
        return True
    settings = directory / "tokenizer_config.json"
    return settings.is_file() and bool(json.loads(settings.read_text(encoding="utf-8")).get("chat_template"))


def _ready_generator(name: str, chats: bool) -> Generator:
    # A model that is no run says by its chat template that it chats; `load_generator` goes on from any text.
    return replace(load_generator(name), chats=chats)


def _shown_names(names: Sequence[str]) -> dict[str, str]:
    """Each model once, with as much of the end of its path as tells it from the others: visitors need no more."""
    parts: dict[tuple[str, ...], str] = {}
    for name in names:
        path = Path(name)
        parts.setdefault(path.resolve().parts if path.exists() else (name,), name)
    for length in range(1, max(map(len, parts)) + 1):
        shown = {name: "/".join(of_path[-length:]) for of_path, name in parts.items()}
        if len(set(shown.values())) == len(shown):
            break
    return shown
