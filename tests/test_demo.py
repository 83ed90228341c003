"""The page, served on this machine's loopback and asked as programs ask it."""

import bz2
import csv
import html
import io
import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="needs gradio: pip install 'finetune-transfer[demo]'")

import datasets
import gradio as gr
import httpx
import openpyxl
from decoders import write_decoder, writing_recipe
from gradio_client import Client
from gradio_client.exceptions import AppError
from reviews import small_recipe, write_ratings

from finetune.attribution import Attribution, TokenAttribution
from finetune.demo import app, build_app, launch
from finetune.demo.answers import BUTTON_NOISES, TEXT_LIMIT, TEXTS, _note, record_note
from finetune.demo.batch import ROWS
from finetune.demo.fence import KEPT_SECONDS, UPLOAD_BYTES, sweep
from finetune.demo.markup import Cell, evidence_html, table_html
from finetune.demo.models import Lazy, Prediction, TrackRecord, models_of, predict_one
from finetune.demo.reports import framed
from finetune.demo.words import EXAMPLES, PAGE, SENTENCES, preferred_language
from finetune.errors import UserError
from finetune.generate import load_generator
from finetune.predict import load_classifier
from finetune.recipe import parse_recipe
from finetune.run import RunDirectory
from finetune.training import train

LABELS = {"good": "재미있다", "bad": "지루하다"}
CHAT_TEMPLATE = "{% for message in messages %}{{ message.role[0] }}{{ message.content }} {% endfor %}"
SCRIPT = "<script>document.title='x'</script><img src=x onerror=alert(1)> 정말 재미있다"
SENTENCE = SENTENCES["en"]
# One for all, without certificates: to read those takes longer than an answer.
HTTP = httpx.Client(verify=False, timeout=60)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two classifiers, a rater, a classifier whose weights are gone, and two writers, one of which writes by label."""
    directory = tmp_path_factory.mktemp("demo")
    few = {"num_train_epochs": 1}
    ratings = str(write_ratings(directory / "ratings.csv", 40))
    by_rating = {"name": "rater", "task": "rate", "data": {"train_file": ratings}}
    recipes = [
        small_recipe(directory, "lstm", rows=40, name="lstm", training=few),
        small_recipe(directory, "rnn", rows=40, name="rnn", training=few),
        small_recipe(directory, "lstm", training=few, **by_rating),
        parse_recipe(writing_recipe(directory, "gpt2-scratch", training=few) | {"name": "writer"}),
    ]
    runs = {recipe.name: train(recipe).path for recipe in recipes}
    runs["broken"] = shutil.copytree(runs["lstm"], directory / "runs" / "broken")
    (runs["broken"] / "model" / "model.safetensors").unlink()
    by_label = RunDirectory(shutil.copytree(runs["writer"], directory / "runs" / "by-label"))
    recipe = by_label.recipe()
    by_label.write_recipe(recipe.model_copy(update={"data": recipe.data.model_copy(update={"labels": LABELS})}))
    chatty = Path(shutil.copytree(runs["writer"] / "model", directory / "chatty"))
    (chatty / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return {name: str(path) for name, path in {**runs, "by-label": by_label.path, "chatty": chatty}.items()}


@pytest.fixture(scope="module")
def flagged(tmp_path_factory):
    """Where the page keeps what visitors say of its predictions."""
    return tmp_path_factory.mktemp("flagged") / "new" / "flags.jsonl"


@pytest.fixture(scope="module")
def page(models, flagged):
    """The running app of all of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = [models[name] for name in ("lstm", "rnn", "rater", "broken", "writer", "by-label", "chatty")]
    running = launch(names, port=port, flagging=flagged, wait=False)
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(page):
    connected = Client(page.local_url, verbose=False, analytics_enabled=False, ssl_verify=False)
    yield connected
    connected.close()


def refused(client, endpoint, *values, **named):
    """The sentence with which a request is refused."""
    with pytest.raises(AppError) as refusal:
        client.predict(*values, api_name=endpoint, **named)
    return str(refusal.value)


def raw(page, endpoint, data, **headers):
    """The last event of a request of any shape."""
    body = json.dumps({"data": data})  # in ASCII: half of a character has no UTF-8
    answer = HTTP.post(
        f"{page.local_api_url}call/{endpoint}", content=body, headers={**headers, "Content-Type": "application/json"}
    )
    answer.raise_for_status()
    url = f"{page.local_api_url}call/{endpoint}/{answer.json()['event_id']}"
    with HTTP.stream("GET", url) as events:
        return "".join(events.iter_text()).strip().split("\n\n")[-1]


def as_the_page(page, name, *values):
    """What the page is answered: the data, or the sentence that it shows."""
    number = next(
        number
        for number, fn in page.fns.items()
        if fn.name == name and fn.targets[0][1] in ("click", "change", "select")
    )
    body = {"data": list(values), "fn_index": number, "session_hash": "page"}
    HTTP.post(f"{page.local_api_url}queue/join", json=body).raise_for_status()
    with HTTP.stream("GET", f"{page.local_api_url}queue/data?session_hash=page") as events:
        messages = [json.loads(line.removeprefix("data: ")) for line in events.iter_lines() if line]
    completed = next(message for message in messages if message["msg"] == "process_completed")
    return completed["output"]["data"] if completed["success"] else completed["output"]["error"]


