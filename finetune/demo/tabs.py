"""The tabs of the page. Each asks for what it shows by `on_demand`, in the language that the page is shown in."""

import html
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from finetune.demo.answers import (
    BUTTON_NOISES,
    NEW_TOKENS,
    NO_LABEL,
    TEMPERATURE,
    TOP_P,
    Answers,
    Change,
    RefusedError,
    Row,
    changed_mind,
    checked_history,
    checked_text,
    record_note,
)
from finetune.demo.batch import KINDS, Labelled, columns_of, label_file
from finetune.demo.flags import Flags
from finetune.demo.markup import Cell, evidence_html, table_html
from finetune.demo.models import Prediction, Writer
from finetune.demo.reports import Reports, framed
from finetune.demo.words import EXAMPLES, PAGE, SENTENCES, Sentences, preferred_language
from finetune.progress import say

_SUGGESTED = 5
"""Words to go on with that are shown as one types."""
# Gradio translates whatever is called like one of these, the columns of a visitor's file too: no column is called so.
_KEY = "page-word-"
TRANSLATIONS = gr.I18n(
    **{language: {_KEY + name: text for name, text in words.items()} for language, words in PAGE.items()}
)


def word(name: str) -> Any:
    """One of the page's words, in the language that the browser asks for."""
    return TRANSLATIONS(_KEY + name)


def sentiment_tab(answers: Answers, flags: Flags | None) -> None:
    """One text, one model: what it says, how sure it is, and which words speak for it."""
    model = _model_choice(list(answers.predictors))
    text = _text_box()
    button = gr.Button(word("predict"), variant="primary")
    prediction = gr.Label(label=word("prediction"))
    note = gr.Markdown()
    evidence = gr.HTML(
        label=word("evidence"),
        show_label=True,
        container=True,
        padding=True,
        visible=False,
        apply_default_css=False,
    )

    def show_prediction(
        text: object, model: object, language: object, request: gr.Request
    ) -> Iterator[tuple[Any, str, Any]]:
        with sentences(request, language) as words:
            _, said, noted = answers.predict(text, model, words)
            record = record_note(answers.predictor(model, words).record_of(said), words)
            noted = f"{noted} {record}".strip()
            shown: Any = said.probabilities or f"{said.rating:.2f}"
            yield shown, noted, gr.update(visible=False)
            if not said.tokens:
                return
            try:
                _, found = answers.explain(text, model, words)
            except RefusedError as refusal:
                noted = f"{noted} {words.no_evidence.format(reason=refusal)}".strip()
                yield shown, noted, gr.update(visible=False)
            else:
                html = evidence_html(str(text), found, words)
                yield shown, noted, gr.update(value=html, visible=True)

    on_demand([button.click, text.submit], show_prediction, [text, model], [prediction, note, evidence], "predict")
    if flags is not None:
        with gr.Row():
            right, wrong = gr.Button(word("right"), size="sm"), gr.Button(word("wrong"), size="sm")
        thanks = gr.Markdown()

        def keep(*, is_right: bool) -> Any:
            def keep_text(text: object, model: object, language: object, request: gr.Request) -> str:
                with sentences(request, language) as words:
                    name, said, _ = answers.predict(text, model, words)
                    flags.keep(checked_text(text, words), name, said, is_right=is_right)
                    return words.kept

            return keep_text

        on_demand([right.click], keep(is_right=True), [text, model], [thanks], "predict")
        on_demand([wrong.click], keep(is_right=False), [text, model], [thanks], "predict")
    _examples(text)


def compare_tab(answers: Answers) -> None:
    """One text through all models, and again after something was done to it."""
    text = _text_box()
    button = gr.Button(word("predict_all"), variant="primary")
    gr.Markdown(word("noise"))
    with gr.Row():
        noises = {noise: gr.Button(word(noise), size="sm", min_width=120) for noise in BUTTON_NOISES}
        undo = gr.Button(word("undo"), size="sm", min_width=120)
    verdict = gr.Markdown()
    table = gr.HTML(apply_default_css=False)
    # In the page alone: the server keeps nothing of a visitor's text.
    before = gr.Textbox(visible=False)

    def show_comparison(text: object, language: object, request: gr.Request) -> tuple[str, str]:
        with sentences(request, language) as words:
            rows, said = answers.compare(text, words)
            return table_html(words.columns, [_table_row(row) for row in rows]), said

    def disturb(noise: str) -> Any:
        def show_disturbed(text: object, language: object, request: gr.Request) -> tuple[str, object, str, str]:
            with sentences(request, language) as words:
                disturbed, changes, said = answers.disturb(text, noise, random.randrange(2**32), words)
                table = table_html(words.columns_changed, [_changed_row(change) for change in changes])
                return disturbed, text, table, said

        return show_disturbed

    on_demand([button.click, text.submit], show_comparison, [text], [table, verdict], "predict")
    for noise, of_noise in noises.items():
        on_demand([of_noise.click], disturb(noise), [text], [text, before, table, verdict], "predict")
    undo.click(None, [before, text], [text], js="(before, text) => before || text", api_visibility="private")
    _examples(text)


