"""What is answered to a request: all of it is checked here, whatever the page let through."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from finetune.attribution import Attribution, attribute
from finetune.demo.models import Lazy, Prediction, Predictor, TrackRecord, Writer, predict_one
from finetune.demo.words import Sentences
from finetune.errors import UserError
from finetune.generate import Suggestion
from finetune.predict import Classifier
from finetune.progress import say
from finetune.text.noise import NOISES

TEXT_LIMIT = 10_000
"""Characters of a text or prompt."""
TEMPERATURE = (0.1, 2.0)
TOP_P = (0.05, 1.0)
NEW_TOKENS = (1, 500)
SEEDS = (0, 2**32 - 1)
"""NumPy takes no others."""
MESSAGES = 50
"""Of a chat; their texts together may have as many characters as one text."""
TEXTS = 200
"""That a program may send at a time."""
SUGGESTED = (1, 20)
"""Words to go on with, at a time."""
NO_LABEL = "–"
"""Shown where a text gets none of several labels."""
_MUCH_UNKNOWN = 0.5
_EXPLAINED = 8e9
"""Parameters times tokens: where there are more, the model is not asked what speaks for its prediction. That takes some
hundred times as long as the prediction, a quarter of a minute here and there, and others wait."""

BUTTON_NOISES = {
    "spaces_removed": replace(NOISES["spaces_removed"], rate=1.0),
    "jamo_typos": NOISES["jamo_typos"],
    "laughter": NOISES["laughter"],
    "typos": NOISES["typos"],
}
"""What a visitor can do to a text."""

Named = TypeVar("Named")
Loaded = TypeVar("Loaded")


class RefusedError(Exception):
    """A request that is answered with one sentence, in the language of who asked."""


@dataclass(frozen=True)
class Row:
    """What one of several models says of a text; `prediction` is None if the model could not say anything."""

    model: str
    prediction: Prediction | None


@dataclass(frozen=True)
class Change:
    """What one of several models says of a text before and after something was done to it."""

    model: str
    before: Prediction | None
    after: Prediction | None


@dataclass(frozen=True)
class Answers:
    """The answers of a page's models, by the names that it shows."""

    predictors: Mapping[str, Predictor]
    writers: Mapping[str, Writer]

    def predict(self, text: object, model: object, words: Sentences) -> tuple[str, Prediction, str]:
        """The model that was meant, what it says, and a note where that says little.

        Raises:
            RefusedError: a request that is not right, or a model that does not work.
        """
        checked = checked_text(text, words)
        chosen = _chosen(self.predictors, model, words)
        prediction = _predicted(chosen, checked, words)
        return chosen.name, prediction, _note(prediction, words)

    def predictor(self, model: object, words: Sentences) -> Predictor:
        """The one of a name; the first where none is given.

        Raises:
            RefusedError: there is no such model.
        """
        return _chosen(self.predictors, model, words)

    def compare(self, text: object, words: Sentences) -> tuple[list[Row], str]:
        """What each model says, and in one line whether those that give labels agree and which do not work.

        Raises:
            RefusedError: a text that is not right.
        """
        rows, refusals = self._rows(checked_text(text, words), words)
        return rows, " ".join([*_verdict(rows, words), *refusals])

    def _rows(self, checked: str, words: Sentences) -> tuple[list[Row], list[str]]:
        """What each model says, and why some say nothing."""
        rows: list[Row] = []
        refusals = []
        for one in self.predictors.values():
            try:
                rows.append(Row(one.name, _predicted(one, checked, words)))
            except RefusedError as refusal:
                rows.append(Row(one.name, None))
                refusals.append(str(refusal))
        return rows, refusals

    def explain(self, text: object, model: object, words: Sentences) -> tuple[str, Attribution]:
        """The model that was meant, and which tokens of a text speak for what it says of it.

        Raises:
            RefusedError: a request that is not right, a model that does not work, or one that would take too long.
        """
        checked = checked_text(text, words)
        chosen = _chosen(self.predictors, model, words)
        prediction = _predicted(chosen, checked, words)
        if not prediction.tokens:
            raise RefusedError(words.nothing_read)
        classifier = loaded(chosen.classifier, chosen.name, words)
        # ALBERT goes through one set of weights again and again.
        times = (
            classifier.model.config.num_hidden_layers if hasattr(classifier.model.config, "num_hidden_groups") else 1
        )
        if prediction.tokens * times * classifier.model.num_parameters(exclude_embeddings=True) > _EXPLAINED:
            raise RefusedError(words.too_slow)
        with told(words.failed, chosen.name):
            try:
                return chosen.name, attribute(classifier, checked, prediction.label)
            except UserError:
                pass  # not every model embeds its text in one table: said below, outside of what is a failure
        raise RefusedError(words.not_explained.format(model=chosen.name))

    def label(self, texts: object, model: object, words: Sentences) -> tuple[str, Classifier, NDArray[np.float64]]:
        """The model that was meant, and what it says of each text: probabilities, (texts, labels), or ratings.

        Raises:
            RefusedError: a request that is not right, or a model that does not work.
        """
        if not isinstance(texts, list) or not 0 < len(texts) <= TEXTS:
            raise RefusedError(words.no_texts.format(limit=TEXTS))
        checked = [checked_text(text, words) for text in texts]
        chosen = _chosen(self.predictors, model, words)
        classifier = loaded(chosen.classifier, chosen.name, words)
        with told(words.failed, chosen.name):
            return chosen.name, classifier, classifier.classify(checked)

    def disturb(self, text: object, noise: str, seed: int, words: Sentences) -> tuple[str, list[Change], str]:
        """The text with one of `BUTTON_NOISES`, what each model says of both, and in one line what changed.

        Raises:
            RefusedError: a text that is not right.
        """
        checked = checked_text(text, words)
        disturbed = BUTTON_NOISES[noise](checked, Random(seed))[:TEXT_LIMIT]
        before, refusals = self._rows(checked, words)
        if disturbed == checked:
            changes = [Change(row.model, row.prediction, row.prediction) for row in before]
            return checked, changes, " ".join([words.same_text, *refusals])
        after, refusals = self._rows(disturbed, words)
        changes = [Change(a.model, a.prediction, b.prediction) for a, b in zip(before, after, strict=True)]
        return disturbed, changes, " ".join([_changes(changes, words), *refusals])

    def chat(
        self,
        message: object,
        history: object,
        model: object,
        temperature: object,
        top_p: object,
        max_new_tokens: object,
        seed: object,
        words: Sentences,
    ) -> Iterator[str]:
        """The answer so far, once for each token; `history` is the chat before the message.

        Raises:
            RefusedError: a request that is not right, or a model that does not work.
        """
        chosen = _chosen({name: writer for name, writer in self.writers.items() if writer.chats}, model, words)
        said = checked_text(message, words)
        before = checked_history(history, words)
        if sum(len(turn["content"]) for turn in before) + len(said) > TEXT_LIMIT:
            raise RefusedError(words.long_chat.format(limit=TEXT_LIMIT))
        options, number = self._options(temperature, top_p, max_new_tokens, seed, words)
        generator = loaded(chosen.generator, chosen.name, words)
        so_far = ""
        turns = [*before, {"role": "user", "content": said}]
        with told(words.failed, chosen.name), closing(generator.pieces(turns, options, number)) as pieces:
            for piece in pieces:
                so_far += piece
                yield so_far.lstrip()

    def generate(
        self,
        prompt: object,
        model: object,
        temperature: object,
        top_p: object,
        max_new_tokens: object,
        seed: object,
        words: Sentences,
    ) -> Iterator[str]:
        """The text so far, once for each token; a prompt that is no label and no question stands before it.

        Raises:
            RefusedError: a request that is not right, or a model that does not work.
        """
        chosen = _chosen(self.writers, model, words)
        if chosen.kinds:
            if prompt not in chosen.kinds:
                raise RefusedError(words.no_label.format(names=", ".join(chosen.kinds)))
            checked = str(prompt)
        else:
            # Many tokenizers drop a space at the end, and no word begins behind it: what is written brings its own.
            checked = checked_text(prompt, words, may_be_empty=not chosen.chats).rstrip(" ")
        options, number = self._options(temperature, top_p, max_new_tokens, seed, words)
        generator = loaded(chosen.generator, chosen.name, words)
        stands_alone = bool(chosen.kinds) or generator.answers or not checked
        so_far = "" if stands_alone else checked
        with (
            told(words.failed, chosen.name),
            closing(generator.pieces(checked, options, number)) as pieces,
        ):
            for piece in pieces:
                so_far += piece
                yield so_far.lstrip() if stands_alone else so_far

    def suggest(self, prompt: object, model: object, count: object, words: Sentences) -> list[Suggestion]:
        """The likeliest words to go on with, the likeliest first; see `Generator.suggest`.

        Raises:
            RefusedError: a request that is not right, a model that does not work, or one that goes on with no text.
        """
        chosen = _chosen(self.writers, model, words)
        checked = checked_text(prompt, words, may_be_empty=True)
        number = checked_whole_number(count, SUGGESTED, "count", words)
        generator = loaded(chosen.generator, chosen.name, words)
        if chosen.kinds or generator.answers:
            raise RefusedError(words.no_suggestions.format(model=chosen.name))
        with told(words.failed, chosen.name):
            return generator.suggest(checked, number)

    def _options(
        self, temperature: object, top_p: object, max_new_tokens: object, seed: object, words: Sentences
    ) -> tuple[dict[str, float], int | None]:
        """Settings of the writing, and the seed.

        Raises:
            RefusedError: one is out of its range.
        """
        options = {
            "temperature": checked_number(temperature, TEMPERATURE, "temperature", words),
            "top_p": checked_number(top_p, TOP_P, "top_p", words),
            "max_new_tokens": checked_whole_number(max_new_tokens, NEW_TOKENS, "max_new_tokens", words),
        }
        number = _whole(seed, SEEDS)
        if seed is not None and number is None:
            raise RefusedError(words.no_seed.format(high=SEEDS[1]))
        return options, number


