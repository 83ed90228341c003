"""Compare runs: read the run directories, then write comparison.json, comparison.md, index.html, attention maps."""

from collections.abc import Sequence
from pathlib import Path

from finetune.errors import UserError
from finetune.reporting import plots
from finetune.reporting.comparison import Comparison, read_comparison, refuse_repeats
from finetune.reporting.findings import describe_findings
from finetune.reporting.page import render_page, style_sheet
from finetune.reporting.set_comparison import SetComparison, read_set_comparison, render_set_page, set_markdown
from finetune.reporting.tables import comparison_markdown
from finetune.reporting.text_comparison import (
    TextComparison,
    attention_plots,
    read_text_comparison,
    render_text_page,
    text_markdown,
)
from finetune.run import open_run, write_whole

AnyComparison = Comparison | SetComparison | TextComparison
DATA_FILE, MARKDOWN_FILE, PAGE_FILE = "comparison.json", "comparison.md", "index.html"


def compare_runs(paths: Sequence[Path], output: Path) -> AnyComparison:
    """Compare the run directories at `paths` and write what they show into the directory `output`.

    Runs that generate are compared by how well they read the test texts, others by their labels, or sets of them.

    Raises:
        UserError: runs that may not be compared (see `read_comparison`), or an `output` that holds something else.
    """
    check_output(output)
    comparison = read_any_comparison(paths)
    contents = render_comparison(comparison)
    output.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_whole(output / name, text)
    return comparison


def render_comparison(comparison: AnyComparison) -> dict[str, str]:
    """The files of a comparison, by name.

    The JSON file first: it marks the directory as a comparison's, should the others not come to be written.
    """
    if isinstance(comparison, TextComparison):
        return {
            DATA_FILE: comparison.to_json(),
            MARKDOWN_FILE: text_markdown(comparison),
            PAGE_FILE: render_text_page(comparison),
            # By themselves too, the first of each run: pictures for a text of one's own.
            **{
                f"attention-{number}.svg": plots.standalone(drawings[0], style_sheet())
                for number, (_, drawings) in enumerate(attention_plots(comparison), start=1)
            },
        }
    if isinstance(comparison, SetComparison):
        return {
            DATA_FILE: comparison.to_json(),
            MARKDOWN_FILE: set_markdown(comparison),
            PAGE_FILE: render_set_page(comparison),
        }
    findings = describe_findings(comparison)
    return {
        DATA_FILE: comparison.to_json(findings.by_part()),
        MARKDOWN_FILE: comparison_markdown(comparison, findings.sentences, findings.over_seeds),
        PAGE_FILE: render_page(comparison, findings),
    }


def read_any_comparison(paths: Sequence[Path]) -> AnyComparison:
    """The comparison of runs that generate, of runs that give several labels, or of runs that give one.

    Raises:
        UserError: runs that may not be compared.
    """
    directories = [open_run(path) for path in paths]
    tasks = {run.recipe().task for run in directories}
    if len(paths) > 1 and tasks == {"generate"}:
        refuse_repeats(paths)
        return read_text_comparison(directories, paths)
    if len(paths) > 1 and tasks == {"multi_label"}:
        refuse_repeats(paths)
        return read_set_comparison(directories, paths)
    return read_comparison(paths)


def check_output(output: Path) -> None:
    """Refuse a place for a report that holds something else.

    Raises:
        UserError: it does.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; choose another --output")
    if output.is_dir() and any(output.iterdir()) and not (output / DATA_FILE).is_file():
        raise UserError(f"{output} holds other files and no earlier comparison; choose another --output")