def cells(table, tag):
    """The texts of a table's cells."""
    return [html.unescape(cell) for cell in re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", table)]


def test_the_endpoints_have_names(client, page):
    named = client.view_api(return_format="dict")["named_endpoints"]
    found = {name: [parameter["parameter_name"] for parameter in named[name]["parameters"]] for name in named}
    assert found == {
        "/predict": ["text", "model"],
        "/explain": ["text", "model"],
        "/batch": ["texts", "model"],
        "/compare": ["text"],
        "/generate": ["prompt", "model", "temperature", "top_p", "max_new_tokens", "seed"],
        "/suggest": ["prompt", "model", "count"],
        "/chat": ["message", "history", "model", "temperature", "top_p", "max_new_tokens", "seed"],
    }
    described = HTTP.get(f"{page.local_api_url}info").json()["named_endpoints"]
    assert all(len(described[name]["description"]) > 30 for name in found)  # the page says what each does


def test_a_text_is_judged_as_the_classifier_does(client, models):
    for name in ("lstm", "rnn"):
        classifier = load_classifier(models[name])
        for text in ("어제 봤는데 정말 재미있다", "x " * 200, SCRIPT):
            answer = client.predict(text, model=name, api_name="/predict")
            expected = dict(zip(classifier.labels, classifier.classify([text])[0], strict=True))
            assert answer["probabilities"] == pytest.approx(expected)
            assert answer["label"] == max(expected, key=expected.get)
            assert answer["model"] == name
            assert answer["rating"] is None
            assert answer["milliseconds"] > 0
    jobs = [client.submit("정말 재미있다", api_name="/predict") for _ in range(6)]
    at_once = [{**job.result(), "milliseconds": 0} for job in jobs]
    assert at_once == [at_once[0]] * 6
    assert at_once[0]["model"] == "lstm"


def test_the_page_says_how_often_the_model_was_right_when_as_sure(models, tmp_path):
    run = RunDirectory(shutil.copytree(models["rnn"], tmp_path / "runs" / "rnn"))
    scores = run.scores()
    bins = [
        {"low": 0.5, "high": 0.6, "confidence": 0.57, "accuracy": 0.75, "count": 40},
        {"low": 0.6, "high": 0.7, "confidence": 0.66, "accuracy": 1.0, "count": 3},
    ]
    scores["splits"]["test"]["reliability"] = bins
    run.scores_file.write_text(json.dumps(scores), encoding="utf-8")
    (predictor,) = models_of([str(run.path)])[0].values()

    def said(sure, **others):
        prediction = Prediction({"good": sure, "bad": 1 - sure}, None, 1.0, 0.0, 3, False, **others)
        return record_note(predictor.record_of(prediction), SENTENCE)

    assert said(0.6) == "Where it was about as sure (50% to 60%), it was right on 75% of 40 test rows."
    assert said(0.65) == ""  # three rows say nothing
    assert said(0.95) == ""
    assert said(0.6, neutral="between") == said(0.6, gives_several=True) == ""
    del scores["splits"]["test"]
    run.scores_file.write_text(json.dumps(scores), encoding="utf-8")
    assert models_of([str(run.path)])[0]["rnn"].records == ()


def test_a_rater_gives_its_number(client, models):
    answer = client.predict("정말 재미있다", model="rater", api_name="/predict")
    assert answer["rating"] == pytest.approx(load_classifier(models["rater"]).classify(["정말 재미있다"])[0, 0])
    assert answer["label"] is answer["probabilities"] is None


def test_what_the_model_did_not_read_is_noted(client):
    assert client.predict("정말 재미있다", api_name="/predict")["note"] == ""
    assert "lacks 100% of this text" in client.predict("漢字 日本", api_name="/predict")["note"]
    assert "lacks 60% of this text" in client.predict("漢字漢字漢字 재미있다", api_name="/predict")["note"]
    assert client.predict("漢 정말 재미있다", api_name="/predict")["note"] == ""
    assert "first 31 tokens" in client.predict("정말 재미있다 " * 40, api_name="/predict")["note"]


def test_models_are_asked_side_by_side(client):
    answer = client.predict("정말 재미있다", api_name="/compare")
    by_name = {row["model"]: row for row in answer["models"]}
    assert list(by_name) == ["lstm", "rnn", "rater", "broken"]
    labels = [by_name[name]["label"] for name in ("lstm", "rnn")]
    assert all(0 <= by_name[name]["probability"] <= 1 for name in ("lstm", "rnn"))
    assert by_name["rater"]["rating"] is not None
    assert by_name["broken"] == dict.fromkeys(by_name["broken"]) | {"model": "broken"}
    said = SENTENCE.agree if labels[0] == labels[1] else SENTENCE.disagree
    assert answer["verdict"] == f"{said} {SENTENCE.cannot_load.format(model='broken')}"


def test_text_grows_and_a_seed_repeats_it(client, models):
    named = {"model": "writer", "max_new_tokens": 30, "temperature": 1.5, "top_p": 1.0, "api_name": "/generate"}
    writing = client.submit("0 어제", seed=7, **named)
    texts = list(writing)
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert len(set(texts)) > 2
    assert texts[-1].startswith("0 어제")
    options = {"max_new_tokens": 30, "temperature": 1.5, "top_p": 1.0}
    expected = load_generator(models["writer"]).generate(["0 어제"], options, seed=7)[0][0].text
    assert texts[-1] == "0 어제" + expected
    assert client.predict("0 어제", seed=7.0, **named) == texts[-1]
    assert client.predict("0 어제", seed=8, **named) != texts[-1]
    assert isinstance(client.predict("", **named), str)


def test_a_model_that_writes_by_label_takes_labels_only(client, models):
    named = {"model": "by-label", "max_new_tokens": 5, "api_name": "/generate"}
    assert not client.predict("재미있다", **named).startswith("재미있다")
    for other in ("good", "", ["재미있다"]):
        assert refused(client, "/generate", other, model="by-label") == SENTENCE.no_label.format(
            names="재미있다, 지루하다"
        )


def test_words_to_go_on_with(client, page, models):
    generator = load_generator(models["writer"])
    for typed in ("0 어제", "0 어제 ", ""):
        expected = [asdict(word) for word in generator.suggest(typed, 3)]
        answer = client.predict(typed, model="writer", count=3, api_name="/suggest")
        assert answer == {
            "suggestions": [word | {"probability": pytest.approx(word["probability"])} for word in expected]
        }
    texts, *buttons = as_the_page(page, "show_suggestions", "0 어제 ", "writer", "en")
    found = [word for word in generator.suggest("0 어제 ", 5) if word.text.strip()]
    assert json.loads(texts) == [f"0 어제{word.text} " for word in found]
    assert len(buttons) == 5
    shown = [button["value"] for button in buttons if button["visible"]]
    assert shown == [f"{word.text.strip()} {word.probability:.0%}" for word in found]


def test_who_suggests_nothing_says_so_to_a_program_and_is_quiet_in_the_page(client, page):
    for model in ("by-label", "chatty"):
        assert refused(client, "/suggest", "어제", model=model) == SENTENCE.no_suggestions.format(model=model)
        assert as_the_page(page, "show_suggestions", "어제", model, "en")[0] == "[]"
    long = "가" * (TEXT_LIMIT + 1)
    assert "characters" in refused(client, "/suggest", long, model="writer")
    assert as_the_page(page, "show_suggestions", long, "writer", "en")[0] == "[]"
    for count in (0, 21, 1.5, "3"):
        assert "count must be" in refused(client, "/suggest", "어제", model="writer", count=count)


def test_a_space_at_the_end_of_a_prompt_is_written_once(client):
    named = {"model": "writer", "max_new_tokens": 5, "seed": 3, "api_name": "/generate"}
    assert client.predict("0 어제  ", **named) == client.predict("0 어제", **named)


def test_a_text_that_is_unlike_the_training_texts_is_said_to_be(client):
    answer = client.predict("재미있다", api_name="/predict")
    assert answer["novelty"] is None  # no detector was fitted
    said = Prediction({"a": 0.9, "b": 0.1}, None, 1.0, 0.0, 5, is_cut=False, novelty=0.987, is_novel=True)
    assert _note(said, SENTENCE) == SENTENCE.novel.format(share=0.987)
    assert "98.7%" in _note(said, SENTENCE)
    assert _note(replace(said, is_novel=False), SENTENCE) == ""


def test_the_page_is_answered_like_a_program(client, page):
    answer = client.predict(SCRIPT, model="rnn", api_name="/predict")
    label, note, evidence = as_the_page(page, "show_prediction", SCRIPT, "rnn", "en")
    assert label["label"] == answer["label"]
    assert {one["label"]: one["confidence"] for one in label["confidences"]} == pytest.approx(answer["probabilities"])
    record = answer["track_record"]
    assert note == f"{answer['note']} {record_note(record and TrackRecord(**record), SENTENCE)}".strip()
    assert "<script>" not in evidence["value"]
    assert SCRIPT in html.unescape(re.sub(r"<[^>]*>", "", evidence["value"]))
    rating = client.predict("재미있다", model="rater", api_name="/predict")["rating"]
    assert as_the_page(page, "show_prediction", "재미있다", "rater", "en")[0]["label"] == f"{rating:.2f}"
    table, verdict = as_the_page(page, "show_comparison", SCRIPT, "ko-KR")
    assert cells(table, "th") == list(SENTENCES["ko"].columns)
    assert cells(table, "td")[::3] == ["lstm", "rnn", "rater", "broken"]
    assert cells(table, "td")[-2:] == ["", ""]
    assert SENTENCES["ko"].cannot_load.format(model="broken") in verdict
    settings = {"temperature": 1.2, "top_p": 1, "max_new_tokens": 10}
    for seed in (" 12 ", 12):
        written = as_the_page(page, "show_writing", "writer", SCRIPT, None, *settings.values(), seed, "en")
        assert written == [client.predict(SCRIPT, model="writer", **settings, seed=12, api_name="/generate")]
        assert written[0].startswith(SCRIPT)
    by_label = as_the_page(page, "show_writing", "by-label", "not this", "재미있다", *settings.values(), "3", "en")
    named = {"model": "by-label", **settings, "seed": 3}
    assert by_label == [client.predict("재미있다", **named, api_name="/generate")]
    assert as_the_page(page, "show_prediction", "", "rnn", "ko") == SENTENCES["ko"].empty
    no_seed = SENTENCE.no_seed.format(high=2**32 - 1)
    for odd in ("many", "-1", "9" * 30, "1.5"):
        assert as_the_page(page, "show_writing", "writer", "", None, *settings.values(), odd, "en") == no_seed


def test_the_page_asks_for_a_label_or_for_a_prompt(page):
    prompt, kind, *_ = as_the_page(page, "show_prompt", "by-label")
    assert (prompt["visible"], kind["visible"]) == (False, True)
    assert [name for name, _ in kind["choices"]] == ["재미있다", "지루하다"]
    prompt, kind, *_ = as_the_page(page, "show_prompt", "writer")
    assert (prompt["visible"], kind["visible"]) == (True, False)


@pytest.mark.parametrize("endpoint", ["/predict", "/compare", "/generate"])
def test_texts_that_are_none_get_a_sentence(client, capfd, endpoint):
    named = {"model": "writer"} if endpoint == "/generate" else {}
    for wrong in (None, 7, True, ["text"], {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}):
        if not isinstance(wrong, dict):  # the client would upload it
            assert refused(client, endpoint, wrong, **named) == SENTENCE.no_text
    long = "secret" * 2000
    assert refused(client, endpoint, long, **named) == SENTENCE.too_long.format(count=len(long), limit=TEXT_LIMIT)
    if endpoint != "/generate":
        assert refused(client, endpoint, " \n ") == SENTENCE.empty
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"temperature": 0}, "temperature must be a number from 0.1 to 2."),
        ({"temperature": "hot"}, "temperature must be a number from 0.1 to 2."),
        ({"temperature": True}, "temperature must be a number from 0.1 to 2."),
        ({"top_p": 1.01}, "top_p must be a number from 0.05 to 1."),
        ({"top_p": None}, "top_p must be a number from 0.05 to 1."),
        ({"max_new_tokens": 501}, "max_new_tokens must be a whole number from 1 to 500."),
        ({"max_new_tokens": 1.5}, "max_new_tokens must be a whole number from 1 to 500."),
        ({"seed": -1}, "The seed must be a whole number from 0 to 4294967295, or left empty."),
        ({"seed": "1"}, "The seed must be a whole number from 0 to 4294967295, or left empty."),
        ({"model": "other"}, "There is no such model here; choose one of: writer, by-label, chatty."),
        ({"model": ["writer"]}, "There is no such model here; choose one of: writer, by-label, chatty."),
    ],
)
def test_settings_out_of_range_get_a_sentence(client, named, sentence):
    assert refused(client, "/generate", "어제", **named) == sentence