def checked_text(value: object, words: Sentences, *, may_be_empty: bool = False) -> str:
    """A text that a tokenizer takes.

    Raises:
        RefusedError: it is none, there is nothing in it, or it is too long.
    """
    if not isinstance(value, str):
        raise RefusedError(words.no_text)
    if len(value) > TEXT_LIMIT:
        raise RefusedError(words.too_long.format(count=len(value), limit=TEXT_LIMIT))
    if not value.strip() and not may_be_empty:
        raise RefusedError(words.empty)
    # JSON can hold halves of a character, which no tokenizer can read.
    return value.encode("utf-8", "replace").decode("utf-8")


def checked_history(value: object, words: Sentences) -> list[dict[str, str]]:
    """The messages of a chat, as {"role": "user" or "assistant", "content": text}.

    Gradio's component sends a content as a list of parts, of which this page makes one, a text.

    Raises:
        RefusedError: they are none, or too many.
    """
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MESSAGES:
        raise RefusedError(words.no_chat.format(limit=MESSAGES))
    messages = []
    for message in value:
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
            content = content[0].get("text")
        if role not in ("user", "assistant") or not isinstance(content, str):
            raise RefusedError(words.no_chat.format(limit=MESSAGES))
        messages.append({"role": str(role), "content": checked_text(content, words, may_be_empty=True)})
    return messages