def generate_tab(writers: Mapping[str, Writer], answers: Answers) -> None:
    """What a model writes after a beginning or for a label, while it writes."""
    first = next(iter(writers.values()))
    model = _model_choice(list(writers))
    prompt = gr.Textbox(label=word("prompt"), placeholder=word("prompt_hint"), lines=2, visible=not first.kinds)
    with gr.Row():
        suggested = [gr.Button(size="sm", min_width=80, visible=False) for _ in range(_SUGGESTED)]
    # In the page alone: the server keeps nothing of what is typed.
    texts = gr.Textbox(visible=False)
    kind = gr.Radio(**_kind_choice(first), label=word("kind"))
    settings = _writing_settings()
    with gr.Row():
        button = gr.Button(word("write"), variant="primary")
        stop = gr.Button(word("stop"))
    written = gr.Textbox(label=word("written"), lines=8, interactive=False)

    def writer_of(model: object) -> Writer:
        return writers.get(model, first) if isinstance(model, str) else first

    def show_writing(
        model: object,
        prompt: object,
        kind: object,
        temperature: object,
        top_p: object,
        max_new_tokens: object,
        seed: object,
        language: object,
        request: gr.Request,
    ) -> Iterator[str]:
        with sentences(request, language) as words:
            asked = kind if writer_of(model).kinds else prompt
            number = _number(seed)
            # The first of this tab's models need not be the first of all.
            named = model if model is not None else first.name
            yield from answers.generate(asked, named, temperature, top_p, max_new_tokens, number, words)

    def show_suggestions(prompt: object, model: object, language: object, request: gr.Request) -> tuple[Any, ...]:
        with sentences(request, language) as words:
            try:
                found = answers.suggest(prompt, model if model is not None else first.name, _SUGGESTED, words)
            except RefusedError:
                found = []  # a text that is not right, or a model that answers: nobody asked for anything by typing
        typed = str(prompt)
        found = [one for one in found if one.text.strip()]
        whole = [typed.rstrip() + one.text for one in found]
        shown = [
            gr.update(value=f"{text.split()[-1]} {one.probability:.0%}", visible=True)
            for text, one in zip(whole, found, strict=True)
        ]
        hidden = [gr.update(visible=False)] * (_SUGGESTED - len(found))
        return json.dumps([f"{text} " for text in whole]), *shown, *hidden

    def show_prompt(model: object) -> tuple[Any, ...]:
        writer = writer_of(model)
        hidden = [gr.update(visible=False)] * _SUGGESTED
        return gr.update(visible=not writer.kinds), gr.update(**_kind_choice(writer)), *hidden

    inputs = [model, prompt, kind, *settings]
    writing = on_demand([button.click, prompt.submit], show_writing, inputs, [written], "write", limit=1)
    stop.click(None, cancels=[writing], api_visibility="private")
    model.change(
        show_prompt, [model], [prompt, kind, *suggested], preprocess=False, api_visibility="private", queue=False
    )
    on_demand(
        [prompt.change],
        show_suggestions,
        [prompt, model],
        [texts, *suggested],
        "suggest",
        limit=1,
        show_progress="hidden",
        trigger_mode="always_last",
    )
    for place, one in enumerate(suggested):
        # Where more was typed since the words came up, they are those of another text.
        take = f"(words, typed) => JSON.parse(words)[{place}].startsWith(typed) ? JSON.parse(words)[{place}] : typed"
        one.click(None, [texts, prompt], [prompt], js=take, api_visibility="private")