def test_a_text_is_explained_by_its_parts(client, models):
    text = "어제 봤는데 정말 재미있다"
    answer = client.predict(text, model="rnn", api_name="/explain")
    expected = client.predict(text, model="rnn", api_name="/predict")
    assert answer["label"] == expected["label"]
    assert answer["value"] == pytest.approx(max(expected["probabilities"].values()), abs=1e-6)
    assert [text[part["start"] : part["end"]] for part in answer["parts"]] == [part["text"] for part in answer["parts"]]
    total = sum(part["weight"] for part in answer["parts"])
    assert total == pytest.approx(answer["value"] - answer["baseline"], abs=0.01)
    assert client.predict(text, model="rater", api_name="/explain")["label"] is None
    assert refused(client, "/explain", "", model="rnn") == SENTENCE.empty


def test_what_takes_too_long_is_not_explained(client, monkeypatch):
    monkeypatch.setattr("finetune.demo.answers._EXPLAINED", 1)
    assert refused(client, "/explain", "정말 재미있다") == SENTENCE.too_slow


def test_programs_send_several_texts(client, models):
    texts = ["정말 재미있다", "지루하다", SCRIPT]
    answer = client.predict(texts, model="rnn", api_name="/batch")
    expected = load_classifier(models["rnn"]).classify(texts)
    assert [one["probability"] for one in answer["predictions"]] == pytest.approx(expected.max(axis=1))
    assert client.predict(texts, model="rater", api_name="/batch")["predictions"][0]["rating"] == pytest.approx(
        load_classifier(models["rater"]).classify(texts)[0, 0], abs=1e-5
    )
    no_texts = SENTENCE.no_texts.format(limit=TEXTS)
    assert refused(client, "/batch", []) == refused(client, "/batch", "x") == no_texts
    assert refused(client, "/batch", ["x"] * (TEXTS + 1)) == no_texts
    assert refused(client, "/batch", ["x", 7]) == SENTENCE.no_text