def checked_number(value: object, limits: tuple[float, float], name: str, words: Sentences) -> float:
    """A number within `limits`, both of which are.

    Raises:
        RefusedError: it is none.
    """
    low, high = limits
    # To Python, True is 1.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RefusedError(words.no_number.format(name=name, low=low, high=high))
    return float(value)


def checked_whole_number(value: object, limits: tuple[int, int], name: str, words: Sentences) -> int:
    """A whole number within `limits`, both of which are.

    Raises:
        RefusedError: it is none.
    """
    whole = _whole(value, limits)
    if whole is None:
        raise RefusedError(words.no_whole_number.format(name=name, low=limits[0], high=limits[1]))
    return whole


def _whole(value: object, limits: tuple[int, int]) -> int | None:
    """A whole number within limits, which may come as 7.0; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not limits[0] <= value <= limits[1]:
        return None
    return int(value) if value == int(value) else None


def _chosen(models: Mapping[str, Named], name: object, words: Sentences) -> Named:
    """The model of a name; the first where none is given."""
    if name is None or name == "":
        return next(iter(models.values()))
    if not isinstance(name, str) or name not in models:
        raise RefusedError(words.no_model.format(names=", ".join(models)))
    return models[name]


def _predicted(chosen: Predictor, text: str, words: Sentences) -> Prediction:
    classifier = loaded(chosen.classifier, chosen.name, words)
    with told(words.failed, chosen.name):
        return predict_one(classifier, text)


def loaded(model: Lazy[Loaded], name: str, words: Sentences) -> Loaded:
    try:
        return model.get()
    except Exception as error:  # noqa: BLE001  # a damaged model raises anything; whoever started the page is told
        say(f"finetune: {name}: {' '.join(str(error).split()) or type(error).__name__}")
    raise RefusedError(words.cannot_load.format(model=name))


@contextmanager
def told(sentence: str, name: str) -> Iterator[None]:
    """Whatever goes wrong is one sentence to the visitor; the terminal gets its kind and place, and none of the text.

    An error's message may quote the text that it is about.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001  # none of them may end in gradio's traceback, which would quote the text
        place = traceback.extract_tb(error.__traceback__)[-1]
        say(f"finetune: {name}: {type(error).__name__} in {place.filename}, line {place.lineno}")
    else:
        return
    raise RefusedError(sentence.format(model=name))