def chat_tab(writers: Mapping[str, Writer], answers: Answers) -> None:
    """A chat with a model that learnt to."""
    model = _model_choice(list(writers))
    # What is said is shown as it is: neither Markdown nor HTML nor a formula.
    chat = gr.Chatbot(
        label=word("chat"),
        render_markdown=False,
        latex_delimiters=[],
        allow_file_downloads=False,
        allow_tags=False,
        reasoning_tags=[],
        feedback_options=None,
        buttons=["copy"],
    )
    message = gr.Textbox(label=word("message"), placeholder=word("message_hint"), lines=1)
    with gr.Row():
        send = gr.Button(word("send"), variant="primary")
        stop = gr.Button(word("stop"))
        clear = gr.Button(word("clear"))
    settings = _writing_settings()

    def show_answer(
        model: object,
        message: object,
        history: object,
        temperature: object,
        top_p: object,
        max_new_tokens: object,
        seed: object,
        language: object,
        request: gr.Request,
    ) -> Iterator[tuple[str, list[dict[str, str]]]]:
        with sentences(request, language) as words:
            number = _number(seed)
            # The component takes what it is given for HTML, pictures of other hosts and all, and sends it back so.
            before = [turn | {"content": html.unescape(turn["content"])} for turn in checked_history(history, words)]
            pieces = answers.chat(message, before, model, temperature, top_p, max_new_tokens, number, words)
            for so_far in pieces:
                turns = [*before, {"role": "user", "content": str(message)}, {"role": "assistant", "content": so_far}]
                yield "", [turn | {"content": html.escape(turn["content"], quote=False)} for turn in turns]

    inputs = [model, message, chat, *settings]
    writing = on_demand([send.click, message.submit], show_answer, inputs, [message, chat], "write", limit=1)
    stop.click(None, cancels=[writing], api_visibility="private")
    clear.click(None, None, [chat], js="() => [[]]", cancels=[writing], api_visibility="private")


def batch_tab(answers: Answers, page: gr.Blocks, directory: Path) -> None:
    """A file in, its rows labelled, a file out; what is made is put into `directory`."""
    gr.Markdown(word("file_hint"))
    model = _model_choice(list(answers.predictors))
    # The kinds are called alike in both languages: of a translated label gradio's component makes "[object Object]".
    file = gr.File(label=", ".join(KINDS), file_types=KINDS, height=140)
    column = gr.Dropdown([], label=word("column"), visible=False)
    with gr.Row():
        button = gr.Button(word("label_file"), variant="primary")
        stop = gr.Button(word("stop"))
    note = gr.Markdown()
    with gr.Row():
        counts = gr.BarPlot(x="prediction", y="rows", label=word("counts"), visible=False, height=260)
        labelled = gr.File(label=word("labelled_file"), interactive=False, visible=False)
    rows = gr.HTML(visible=False, apply_default_css=False)
    shown = [counts, labelled, rows]

    def show_columns(file: object, language: object, request: gr.Request) -> tuple[Any, ...]:
        hidden = [gr.update(visible=False) for _ in shown]
        if file is None:
            return gr.update(visible=False), "", *hidden
        with sentences(request, language) as words:
            names, usual = columns_of(_sent_file(file, page, words), words)
            return gr.update(choices=names, value=usual, visible=True), "", *hidden

    def show_labelled(
        file: object,
        column: object,
        model: object,
        language: object,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # gradio finds it by this default
    ) -> Iterator[tuple[Any, ...]]:
        with sentences(request, language) as words:
            sent = _sent_file(file, page, words)
            predictor = answers.predictor(model, words)
            for said in label_file(predictor, sent, column, directory, words):
                if not isinstance(said, Labelled):
                    progress(said)
                    yield tuple(gr.skip() for _ in (note, *shown))  # it can be stopped here
                    continue
                frame = pd.DataFrame(said.counts, columns=["prediction", "rows"])
                plot = gr.BarPlot(
                    frame,
                    x="prediction",
                    y="rows",
                    x_title=words.label_axis,
                    y_title=words.rows_axis,
                    y_lim=[0, max(count for _, count in said.counts)],
                    sort=[label for label, _ in said.counts],
                    visible=True,
                )
                yield (
                    said.note,
                    plot,
                    gr.update(value=str(said.file), visible=True),
                    gr.update(value=table_html(said.head, _cells(said.rows)), visible=True),
                )

    on_demand([file.change], show_columns, [file], [column, note, *shown], "batch", limit=1)
    labelling = on_demand([button.click], show_labelled, [file, column, model], [note, *shown], "batch", limit=1)
    stop.click(None, cancels=[labelling], api_visibility="private")


def report_tab(reports: Reports, tab: gr.Tab) -> None:
    """The comparison page of the runs, made when the tab is first opened."""
    gr.Markdown(word("report_hint"))
    names = list(reports.pages)
    choice = gr.Radio(names, value=names[0], label=word("report_choice"), visible=len(names) > 1)
    frame = gr.HTML(apply_default_css=False)

    def show_report(name: object, language: object, request: gr.Request) -> str:
        with sentences(request, language) as words:
            chosen = name if isinstance(name, str) and name in reports.pages else names[0]
            try:
                return framed(reports.page(chosen), chosen)
            except Exception as error:  # noqa: BLE001  # its message may name places of this machine
                say(f"finetune: {chosen}: {' '.join(str(error).split()) or type(error).__name__}")
            raise RefusedError(words.no_report)

    on_demand([tab.select, choice.change], show_report, [choice], [frame], "report", limit=1)


# --- parts ------------------------------------------------------------------------------------------------------------