def test_a_text_is_disturbed_and_what_changes_is_said(page, monkeypatch):
    text, before, table, _ = as_the_page(page, "show_disturbed", "어제 봤는데 정말 재미있다", "en")
    assert (text, before) == ("어제봤는데정말재미있다", "어제 봤는데 정말 재미있다")
    assert cells(table, "th") == list(SENTENCE.columns_changed)
    assert cells(table, "td")[::4] == ["lstm", "rnn", "rater", "broken"]
    assert as_the_page(page, "show_disturbed", "ok", "en")[3].startswith(SENTENCE.same_text)
    assert as_the_page(page, "show_disturbed", "", "ko") == SENTENCES["ko"].empty

    def by_spaces(_, text):
        likely = "good" if " " in text else "bad"
        return Prediction({"good": 0.0, "bad": 0.0} | {likely: 1.0}, None, 1.0, 0.0, 1, False)

    monkeypatch.setattr("finetune.demo.answers.predict_one", by_spaces)
    said = as_the_page(page, "show_disturbed", "어제 봤는데", "en")
    assert said[3].startswith(SENTENCE.changed.format(model="lstm", before="good", after="bad"))
    assert 'class="other">bad 1.000' in said[2]

    def by_spaces_rated(_, text):
        return Prediction({}, 7.0 if " " in text else 3.0, 1.0, 0.0, 1, False)

    monkeypatch.setattr("finetune.demo.answers.predict_one", by_spaces_rated)
    said = as_the_page(page, "show_disturbed", "어제 봤는데", "en")[3]
    assert SENTENCE.changed.format(model="rater", before="7.0", after="3.0") in said
    assert SENTENCE.cannot_load.format(model="broken") in said


