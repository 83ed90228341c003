"""The Gradio app: its tabs and endpoints put together, and served."""

import atexit
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import matplotlib
import torch
from starlette.middleware import Middleware

from finetune.demo import markup
from finetune.demo.answers import Answers
from finetune.demo.endpoints import add_endpoints
from finetune.demo.fence import UPLOAD_BYTES, Fence, Page, keep_swept, remove
from finetune.demo.flags import Flags
from finetune.demo.models import models_of
from finetune.demo.reports import reports_of
from finetune.demo.tabs import (
    TRANSLATIONS,
    batch_tab,
    chat_tab,
    compare_tab,
    generate_tab,
    report_tab,
    sentiment_tab,
    word,
)
from finetune.errors import UserError
from finetune.progress import say

_WAITING = 64
"""Requests that may wait for their turn; further ones are told that the queue is full."""
_CSS = """
.switch { justify-content: flex-end; }
.switch button { flex: 0 0 auto; }
button[role="tab"].selected { color: var(--primary-700) !important; }
.dark button[role="tab"].selected { color: var(--primary-300) !important; }
footer :is(a, button, .divider) { color: var(--body-text-color) !important; }
iframe.report { width: 100%; height: 85vh; border: 1px solid rgba(128, 128, 128, .35); border-radius: 8px; }
"""
# Gradio asks the browser which language it prefers, and nobody else: a choice made in the page stands in for it.
_HEAD = """<script>
(() => {
  const name = "finetune-language";
  let chosen = null;
  try { chosen = localStorage.getItem(name); } catch { /* storage is closed: the browser's language it is */ }
  if (chosen) {
    Object.defineProperty(navigator, "language", { get: () => chosen, configurable: true });
    Object.defineProperty(navigator, "languages", { get: () => [chosen], configurable: true });
  }
  window.chooseLanguage = (language) => {
    try { localStorage.setItem(name, language); } catch { return; }
    location.reload();
  };
})();
</script>"""


def build_app(names: Sequence[str], *, flagging: Path | None = None, directory: Path | None = None) -> Page:
    """The page of these run directories, model directories or embedded models; none is loaded before it is asked for.

    Its endpoints for programs are in `add_endpoints`. With `flagging`, a file, visitors may say of a prediction that it
    is right or wrong, which keeps their text there. Files that visitors send, and what is made of them, go into
    `directory`, one of the page's own unless it is given.

    Raises:
        UserError: none is named, or one is nothing that the page could use.
    """
    predictors, writers = models_of(names)
    reports = reports_of(names)
    answers = Answers(predictors, writers)
    flags = None if flagging is None else Flags(flagging)
    if flags is not None:
        flags.check()
    if directory is None:
        directory = _own_directory()
    # Every component takes this for its files, when it is made.
    os.environ["GRADIO_TEMP_DIR"] = str(directory)
    chatting = {name: writer for name, writer in writers.items() if writer.chats}
    writing = {name: writer for name, writer in writers.items() if not writer.chats}
    with Page(title="finetune", analytics_enabled=False) as page:
        with gr.Row(elem_classes="switch"):
            for language, name in (("ko", "한국어"), ("en", "English")):
                button = gr.Button(name, size="sm", min_width=80)
                button.click(None, js=f"() => window.chooseLanguage('{language}')", api_visibility="private")
        gr.Markdown(word("heading" if flags is None else "heading_flagging"))
        with gr.Tabs():
            if predictors:
                with gr.Tab(word("sentiment")):
                    sentiment_tab(answers, flags)
            if len(predictors) > 1:
                with gr.Tab(word("compare")):
                    compare_tab(answers)
            if writing:
                with gr.Tab(word("generate")):
                    generate_tab(writing, answers)
            if chatting:
                with gr.Tab(word("chat")):
                    chat_tab(chatting, answers)
            if predictors:
                with gr.Tab(word("batch")):
                    batch_tab(answers, page, directory)
            if reports.pages:
                with gr.Tab(word("report")) as tab:
                    report_tab(reports, tab)
        add_endpoints(answers)
    return page


def launch(
    names: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: tuple[str, str] | list[tuple[str, str]] | None = None,
    concurrency: int = 2,
    flagging: Path | None = None,
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
    # And after every request it sums up the last ten thousand for its monitoring, which is closed here.
    os.environ |= {"GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000", "GRADIO_ANALYTICS_MAX_EVENTS": "1"}
    # Requests that are computed at the same time share the cores, rather than each waiting for the threads of others.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // concurrency))
    directory = _own_directory()
    page = build_app(names, flagging=flagging, directory=directory)
    page.queue(max_size=_WAITING, default_concurrency_limit=concurrency, api_open=False)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            auth=auth,
            share=share,
            theme=_theme(),
            css=_CSS + markup.CSS,
            i18n=TRANSLATIONS,
            footer_links=["api", "settings"],
            max_file_size=UPLOAD_BYTES,
            app_kwargs={"middleware": [Middleware(Fence, files=directory, head=_HEAD)]},
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
    keep_swept(page, directory)
    if share and page.share_url is None:
        say("gradio could not open its public tunnel; the page is on this machine only")
    say(f"the page is at {page.share_url or page.local_url}; Ctrl-C ends it")
    if wait:
        if threading.current_thread() is threading.main_thread():
            # Whoever stops a service by a signal must not leave visitors' files behind.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        page.block_thread()
    return page


def _theme() -> gr.themes.Base:
    """System fonts, which have Hangul and are not fetched, and colours that text can be read on (WCAG 2.2, 1.4.3)."""
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return theme.set(
        body_text_color_subdued="*neutral_600",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_border_color="*primary_700",
    )


def _own_directory() -> Path:
    """An empty directory that nobody else may read, and that goes with the program."""
    directory = Path(tempfile.mkdtemp(prefix="finetune-demo-")).resolve()
    atexit.register(remove, directory)
    return directory