def _writing_settings() -> list[Any]:
    """Temperature, top-p, most tokens, seed."""
    with gr.Accordion(word("settings"), open=False):
        temperature = gr.Slider(
            *TEMPERATURE, value=1.0, step=0.05, label=word("temperature"), info=word("temperature_hint")
        )
        top_p = gr.Slider(*TOP_P, value=0.95, step=0.05, label=word("top_p"), info=word("top_p_hint"))
        max_new_tokens = gr.Slider(*NEW_TOKENS, value=100, step=1, label=word("max_new_tokens"))
        # A number box cannot be empty: it would show 0, and all texts would be alike.
        seed = gr.Textbox(label=word("seed"), info=word("seed_hint"), max_lines=1)
    return [temperature, top_p, max_new_tokens, seed]


def _kind_choice(writer: Writer) -> dict[str, Any]:
    return {
        "choices": list(writer.kinds),
        "value": writer.kinds[0] if writer.kinds else None,
        "visible": bool(writer.kinds),
    }


def _model_choice(names: list[str]) -> gr.Dropdown:
    return gr.Dropdown(names, value=names[0], label=word("model"), visible=len(names) > 1)


def _text_box() -> gr.Textbox:
    # No max_length: the browser would cut what is pasted, and say nothing.
    return gr.Textbox(label=word("text"), placeholder=word("text_hint"), lines=3)


def _examples(text: gr.Textbox) -> None:
    gr.Examples(EXAMPLES, [text], label=word("examples"), cache_examples=False, api_visibility="private")


def _table_row(row: Row) -> list[Cell]:
    return [Cell(row.model), Cell(_said(row.prediction)), _milliseconds(row.prediction)]


def _changed_row(change: Change) -> list[Cell]:
    """What is said now stands out where it is another label than before."""
    before, after = change.before, change.after
    is_other = before is not None and after is not None and changed_mind(before, after)
    return [
        Cell(change.model),
        Cell(_said(after), stands_out=is_other),
        Cell(_said(before)),
        _milliseconds(after),
    ]


def _said(said: Prediction | None) -> str:
    """A label and its probability; of a rater the rating, of a model that does not work nothing."""
    if said is None:
        return ""
    if said.label is None:
        return f"{said.rating:.2f}"
    if said.neutral is not None:
        return f"{said.neutral} ({said.label} {said.probabilities[said.label]:.3f})"
    return ", ".join(f"{label} {said.probabilities[label]:.3f}" for label in said.labels) or NO_LABEL


def _milliseconds(said: Prediction | None) -> Cell:
    return Cell("" if said is None else f"{said.milliseconds:.1f}", is_number=True)


def _cells(rows: Sequence[Sequence[object]]) -> list[list[Cell]]:
    return [
        [Cell(f"{value:.3f}", is_number=True) if isinstance(value, float) else Cell(str(value)) for value in row]
        for row in rows
    ]


def _number(typed: object) -> object:
    """What is typed for a number: None if nothing, and as it is if it is none."""
    if not isinstance(typed, str):
        return typed
    digits = typed.strip()
    return int(digits) if digits.isdecimal() and len(digits) < 20 else digits or None


def _sent_file(sent: object, page: gr.Blocks, words: Sentences) -> Path:
    """Where a file lies that was sent to this page; no other file can be named.

    Raises:
        RefusedError: there is none.
    """
    path = sent.get("path") if isinstance(sent, dict) else None
    if not isinstance(path, str) or not path:
        raise RefusedError(words.no_file)
    if path not in page.upload_file_set:
        raise RefusedError(words.file_gone)
    return Path(path)


def on_demand(
    triggers: Sequence[Any],
    answer: Any,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    group: str,
    limit: int | None = None,
    **listening: Any,
) -> Any:
    """Answer when the page asks; to `inputs` it adds the language that it is shown in. `listening` is gradio's.

    What was typed comes as it was sent: gradio would make text of anything, and quote in a traceback what it cannot.
    """
    language = gr.Textbox(visible=False)
    return gr.on(
        triggers,
        answer,
        [*inputs, language],
        outputs,
        js="(...typed) => [...typed.slice(0, -1), document.documentElement.lang]",
        preprocess=False,
        api_visibility="private",
        concurrency_id=group,
        concurrency_limit="default" if limit is None else limit,
        **listening,
    )


@contextmanager
def sentences(request: gr.Request, language: object = None) -> Iterator[Sentences]:
    """The words of who asks: in the language of the page, or for a program in the one that its request prefers.

    A refusal goes to who asks as gradio's error, and not to the terminal.
    """
    headers: Mapping[str, str] = request.headers
    asked = language if isinstance(language, str) and language else headers.get("accept-language")
    words = SENTENCES[preferred_language(asked)]
    try:
        yield words
    except RefusedError as refusal:
        raise gr.Error(str(refusal), print_exception=False) from None