def test_a_chat_goes_on_from_what_was_said(client, page, models):
    named = {"max_new_tokens": 8, "seed": 3, "api_name": "/chat"}
    history = [{"role": "user", "content": "어제"}, {"role": "assistant", "content": "정말"}]
    answer = client.predict("재미있다", history=history, **named)
    generator = replace(load_generator(models["chatty"]), chats=True)
    turns = [*history, {"role": "user", "content": "재미있다"}]
    options = {"max_new_tokens": 8, "temperature": 1.0, "top_p": 0.95}
    assert answer == generator.generate([turns], options, seed=3)[0][0].text.lstrip()
    parts = [{"role": one["role"], "content": [{"type": "text", "text": one["content"]}]} for one in history]
    message, chat = as_the_page(page, "show_answer", "chatty", "재미있다", parts, 1.0, 0.95, 8, "3", "en")
    assert message == ""
    assert [turn["role"] for turn in chat] == ["user", "assistant", "user", "assistant"]
    assert chat[-1]["content"][0]["text"] == answer
    no_chat = SENTENCE.no_chat.format(limit=50)
    for odd in ("x", [7], [{"role": "system", "content": "x"}], [{"role": "user", "content": {}}], history * 30):
        assert refused(client, "/chat", "x", history=odd) == no_chat
    assert refused(client, "/chat", "") == SENTENCE.empty
    assert refused(client, "/chat", "x", model="writer") == SENTENCE.no_model.format(names="chatty")
    long = [{"role": "user", "content": "x" * 6000}] * 2
    assert refused(client, "/chat", "x", history=long) == SENTENCE.long_chat.format(limit=TEXT_LIMIT)


def sent(page, name, content):
    """A file that was sent to the page, as its component names it."""
    answer = HTTP.post(f"{page.local_api_url}upload", files={"files": (name, content)})
    answer.raise_for_status()
    return {"path": answer.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}


def test_a_file_comes_back_with_predictions(page, models):
    texts = ["정말 재미있다", SCRIPT, "", "=1+1"]
    lines = io.StringIO()
    csv.writer(lines).writerows([["id", "후기"], *([number, text] for number, text in enumerate(texts))])
    file = sent(page, "reviews.csv", lines.getvalue().encode("cp949"))
    column = as_the_page(page, "show_columns", file, "en")[0]
    assert (column["choices"], column["value"]) == ([["id", "id"], ["후기", "후기"]], "후기")
    note, plot, labelled, rows = as_the_page(page, "show_labelled", file, "후기", "rnn", "en")
    assert note == f"{SENTENCE.labelled.format(count=4)} {SENTENCE.empty_rows.format(count=1)}"
    classifier = load_classifier(models["rnn"])
    assert sum(row[1] for row in plot["value"]["data"]) == 4
    assert [row[0] for row in plot["value"]["data"]] == classifier.labels
    assert "<script>" not in rows["value"]
    answer = HTTP.get(f"{page.local_api_url}file={labelled['value']['path']}")
    assert answer.content.startswith(b"\xef\xbb\xbf")  # or Excel would not read Hangul
    assert "attachment" in answer.headers["content-disposition"]
    table = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [row["후기"] for row in table] == texts
    expected = classifier.classify(texts)
    assert [row["predicted"] for row in table] == [classifier.labels[i] for i in expected.argmax(axis=1)]
    for number, label in enumerate(classifier.labels):
        assert [float(row[f"probability_{label}"]) for row in table] == pytest.approx(expected[:, number])


def test_a_workbook_stays_one_and_a_rater_rates_it(page, models):
    book = openpyxl.Workbook()
    for row in (["predicted", "text"], ["x", "정말 재미있다"], ["y", "=지루하다"]):
        book.active.append([None, *row])
    for cell in book.active["C"]:
        cell.data_type = "s"
    content = io.BytesIO()
    book.save(content)
    file = sent(page, "reviews.xlsx", content.getvalue())
    _, _, labelled, _ = as_the_page(page, "show_labelled", file, "text", "rater", "ko")
    answer = HTTP.get(f"{page.local_api_url}file={labelled['value']['path']}")
    values = list(openpyxl.load_workbook(io.BytesIO(answer.content)).active.values)
    assert values[0] == ("predicted", "text", "predicted_")
    assert [row[:2] for row in values[1:]] == [("x", "정말 재미있다"), ("y", "=지루하다")]
    expected = load_classifier(models["rater"]).classify(["정말 재미있다", "=지루하다"])[:, 0]
    assert [row[2] for row in values[1:]] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "bad.csv: the file is empty"),
        ("a.csv", b"text\n", "no rows below the header"),
        ("a.csv", b"text,label\na\n", "row 2: 1 fields where the header has 2"),
        ("a.csv", b"text\n\xff\xfe\xff\xff", "utf-8 text"),
        ("a.xlsx", b"PK\x03\x04 no workbook", "damaged"),
        ("a.pdf", b"%PDF", "send one of these"),
        ("a.jsonl", b"{}", "send one of these"),
        ("a.txt", bz2.compress(bytes(10_000_000)), "packed"),
        ("a.csv", b"x," * 300 + b"y\n", "> 200 columns"),
    ],
)
def test_bad_files_are_explained(page, name, content, reason):
    file = sent(page, name.replace("a.", "bad."), content)
    for said in (
        as_the_page(page, "show_columns", file, "en"),
        as_the_page(page, "show_labelled", file, "text", "rnn", "en"),
    ):
        assert reason in said
        assert str(Path(file["path"]).parent) not in said  # where it lies is nobody's concern


