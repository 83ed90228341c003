"""The Gradio app: its tabs, its endpoints, and what it does not do."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr
import matplotlib
from gradio.events import api
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune.demo.answers import NEW_TOKENS, TEMPERATURE, TOP_P, Answers, RefusedError, Row
from finetune.demo.models import Writer, models_of
from finetune.demo.words import EXAMPLES, PAGE, SENTENCES, Sentences, preferred_language
from finetune.errors import UserError
from finetune.progress import say

_WAITING = 32
"""Requests that may wait for their turn; further ones are told that the queue is full."""
_BODY_BYTES = 1_000_000
"""No request needs a larger body: of a text that is too long, too, one is told how long it is."""
_CLOSED = (
    "/upload",
    "/file=",
    "/file/",
    "/proxy=",
    "/stream/",
    "/component_server",
    "/custom_component/",
    "/deep_link",
)
"""Routes that gradio always has and this page never uses: files in and out, and what stands in the page kept as one."""
_WORDS = gr.I18n(**PAGE)


class _Page(gr.Blocks):
    """Blocks that keep nothing of what is typed, in memory or in tracebacks."""

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        # Gradio's own message quotes what did arrive, and prints it.
        if len(inputs) < len(block_fn.inputs):
            raise gr.Error("The request lacks values.", print_exception=False)

    async def process_api(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """As gradio's, but its copy of what stands in a visitor's page goes as soon as the request is done.

        No component here needs it: gradio keeps it for an hour, to make links to a page as it stands.
        """
        goes_on = False
        try:
            output = await super().process_api(*arguments, **named)
            goes_on = bool(output.get("is_generating"))
            return output
        finally:
            if not goes_on:
                session = named.get("session_hash") or ""
                self.state_holder.session_data.pop(session, None)
                self.state_holder.time_last_used.pop(session, None)


class _Fence:
    """Answers "not found" to routes that the page does not use, and "too large" to bodies that it never sends."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].split("/gradio_api", 1)[-1]
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if path.startswith(_CLOSED):
            await PlainTextResponse("not found", 404)(scope, receive, send)
        elif not length.isdigit() or int(length) > _BODY_BYTES:
            await PlainTextResponse("too large", 413)(scope, receive, send)
        else:
            await self.app(scope, _at_most(receive), send)


