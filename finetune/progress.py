"""What a person sees while a run goes on: a live bar in a terminal, a line now and then in a file."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn

_LINE_SECONDS = 30.0
"""Without a terminal, a line is written at most this often."""


def say(text: str, *, main_process: bool = True) -> None:
    """A line on stderr, from one process only."""
    if main_process:
        print(text, file=sys.stderr, flush=True)


class ProgressBar:
    """Counts work of a known size, with a note such as the loss; time left is estimated."""

    def __init__(self, title: str, total: int, *, done: int = 0, unit: str = "rows", main_process: bool = True) -> None:
        self.title = title
        self.total = total
        self.done = done
        self.unit = unit
        self.main_process = main_process
        self.started = self.last_line = time.monotonic()
        self.first = done
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        console = Console(stderr=True)
        if self.main_process and console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeLeftColumn(),
                console=console,
                transient=True,
            )
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.total, completed=self.done, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, amount: int = 1, note: str = "") -> None:
        """`amount` more is done; `note` is shown beside it."""
        self.done += amount
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=self.done, note=note)
        elif self.main_process and time.monotonic() - self.last_line >= _LINE_SECONDS:
            self.last_line = time.monotonic()
            rate = (self.done - self.first) / (self.last_line - self.started)
            left = (self.total - self.done) / rate if rate > 0 else 0.0
            say(
                f"{self.title}: {self.done:,} of {self.total:,} {self.unit} {note} {left:,.0f} s left".replace(
                    "  ", " "
                )
            )