def test_other_files_than_those_sent_cannot_be_named(page, tmp_path, capfd):
    own = tmp_path / "own.csv"
    own.write_text("text\nx\n")
    meta = {"_type": "gradio.FileData"}
    for odd in (str(own), "/etc/passwd", {"path": "/etc/passwd"}, {"path": str(own), "meta": meta}, {"meta": meta}, 7):
        for name, rest in (("show_labelled", ("text", "rnn", "en")), ("show_columns", ("ko",))):
            assert as_the_page(page, name, odd, *rest) == "The request is not as the page sends it."
    assert capfd.readouterr().err == ""
    assert as_the_page(page, "show_labelled", None, "text", "rnn", "en") == SENTENCE.no_file
    file = sent(page, "a.csv", b"text\nx\n")
    no_column = SENTENCE.no_column.format(names="text")
    assert as_the_page(page, "show_labelled", file, "other", "rnn", "en") == no_column
    assert as_the_page(page, "show_labelled", file, ["text"], "rnn", "en") == no_column
    many = sent(page, "many.txt", b"x\n" * (ROWS + 1))
    too_many = SENTENCE.too_many_rows.format(count=ROWS + 1, limit=ROWS)
    assert as_the_page(page, "show_labelled", many, "text", "rnn", "en") == too_many


def test_files_are_removed_after_their_time_and_nothing_is_left_of_reading_them(page, monkeypatch):
    caches = [Path(datasets.config.HF_DATASETS_CACHE), Path(tempfile.gettempdir())]

    def found():
        return {path for cache in caches for path in cache.glob("*") if "demo" not in path.name}

    before = found()
    file = sent(page, "secret.csv", b"text\nsecret\n")
    labelled = as_the_page(page, "show_labelled", file, "text", "rnn", "en")[2]["value"]["path"]
    assert found() == before
    assert Path(file["path"]).is_file()
    assert any(thread.name == "sweeping" for thread in threading.enumerate())
    directory = Path(os.environ["GRADIO_TEMP_DIR"])
    sweep(directory, KEPT_SECONDS)
    assert Path(labelled).is_file()
    sweep(directory, -1)
    assert list(directory.iterdir()) == []
    assert as_the_page(page, "show_labelled", file, "text", "rnn", "en") == SENTENCE.file_gone


def test_no_file_is_taken_while_there_are_too_many(page, monkeypatch):
    monkeypatch.setattr("finetune.demo.fence._UPLOADS_BYTES", -1)
    assert HTTP.post(f"{page.local_api_url}upload", files={"files": b"x"}).status_code == 503


def test_the_report_stands_in_a_frame_in_which_nothing_runs(page):
    (framed_page,) = as_the_page(page, "show_report", "lstm, rnn", "en")
    assert 'sandbox=""' in framed_page
    source = html.unescape(re.search('srcdoc="(.*?)"', framed_page, re.DOTALL)[1])
    assert "Comparison of" in source
    assert "lstm" in source
    assert as_the_page(page, "show_report", "../../other", "en") == [framed_page]  # the first one


def test_what_visitors_say_of_a_prediction_is_kept_where_it_is_wanted(page, client, flagged, models, tmp_path):
    assert flagged.read_text(encoding="utf-8") == ""
    assert as_the_page(page, "keep_text", "정말 재미있다", "rnn", "ko") == [SENTENCES["ko"].kept]
    (line,) = flagged.read_text(encoding="utf-8").splitlines()
    kept = json.loads(line)
    answer = client.predict("정말 재미있다", model="rnn", api_name="/predict")
    assert {name: kept[name] for name in ("model", "text", "label", "is_right", "rating")} == {
        "model": "rnn",
        "text": "정말 재미있다",
        "label": answer["label"],
        "is_right": True,
        "rating": None,
    }
    assert as_the_page(page, "keep_text", "", "rnn", "en") == SENTENCE.empty
    without = build_app([models["lstm"]])
    assert "keep_text" not in {fn.name for fn in without.fns.values()}
    with pytest.raises(UserError, match="--flagging"):
        build_app([models["lstm"]], flagging=tmp_path)


def test_a_floor_stands_in_the_report_alone(models, tmp_path):
    recipe = small_recipe(tmp_path, {"family": "tfidf"}, rows=40, name="floor")
    floor = str(train(recipe).path)
    predictors, _ = models_of([models["lstm"], floor])
    assert list(predictors) == ["lstm"]
    with pytest.raises(UserError, match="floors keep no model"):
        models_of([floor])


def test_word_vectors_are_refused(tmp_path):
    recipe = f"name: x\ntask: word_vectors\ndata: {{train_file: {tmp_path}/a.txt}}\nmodel: {{family: word_vectors}}\n"
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    with pytest.raises(UserError, match="begin a recurrent model with them"):
        models_of([str(tmp_path)])


