"""What a learning-rate range test found -> lr_range.json, lr_range.md and lr_range.svg."""

from pathlib import Path

from finetune.errors import UserError
from finetune.reporting import plots
from finetune.reporting.page import style_sheet
from finetune.training.lr_range import LearningRateRange

DATA_FILE, MARKDOWN_FILE, PLOT_FILE = "lr_range.json", "lr_range.md", "lr_range.svg"


def write_range(found: LearningRateRange, output: Path) -> Path:
    """Write all three into the directory `output`; returns the path of the Markdown file."""
    output.mkdir(parents=True, exist_ok=True)
    (output / DATA_FILE).write_text(found.to_json(), encoding="utf-8")
    (output / PLOT_FILE).write_text(plots.standalone(plots.range_plot(found), style_sheet()), encoding="utf-8")
    page = output / MARKDOWN_FILE
    page.write_text(range_markdown(found), encoding="utf-8")
    return page


def check_output(output: Path) -> None:
    """Refuse a place that holds something else.

    Raises:
        UserError: it does.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not (output / DATA_FILE).is_file()):
        raise UserError(f"{output} holds other files and no earlier range test; choose another --output")


def range_markdown(found: LearningRateRange) -> str:
    """In words: where to look for a learning rate."""
    first, last = found.points[0], found.points[-1]
    steepest = (
        f"The loss falls fastest at {found.steepest:.1e}."
        if found.steepest is not None
        else "The loss does not fall at any of these rates: try lower ones."
    )
    return (
        f"# Learning rates of {found.recipe}\n\n"
        f"{len(found.points)} steps with {found.optimizer}, each at a rate a little higher than the one before, from "
        f"{first.learning_rate:.1e} to {last.learning_rate:.1e}.\n\n"
        f"{steepest} It is lowest at {found.lowest:.1e}; higher rates undo what was learnt.\n\n"
        "A peak between the two is a first guess for a schedule that warms up and decays. It is one run over few "
        "steps: validation decides.\n\n"
        f"![Training loss over the learning rate]({PLOT_FILE})\n"
    )