def _at_most(receive: Receive) -> Receive:
    """The messages of a request, which ends early if its body, sent without a length, becomes too large."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > _BODY_BYTES else message

    return limited


def build_app(names: Sequence[str]) -> gr.Blocks:
    """The page of these run directories, model directories or embedded models; none is loaded before it is asked for.

    Its endpoints for programs: /predict if a model labels or rates texts, /compare if several do, /generate if one
    writes.

    Raises:
        UserError: none is named, or one is nothing that the page could use.
    """
    predictors, writers = models_of(names)
    answers = Answers(predictors, writers)
    with _Page(title="finetune", analytics_enabled=False) as page:
        gr.Markdown(_WORDS("heading"))
        with gr.Tabs():
            if predictors:
                with gr.Tab(_WORDS("sentiment")):
                    _sentiment_tab(answers)
            if len(predictors) > 1:
                with gr.Tab(_WORDS("compare")):
                    _compare_tab(answers)
            if writers:
                with gr.Tab(_WORDS("generate")):
                    _generate_tab(answers)
        _add_endpoints(answers)
    return page


def launch(
    names: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: tuple[str, str] | list[tuple[str, str]] | None = None,
    concurrency: int = 2,
    share: bool = False,
    wait: bool = True,
) -> gr.Blocks:
    """Serve the page of `names` until Ctrl-C; with `wait` false, return it running (its `close()` ends it).

    `auth` is a name and password, or several of them. `concurrency` predictions are made at a time; texts are written
    one at a time, since all of a process draw from the same random numbers. Only `share`, gradio's public tunnel, needs
    a network.

    Raises:
        UserError: no such models, a port that is taken, or no concurrency.
    """
    if concurrency < 1:
        raise UserError(f"concurrency {concurrency}: at least one request must be answered at a time")
    # Gradio asks for matplotlib's backend at every request, which loads all of pyplot unless one is chosen.
    matplotlib.use("agg")
    page = build_app(names)
    page.queue(max_size=_WAITING, default_concurrency_limit=concurrency, api_open=False)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            auth=auth,
            share=share,
            # System fonts: they have Hangul, and none is fetched.
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            i18n=_WORDS,
            footer_links=["api", "settings"],
            app_kwargs={"middleware": [Middleware(_Fence)]},
            # Each of these is on, or open, or up to an environment variable, unless it is said here.
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            prevent_thread_lock=True,
            quiet=True,
        )
    except OSError as error:
        raise UserError(f"port {port} of {host} cannot be used; choose another one ({error})") from None
    if share and page.share_url is None:
        say("gradio could not open its public tunnel; the page is on this machine only")
    say(f"the page is at {page.share_url or page.local_url}; Ctrl-C ends it")
    if wait:
        page.block_thread()
    return page


# --- Tabs -------------------------------------------------------------------------------------------------------------


def _sentiment_tab(answers: Answers) -> None:
    model = _model_choice(list(answers.predictors))
    text = _text_box()
    button = gr.Button(_WORDS("predict"), variant="primary")
    prediction = gr.Label(label=_WORDS("prediction"))
    note = gr.Markdown()
    _examples(text)

    def show_prediction(text: object, model: object, language: object, request: gr.Request) -> tuple[Any, str]:
        with _sentences(request, language) as words:
            _, said, noted = answers.predict(text, model, words)
            return said.probabilities or round(said.rating or 0.0, 2), noted

    _on_demand([button.click, text.submit], show_prediction, [text, model], [prediction, note], "predict")


def _compare_tab(answers: Answers) -> None:
    text = _text_box()
    button = gr.Button(_WORDS("predict_all"), variant="primary")
    verdict = gr.Markdown()
    table = gr.Dataframe(
        label=_WORDS("predictions"), datatype=["str", "str", "number", "number"], interactive=False, wrap=True
    )
    _examples(text)

    def show_comparison(text: object, language: object, request: gr.Request) -> tuple[dict[str, Any], str]:
        with _sentences(request, language) as words:
            rows, said = answers.compare(text, words)
            return {"headers": list(words.columns), "data": [_table_row(row) for row in rows]}, said

    _on_demand([button.click, text.submit], show_comparison, [text], [table, verdict], "predict")


def _generate_tab(answers: Answers) -> None:
    first = next(iter(answers.writers.values()))
    model = _model_choice(list(answers.writers))
    prompt = gr.Textbox(label=_WORDS("prompt"), placeholder=_WORDS("prompt_hint"), lines=2, visible=not first.kinds)
    kind = gr.Radio(**_kind_choice(first), label=_WORDS("kind"))
    with gr.Accordion(_WORDS("settings"), open=False):
        temperature = gr.Slider(
            *TEMPERATURE, value=1.0, step=0.05, label=_WORDS("temperature"), info=_WORDS("temperature_hint")
        )
        top_p = gr.Slider(*TOP_P, value=0.95, step=0.05, label=_WORDS("top_p"), info=_WORDS("top_p_hint"))
        max_new_tokens = gr.Slider(*NEW_TOKENS, value=100, step=1, label=_WORDS("max_new_tokens"))
        # A number box cannot be empty: it would show 0, and all texts would be alike.
        seed = gr.Textbox(label=_WORDS("seed"), info=_WORDS("seed_hint"), max_lines=1)
    with gr.Row():
        button = gr.Button(_WORDS("write"), variant="primary")
        stop = gr.Button(_WORDS("stop"))
    written = gr.Textbox(label=_WORDS("written"), lines=8, interactive=False)

    def writer_of(model: object) -> Writer:
        return answers.writers.get(model, first) if isinstance(model, str) else first

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
        with _sentences(request, language) as words:
            asked = kind if writer_of(model).kinds else prompt
            number = _number(seed)
            yield from answers.generate(asked, model, temperature, top_p, max_new_tokens, number, words)

    def show_prompt(model: object) -> tuple[Any, Any]:
        writer = writer_of(model)
        return gr.update(visible=not writer.kinds), gr.update(**_kind_choice(writer))

    inputs = [model, prompt, kind, temperature, top_p, max_new_tokens, seed]
    writing = _on_demand([button.click, prompt.submit], show_writing, inputs, [written], "write", limit=1)
    stop.click(None, cancels=[writing], api_visibility="private")
    model.change(show_prompt, [model], [prompt, kind], preprocess=False, api_visibility="private", queue=False)


def _kind_choice(writer: Writer) -> dict[str, Any]:
    return {
        "choices": list(writer.kinds),
        "value": writer.kinds[0] if writer.kinds else None,
        "visible": bool(writer.kinds),
    }


def _model_choice(names: list[str]) -> gr.Dropdown:
    return gr.Dropdown(names, value=names[0], label=_WORDS("model"), visible=len(names) > 1)


def _text_box() -> gr.Textbox:
    # No max_length: the browser would cut what is pasted, and say nothing.
    return gr.Textbox(label=_WORDS("text"), placeholder=_WORDS("text_hint"), lines=3)


def _examples(text: gr.Textbox) -> None:
    gr.Examples(EXAMPLES, [text], label=_WORDS("examples"), cache_examples=False, api_visibility="private")


def _table_row(row: Row) -> list[Any]:
    if row.prediction is None:
        return [row.model, "", None, None]
    said = row.prediction
    milliseconds = round(said.milliseconds, 1)
    if said.label is None:
        return [row.model, f"{said.rating:.2f}", None, milliseconds]
    return [row.model, said.label, round(said.probabilities[said.label], 3), milliseconds]


def _number(typed: object) -> object:
    """What is typed for a number: None if nothing, and as it is if it is none."""
    if not isinstance(typed, str):
        return typed
    digits = typed.strip()
    return int(digits) if digits.isdecimal() and len(digits) < 20 else digits or None


def _on_demand(
    triggers: Sequence[Any],
    answer: Any,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    group: str,
    limit: int | None = None,
) -> Any:
    """Answer when the page asks; to `inputs` it adds the language that it is shown in.

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
    )