def test_odd_requests_end_without_a_traceback_or_a_word_of_them_on_the_terminal(page, capfd):
    assert "The request lacks values." in raw(page, "generate", ["secret"])
    assert SENTENCE.no_text in raw(page, "predict", [{"secret": "secret"}, ""])
    assert '"label"' in raw(page, "predict", ["secret \ud800", ""])  # half of a character
    assert SENTENCE.no_model.format(names="lstm, rnn, rater, broken") in raw(page, "predict", ["secret", "writer"])
    files = {"path": "/etc/passwd", "url": "http://127.0.0.1:1/", "meta": {"_type": "gradio.FileData"}}
    assert "root:" not in raw(page, "predict", [files, ""])
    said = capfd.readouterr()
    assert "secret" not in said.out + said.err
    assert "root:" not in said.out + said.err


def test_the_sentence_is_in_the_language_of_who_asks(page):
    headers = {"Accept-Language": "ko-KR,ko;q=0.9,en;q=0.8"}
    assert SENTENCES["ko"].empty in json.loads(raw(page, "predict", ["", ""], **headers).split("data: ")[1])["error"]
    ranked = {"ko": "ko", "en-US,ko;q=0.5": "en", "fr,ko;q=0.2": "ko", "de": "en", "en;q=0.1, KO-kr;q=0.8": "ko"}
    assert {header: preferred_language(header) for header in ranked} == ranked
    assert [preferred_language(odd) for odd in (None, "", "ko;q=0", "ko;q=..", ";;,", "*")] == ["en"] * 6


def test_a_model_that_does_not_load_is_a_sentence_in_the_page_and_a_reason_on_the_terminal(client, capfd):
    assert refused(client, "/predict", "secret", model="broken") == SENTENCE.cannot_load.format(model="broken")
    said = capfd.readouterr().err
    assert said.startswith("finetune: broken: ")
    assert "Traceback" not in said
    assert "secret" not in said


def test_an_error_of_a_model_quotes_nothing(page, client, capfd, monkeypatch):
    def fail(*_, **__):
        raise ValueError("about secret")

    monkeypatch.setattr("finetune.demo.answers.predict_one", fail)
    assert refused(client, "/predict", "secret") == SENTENCE.failed.format(model="lstm")
    said = capfd.readouterr().err
    assert "lstm: ValueError in " in said
    assert "secret" not in said


def test_the_page_shows_text_as_text(page):
    """Nothing that a visitor or a model says may go to a component that renders HTML or Markdown."""
    blocks = page.blocks
    renders = (gr.HTML, gr.Markdown, gr.Chatbot)
    outputs = [(fn, blocks[block._id]) for fn in page.fns.values() for block in fn.outputs]
    rendered = {fn.name for fn, block in outputs if isinstance(block, renders) and fn.fn is not None}
    # Notes in our own words; tables and evidence, escaped; a report in a frame; a chat that is shown as it is.
    assert rendered == {
        "show_prediction",
        "keep_text",
        "show_comparison",
        "show_disturbed",
        "show_answer",
        "show_columns",
        "show_labelled",
        "show_report",
    }
    assert not any(chat.render_markdown for chat in blocks.values() if isinstance(chat, gr.Chatbot))
    hostile = "</span><img src=x onerror=alert(1)>\"'"
    assert "<img" not in table_html([hostile], [[Cell(hostile)]])
    attribution = Attribution(hostile, 1.0, 0.0, (TokenAttribution(hostile, 0, len(hostile), 1.0),), 0.0)
    assert "<img" not in evidence_html(hostile, attribution, SENTENCE)
    assert "<img" not in framed(hostile, hostile)


def test_files_are_out_of_reach_and_nothing_is_kept(page, client, flagged):
    client.predict("secret 정말", api_name="/predict")
    assert not page.state_holder.session_data
    base = page.local_url.rstrip("/")
    for path in (
        "/gradio_api/file=/etc/hostname",
        "/gradio_api/file=pyproject.toml",
        f"/gradio_api/file={flagged}",
        f"/gradio_api/file={os.environ['GRADIO_TEMP_DIR']}/../passwd",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file/etc/hostname",
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/runs",
    ):
        assert HTTP.get(base + path).status_code == 404, path
    assert HTTP.get(f"{base}/monitoring").status_code == 403
    assert HTTP.post(f"{base}/gradio_api/upload", files={"files": b"x" * 11_000_000}).status_code == 413
    assert HTTP.post(f"{base}/gradio_api/process_recording", files={"file": b"x"}).status_code == 404
    direct = HTTP.post(f"{base}/gradio_api/run/predict", json={"data": ["x", ""]})
    assert direct.status_code == 404  # past the queue
    huge = {"data": ["x" * 1_100_000, ""]}
    assert HTTP.post(f"{base}/gradio_api/call/predict", json=huge).status_code == 413
    chunks = (b" " * 100_000 for _ in range(20))
    assert HTTP.post(f"{base}/gradio_api/call/predict", content=chunks).status_code == 400
    assert page.allowed_paths == []
    assert not page.analytics_enabled
    assert not page.share
    html = HTTP.get(base).text
    assert "fonts.googleapis" not in html
    assert page._queue.max_size == 64


def test_who_goes_away_stops_the_writing(models):
    generator = load_generator(models["writer"])

    def is_writing():
        return any(thread.name.startswith("writing") for thread in threading.enumerate())

    pieces = generator.pieces("0", {"max_new_tokens": 40, "temperature": 1.0}, seed=1)
    next(pieces)
    assert is_writing()
    pieces.close()
    assert not is_writing()
    with pytest.raises(UserError, match="nonsense"):
        next(generator.pieces("0", {"nonsense": 1}))


