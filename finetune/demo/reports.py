"""The comparison of a page's runs, made when somebody first looks at it."""

import html
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from finetune.demo.models import Lazy
from finetune.errors import UserError
from finetune.reporting.compare import PAGE_FILE, read_any_comparison, render_comparison
from finetune.run import RunDirectory, run_of


class Reports:
    """Pages of reports by the names that visitors choose from."""

    def __init__(self, pages: Mapping[str, Lazy[str]]) -> None:
        self.pages = pages

    def page(self, name: str) -> str:
        """A self-contained HTML page.

        Raises:
            UserError: the runs are no longer as they were.
        """
        return self.pages[name].get()


def reports_of(names: Sequence[str]) -> Reports:
    """One report for each set of the runs among `names` that was scored on the same test rows."""
    groups: dict[str, list[RunDirectory]] = {}
    for name in names:
        run = run_of(name)
        rows = None if run is None else _test_rows(run)
        if run is not None and rows is not None:
            groups.setdefault(f"{run.recipe().task == 'generate'}{rows}", []).append(run)
    pages: dict[str, Lazy[str]] = {}
    for runs in groups.values():
        if len(runs) > 1:
            pages[", ".join(run.name for run in runs)] = Lazy(partial(_rendered, [run.path for run in runs]))
    return Reports(pages)


def framed(page: str, title: str) -> str:
    """A page in a frame in which nothing runs, whatever stands in it."""
    return f'<iframe class="report" sandbox="" title="{html.escape(title)}" srcdoc="{html.escape(page)}"></iframe>'


def _rendered(paths: Sequence[Path]) -> str:
    return render_comparison(read_any_comparison(paths))[PAGE_FILE]


def _test_rows(run: RunDirectory) -> str | None:
    """Which test rows a run was scored on; None if it was not."""
    try:
        return str(run.scores()["splits"]["test"]["rows_fingerprint"])
    except (UserError, KeyError):
        return None
