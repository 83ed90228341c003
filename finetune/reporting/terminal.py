"""The comparison in the terminal: the table, the words, and where the page lies."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from finetune.reporting.compare import PAGE_FILE, compare_runs
from finetune.reporting.findings import describe_findings
from finetune.reporting.set_comparison import SetComparison, set_sentences, set_table
from finetune.reporting.tables import Table, comparison_table, rich_table, seeds_table
from finetune.reporting.text_comparison import TextComparison, sentences, text_table


def compare_and_print(paths: Sequence[Path], output: Path) -> None:
    """Compare the run directories at `paths`, write the report into `output`, and print what it says.

    Raises:
        UserError: runs that may not be compared, or an `output` that holds something else.
    """
    comparison = compare_runs(paths, output)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # in a file nothing has to be cut to a screen's width
    if isinstance(comparison, TextComparison):
        _print(console, text_table(comparison), sentences(comparison))
    elif isinstance(comparison, SetComparison):
        _print(console, set_table(comparison), set_sentences(comparison))
    else:
        findings = describe_findings(comparison)
        _print(console, comparison_table(comparison), findings.sentences)
        if comparison.over_seeds is not None:
            _print(console, seeds_table(comparison.over_seeds), findings.over_seeds)
    console.print(f"Report: {output / PAGE_FILE}", markup=False, highlight=False, soft_wrap=True)


def _print(console: Console, table: Table, said: Sequence[str]) -> None:
    console.print(rich_table(table, console.width))
    console.print()
    for sentence in said:
        # Names may hold [brackets], which are no markup.
        console.print(sentence, markup=False, highlight=False)
    console.print()