def test_an_error_while_writing_reaches_the_reader(models, monkeypatch):
    generator = load_generator(models["writer"])

    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(generator.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(generator.pieces("0"))


def test_stop_ends_the_writing(client, page, monkeypatch):
    closed = threading.Event()

    def endless(self, *_):
        try:
            while True:
                time.sleep(0.01)
                yield "a "
        finally:
            closed.set()

    monkeypatch.setattr("finetune.generate.Generator.pieces", endless)
    writing = client.submit("어제", model="writer", api_name="/generate")
    while not writing.outputs():
        time.sleep(0.01)
    writing.cancel()
    assert closed.wait(20)


def test_a_model_is_loaded_once_by_however_many_at_a_time():
    loads = []

    def load():
        time.sleep(0.05)
        loads.append(1)
        if len(loads) == 1:
            raise OSError("not yet")
        return object()

    lazy = Lazy(load)
    with pytest.raises(OSError, match="not yet"):
        lazy.get()
    found = []
    threads = [threading.Thread(target=lambda: found.append(lazy.get())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 2
    assert len(set(map(id, found))) == 1


def test_models_are_loaded_one_after_the_other():
    loading, most = [], []

    def load():
        loading.append(1)
        most.append(len(loading))
        time.sleep(0.05)
        loading.pop()
        return object()

    threads = [threading.Thread(target=Lazy(load).get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_the_page_opens_before_anything_is_loaded_and_has_the_tabs_it_needs(models, monkeypatch):
    def never(*_):
        raise AssertionError("loaded too early")

    monkeypatch.setattr("finetune.demo.models.load_classifier", never)
    monkeypatch.setattr("finetune.demo.models.load_generator", never)

    def tabs(*names):
        page = build_app([models[name] for name in names])
        return [
            json.loads(str(block.label).removeprefix("__i18n__"))["key"].removeprefix("page-word-")
            for block in page.blocks.values()
            if isinstance(block, gr.Tab)
        ]

    assert tabs("lstm") == ["sentiment", "batch"]
    assert tabs("writer") == ["generate"]
    assert tabs("chatty") == ["chat"]
    assert tabs("by-label", "lstm", "rater") == ["sentiment", "compare", "generate", "batch"]
    assert tabs("rnn", "lstm") == ["sentiment", "compare", "batch", "report"]


def test_models_are_told_apart_by_the_end_of_their_path(models, tmp_path):
    other = shutil.copytree(models["lstm"], tmp_path / "others" / "lstm")
    write_decoder(tmp_path / "random", "gpt2")
    predictors, writers = models_of(
        [models["lstm"], f"{models['lstm']}/", str(other), str(tmp_path / "random"), "embedded:mini-gpt-ko"]
    )
    assert list(predictors) == ["runs/lstm", "others/lstm"]
    assert [name.split("/")[-1] for name in writers] == ["random", "embedded:mini-gpt-ko"]
    assert not any(writer.kinds or writer.chats for writer in writers.values())


def test_prompts_that_come_back_again_and_again_are_labels(models, tmp_path):
    run = shutil.copytree(models["writer"], tmp_path / "quick")
    prompts = ["부정", "긍정", "중립"] * 4
    lines = [
        json.dumps({"id": str(i), "prompt": prompt, "text": "", "stopped": True, "reference": ""})
        for i, prompt in enumerate(prompts)
    ]
    (run / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert models_of([str(run)])[1]["quick"].kinds == ("긍정", "부정", "중립")
    assert models_of([models["writer"]])[1]["writer"].kinds == ()  # eight prompts, each once
    assert models_of([models["by-label"]])[1]["by-label"].kinds == ("재미있다", "지루하다")


def test_a_judgement_is_the_classifiers_own(models):
    classifier = load_classifier(models["rnn"])
    for text in EXAMPLES:
        assert list(predict_one(classifier, text).probabilities.values()) == classifier.classify([text])[0].tolist()


def test_the_words_are_there_in_both_languages():
    assert PAGE["en"].keys() == PAGE["ko"].keys()
    assert all(value.strip() for words in PAGE.values() for value in words.values())
    sources = [path.read_text(encoding="utf-8") for path in Path(app.__file__).parent.glob("*.py")]
    used = {word for source in sources for word in re.findall(r'\bword\("(\w+)"', source)}
    assert used | BUTTON_NOISES.keys() | {"heading_flagging"} == PAGE["en"].keys()
    for hint in (PAGE["en"]["file_hint"], PAGE["ko"]["file_hint"]):
        assert f"{ROWS:,}" in hint
        assert re.search(rf"{UPLOAD_BYTES // 1_000_000} ?MB", hint)
        assert re.search("ten minutes|10분", hint)
    assert KEPT_SECONDS == 600


def test_wrong_names_and_a_taken_port_are_a_users_errors(models, tmp_path):
    with pytest.raises(UserError, match="at least one run or model"):
        build_app([])
    with pytest.raises(UserError, match="no such run or model directory"):
        build_app(["runs/none"])
    with pytest.raises(UserError, match="at least one request"):
        launch([models["lstm"]], concurrency=0)
    floor = tmp_path / "floor"
    shutil.copytree(models["lstm"], floor)
    shutil.rmtree(floor / "model")
    with pytest.raises(UserError, match="training did not finish"):
        build_app([str(floor)])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be used; choose another"):
            launch([models["lstm"]], port=taken.getsockname()[1], wait=False)
