"""Something that happens just before a given line runs: for tests that kill at every line."""

from collections.abc import Callable
from types import FrameType
from typing import Any


class AtLine:
    """A trace function (`sys.settrace`): calls `stop` before the `number`-th line that runs in `file`, from 1.

    `seen` counts the lines that ran.
    """

    def __init__(self, file: str | None, number: int, stop: Callable[[], object]) -> None:
        self.file, self.number, self.stop = file, number, stop
        self.seen = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> "AtLine | None":
        if frame.f_code.co_filename != self.file:
            return None
        self.seen += event == "line"
        if self.seen >= self.number:
            self.stop()
        return self
