"""What stands between the page and whoever asks: gradio, less what it keeps and what it opens."""

import contextlib
import os
import shutil
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD_BYTES = 10_000_000
"""Of one file."""
KEPT_SECONDS = 600
"""Files that were sent, and those made of them, go after so long: whoever sent one needs time to fetch the other."""
_SWEEP_SECONDS = 60
_UPLOADS_BYTES = 1_000_000_000
"""Of all files that are kept at a time; with more, no other is taken until some have gone."""
_BODY_BYTES = 1_000_000
"""No other request needs a larger body: of a text that is too long, too, one is told how long it is."""
_FORM_BYTES = 10_000
"""What stands around an uploaded file."""
_CLOSED = (
    "/file/",
    "/proxy=",
    "/stream/",
    "/component_server",
    "/custom_component/",
    "/deep_link",
    "/process_recording",
    "/vibe",
    "/undo-vibe",
    "/run-history",
)
"""Routes that gradio always has and this page never uses: old ways to files, and the state of a page kept as one."""


class Page(gr.Blocks):
    """Blocks that keep nothing of what is typed, in memory or in tracebacks."""

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        # Gradio's own message quotes what did arrive, and prints it.
        if len(inputs) < len(block_fn.inputs):
            raise gr.Error("The request lacks values.", print_exception=False)

    async def preprocess_data(self, *arguments: Any, **named: Any) -> list[Any]:
        """As gradio's, whose errors quote what did arrive, and print it."""
        try:
            return await super().preprocess_data(*arguments, **named)
        except gr.Error:
            raise
        except Exception:  # noqa: BLE001  # of pydantic, of gradio, of whatever else meets what is malformed
            raise gr.Error("The request is not as the page sends it.", print_exception=False) from None

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


class Fence:
    """Answers "not found" to routes that the page does not use, and "too large" to bodies that it never sends.

    Of files it lets through only what lies in `files`, the page's own directory for them. `head` goes before anything
    else that the page brings: gradio's own way adds it when the language has been chosen already.
    """

    def __init__(self, app: ASGIApp, files: Path, head: str) -> None:
        self.app = app
        self.files = files
        self.head = head.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].split("/gradio_api", 1)[-1]
        is_upload = path == "/upload"
        most = UPLOAD_BYTES + _FORM_BYTES if is_upload else _BODY_BYTES
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if path.startswith(_CLOSED) or (path.startswith("/file=") and not self._is_own(path.removeprefix("/file="))):
            await PlainTextResponse("not found", 404)(scope, receive, send)
        elif not length.isdigit() or int(length) > most:
            await PlainTextResponse("too large", 413)(scope, receive, send)
        elif is_upload and await anyio.to_thread.run_sync(_bytes_in, self.files) > _UPLOADS_BYTES:
            await PlainTextResponse("too many files at the moment; try again in some minutes", 503)(
                scope, receive, send
            )
        else:
            await self.app(scope, _at_most(receive, most), _with_head(send, self.head) if path == "/" else send)

    def _is_own(self, path: str) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(self.files)


def _at_most(receive: Receive, most: int) -> Receive:
    """The messages of a request, which ends early if its body, sent without a length, becomes larger than `most`."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > most else message

    return limited


def _with_head(send: Send, head: bytes) -> Send:
    """What is sent, with `head` first in the head of a page that comes in one piece."""
    started: Message | None = None

    async def sending(message: Message) -> None:
        nonlocal started
        if message["type"] == "http.response.start":
            started = message
            return
        if started is not None:
            body = message.get("body", b"")
            if not message.get("more_body", False):
                body = body.replace(b"<head>", b"<head>" + head, 1)
                headers = [(name, value) for name, value in started["headers"] if name != b"content-length"]
                started = {**started, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
                message = {**message, "body": body}
            await send(started)
            started = None
        await send(message)

    return sending


def _bytes_in(directory: Path) -> int:
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except FileNotFoundError:  # gone meanwhile: that is what they are meant to do
                continue
    return total


def sweep(directory: Path, seconds: float) -> None:
    """Remove the files in `directory` that are older than `seconds`, and directories that are empty."""
    latest = time.time() - seconds
    for place, _, names in os.walk(directory, topdown=False):
        for name in names:
            path = Path(place) / name
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < latest:
                    path.unlink()
        if Path(place) != directory:
            with contextlib.suppress(OSError):  # there is something in it
                if Path(place).stat().st_mtime < latest:
                    Path(place).rmdir()


def keep_swept(page: Page, directory: Path) -> None:
    """Sweep `directory` every minute from now on, in a thread that ends with the program.

    And forget the pages of visitors who stopped an answer or went away in the midst of one: gradio would keep what
    stood in them for an hour. Its own cleaner ends for good when a file comes in while it looks.
    """

    def run() -> None:
        while True:
            time.sleep(_SWEEP_SECONDS)
            sweep(directory, KEPT_SECONDS)
            oldest = datetime.now() - timedelta(seconds=_SWEEP_SECONDS)
            for session, used in list(page.state_holder.time_last_used.items()):
                if used < oldest:
                    page.state_holder.session_data.pop(session, None)
                    page.state_holder.time_last_used.pop(session, None)

    threading.Thread(target=run, name="sweeping", daemon=True).start()


def remove(directory: Path) -> None:
    """With all that is in it; nothing is said where that fails, when the program ends."""
    shutil.rmtree(directory, ignore_errors=True)
