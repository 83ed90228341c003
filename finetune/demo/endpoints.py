"""The page's answers for programs: JSON in and out, checked alike, and in the page's queue."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import gradio as gr
from gradio.events import api

from finetune.demo.answers import Answers, Row
from finetune.demo.models import Prediction
from finetune.demo.tabs import sentences
from finetune.tasks import given_labels


def add_endpoints(answers: Answers) -> None:
    """/predict, /explain and /batch if a model labels or rates texts, /compare if several do, /generate and
    /suggest if one writes, /chat if one chats."""

    def predict(text: str, request: gr.Request, model: str = "") -> dict[str, Any]:
        """The label of a text with the probability of each label, or its rating, by one model (the first by default).

        Returns the model's name, label, probabilities, rating, milliseconds, and a note, empty unless the model read
        little of the text. Where a text may have several labels, they are a list, labels, and label is null. The track
        record says on how many test rows the model was about as sure (low, high), and how often it was right there. The
        novelty is the share of ordinary texts that are less unlike the training texts; null where the model has none.
        """
        with sentences(request) as words:
            name, said, note = answers.predict(text, model, words)
            record = answers.predictor(model, words).record_of(said)
            return {
                "model": name,
                **_labels_of(said),
                "probabilities": said.probabilities or None,
                "rating": said.rating,
                "milliseconds": said.milliseconds,
                "note": note,
                "novelty": said.novelty,
                "track_record": None if record is None else asdict(record),
            }

    def explain(text: str, request: gr.Request, model: str = "") -> dict[str, Any]:
        """Which parts of a text speak for what a model says of it, by integrated gradients.

        Returns the model's name, the label, its probability (or the rating) with the text and without its words, and
        for each part its start and end in the text, and its weight; the weights add up to the difference.
        """
        with sentences(request) as words:
            name, found = answers.explain(text, model, words)
            return {
                "model": name,
                "label": found.label,
                "value": found.value,
                "baseline": found.baseline,
                "parts": [
                    {"text": part.text, "start": part.start, "end": part.end, "weight": part.score}
                    for part in found.tokens
                ],
            }

    def batch(texts: list[str], request: gr.Request, model: str = "") -> dict[str, Any]:
        """What one model says of up to 200 texts.

        Returns the model's name and, in the order of the texts, the label of each with its probability, or its rating;
        where a text may have several labels, a list of them and the probability of every label.
        """
        with sentences(request) as words:
            name, classifier, said = answers.label(texts, model, words)
            if classifier.task == "rate":
                return {"model": name, "predictions": [{"rating": float(row[0])} for row in said]}
            labels = classifier.labels
            if classifier.task == "multi_label":
                found = [given_labels(row, labels) for row in said]
                probable = [dict(zip(labels, row.tolist(), strict=True)) for row in said]
                return {
                    "model": name,
                    "predictions": [
                        {"labels": given, "probabilities": of_each}
                        for given, of_each in zip(found, probable, strict=True)
                    ],
                }
            return {
                "model": name,
                "predictions": [
                    {"label": answer, "probability": float(row.max())}
                    for answer, row in zip(classifier.answers(said), said, strict=True)
                ],
            }

    def compare(text: str, request: gr.Request) -> dict[str, Any]:
        """The label of a text by each model, or its rating.

        Returns for each of the models its name, label, probability, rating and milliseconds (all null if it does not
        work), and a verdict: whether those that give labels agree. A model that may give several has a list, labels.
        """
        with sentences(request) as words:
            rows, verdict = answers.compare(text, words)
            return {"models": [_compared(row) for row in rows], "verdict": verdict}

    def generate(
        prompt: str,
        request: gr.Request,
        model: str = "",
        temperature: float = 1.0,
        top_p: float = 0.95,
        max_new_tokens: int = 100,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The text that a model writes (the first by default), from its beginning, again and again as it grows.

        The prompt is a label for a model that learnt to write by labels.
        """
        with sentences(request) as words:
            yield from answers.generate(prompt, model, temperature, top_p, max_new_tokens, seed, words)

    def suggest(prompt: str, request: gr.Request, model: str = "", count: int = 5) -> dict[str, Any]:
        """The words that a model (the first by default) finds likeliest to go on with, as one types.

        Behind a space a new word begins; else the last word is taken for the beginning of one. Returns the suggestions,
        the likeliest first: what each adds to the prompt, and its probability among the words that begin so.
        """
        with sentences(request) as words:
            return {"suggestions": [asdict(word) for word in answers.suggest(prompt, model, count, words)]}

    def chat(
        message: str,
        request: gr.Request,
        history: list[dict[str, str]] | None = None,
        model: str = "",
        temperature: float = 1.0,
        top_p: float = 0.95,
        max_new_tokens: int = 100,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The answer of a model that chats, again and again as it grows.

        The history is the chat before the message: a list of {"role": "user" or "assistant", "content": "..."}.
        """
        with sentences(request) as words:
            yield from answers.chat(message, history, model, temperature, top_p, max_new_tokens, seed, words)

    if answers.predictors:
        api(predict, api_name="predict", concurrency_id="predict")
        api(explain, api_name="explain", concurrency_id="predict")
        api(batch, api_name="batch", concurrency_id="batch", concurrency_limit=1)
    if len(answers.predictors) > 1:
        api(compare, api_name="compare", concurrency_id="predict")
    if answers.writers:
        api(generate, api_name="generate", concurrency_id="write", concurrency_limit=1)
        api(suggest, api_name="suggest", concurrency_id="suggest", concurrency_limit=1)
    if any(writer.chats for writer in answers.writers.values()):
        api(chat, api_name="chat", concurrency_id="write", concurrency_limit=1)


def _labels_of(said: Prediction | None) -> dict[str, Any]:
    """The label, or the labels where a text may have several."""
    if said is not None and said.gives_several:
        return {"label": None, "labels": said.labels}
    return {"label": None if said is None else said.answer}


def _compared(row: Row) -> Mapping[str, Any]:
    said = row.prediction
    labels = _labels_of(said)
    label = None if said is None or said.gives_several else said.label
    return {
        "model": row.model,
        **labels,
        "probability": said.probabilities[label] if said is not None and label is not None else None,
        "rating": said.rating if said is not None else None,
        "milliseconds": said.milliseconds if said is not None else None,
    }