def _note(prediction: Prediction, words: Sentences) -> str:
    notes = []
    if not prediction.tokens:
        notes.append(words.nothing_read)
    elif prediction.unknown_share > _MUCH_UNKNOWN:
        notes.append(words.unknown.format(share=prediction.unknown_share))
    if prediction.is_novel and prediction.novelty is not None:
        notes.append(words.novel.format(share=prediction.novelty))
    if prediction.is_cut:
        notes.append(words.cut.format(tokens=prediction.tokens))
    return " ".join(notes)


def record_note(record: TrackRecord | None, words: Sentences) -> str:
    """How often the model was right when it was as sure; nothing where that is not known."""
    if record is None:
        return ""
    return words.record.format(low=record.low, high=record.high, right=record.right, rows=record.rows)


def _verdict(rows: Sequence[Row], words: Sentences) -> list[str]:
    """Whether the models that give labels agree; nothing where fewer than two of them said anything."""
    labelled = [row.prediction for row in rows if row.prediction is not None and row.prediction.label is not None]
    if len(labelled) < 2:
        return []
    if len({frozenset(prediction.probabilities) for prediction in labelled}) > 1:
        return [words.other_labels]
    return [words.agree if len({tuple(prediction.labels) for prediction in labelled}) == 1 else words.disagree]


def changed_mind(before: Prediction, after: Prediction) -> bool:
    """Whether another label (or set of them) is given, or of a rater another rating, as it is shown."""
    return _opinion(before) != _opinion(after)


def _opinion(said: Prediction) -> str:
    return f"{said.rating:.1f}" if said.label is None else ", ".join(said.labels) or NO_LABEL


def _changes(changes: Sequence[Change], words: Sentences) -> str:
    """Which models changed their label, and how."""
    both = [(one.model, one.before, one.after) for one in changes if one.before and one.after]
    other = [
        words.changed.format(model=model, before=_opinion(before), after=_opinion(after))
        for model, before, after in both
        if changed_mind(before, after)
    ]
    return " ".join(other) or words.unchanged