# --- Endpoints --------------------------------------------------------------------------------------------------------


def _add_endpoints(answers: Answers) -> None:
    """The same answers for programs: JSON in and out, checked alike, and in the page's queue."""

    def predict(text: str, request: gr.Request, model: str = "") -> dict[str, Any]:
        """The label of a text with the probability of each label, or its rating, by one model (the first by default).

        Returns the model's name, label, probabilities, rating, milliseconds, and a note, empty unless the model read
        little of the text.
        """
        with _sentences(request) as words:
            name, said, note = answers.predict(text, model, words)
            return {
                "model": name,
                "label": said.label,
                "probabilities": said.probabilities or None,
                "rating": said.rating,
                "milliseconds": said.milliseconds,
                "note": note,
            }

    def compare(text: str, request: gr.Request) -> dict[str, Any]:
        """The label of a text by each model, or its rating.

        Returns for each of the models its name, label, probability, rating and milliseconds (all null if it does not
        work), and a verdict: whether those that give labels agree.
        """
        with _sentences(request) as words:
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
        with _sentences(request) as words:
            yield from answers.generate(prompt, model, temperature, top_p, max_new_tokens, seed, words)

    if answers.predictors:
        api(predict, api_name="predict", concurrency_id="predict")
    if len(answers.predictors) > 1:
        api(compare, api_name="compare", concurrency_id="predict")
    if answers.writers:
        api(generate, api_name="generate", concurrency_id="write", concurrency_limit=1)


def _compared(row: Row) -> Mapping[str, Any]:
    said = row.prediction
    label = said.label if said is not None else None
    return {
        "model": row.model,
        "label": label,
        "probability": said.probabilities[label] if said is not None and label is not None else None,
        "rating": said.rating if said is not None else None,
        "milliseconds": said.milliseconds if said is not None else None,
    }


@contextmanager
def _sentences(request: gr.Request, language: object = None) -> Iterator[Sentences]:
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
