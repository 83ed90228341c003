"""What `control` found -> JSON, Markdown and a page; they show what was written, which may be texts of the data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from finetune.reporting import plots
from finetune.reporting.inspection import share_cell
from finetune.reporting.inspection_plots import Mark, MarkedSlice, slice_plot
from finetune.reporting.page import LineKey, page_template
from finetune.reporting.tables import (
    NOTHING,
    Cell,
    Column,
    Table,
    escape_markdown,
    markdown_table,
    percent,
)
from finetune.run import write_whole, write_whole_json

DATA_FILE, MARKDOWN_FILE, PAGE_FILE = "control.json", "control.md", "control.html"
Content = Mapping[str, Any]


def write_control(content: Content, output: Path) -> Path:
    """Write the JSON, the Markdown and the page; returns the path of the page."""
    write_whole_json(output / DATA_FILE, content)
    write_whole(output / MARKDOWN_FILE, control_markdown(content))
    write_whole(output / PAGE_FILE, control_page(content))
    return output / PAGE_FILE


def sentences(content: Content) -> list[str]:
    """How often each writer writes what is asked, and how that stands to real texts."""
    said = []
    for name, found in content["writers"].items():
        count = content["samples"] * len(content["labels"])
        judge = content["classifier"]
        begin = f"{name}: in {share_cell(found['rate'])} of {count:,} texts {judge} finds what was asked for"
        if found["to_real"] is None:
            said.append(f"{begin}; there are no test texts to hold that against.")
            continue
        gap = found["to_real"]
        said.append(f"{begin}, and in {share_cell(found['real'])} of the data's own test texts: {_verdict(gap)}.")
    return said


def _verdict(gap: Mapping[str, float]) -> str:
    """How what is written stands to real texts, of the difference of their shares."""
    if gap["low"] <= 0 <= gap["high"]:
        return "they are not told apart"
    ends = sorted(abs(100 * gap[end]) for end in ("low", "high"))
    side = "below" if gap["value"] < 0 else "above"
    return f"{abs(100 * gap['value']):.1f} [{ends[0]:.1f}, {ends[1]:.1f}] points {side}"


def words(content: Content) -> str:
    """How the table came about."""
    return (
        f"{content['samples']:,} texts of each label, drawn with seed {content['seed']}. What a text says is "
        f"{content['classifier']}'s word, which was trained on other texts and errs as often as it does on test texts: "
        "that share is what people's own texts reach, and a writer that keeps to plain cases, or learns what pleases a "
        "classifier, can lie above it. New runs of "
        "four are those of four words (of East Asian scripts, characters) that no training text has. Shares with "
        "Wilson's 95 % intervals, which speak of these draws, not of other training seeds."
    )


def control_table(content: Content) -> Table:
    """A row for each writer and label."""
    columns = (
        Column("Run", is_number=False),
        Column("Asked for", is_number=False),
        Column("Found in what it wrote", "95 % interval"),
        Column("Found in test texts", "95 % interval"),
        Column("Distinct-2"),
        Column("Copies of training texts", "95 % interval"),
        Column("New runs of four"),
    )
    rows = []
    for name, found in content["writers"].items():
        for label, part in found["labels"].items():
            rows.append(
                (
                    Cell(name),
                    Cell(label),
                    share_cell(part["rate"]),
                    Cell(NOTHING) if part["real"] is None else share_cell(part["real"]),
                    Cell(percent(part["distinct_2"])),
                    share_cell(part["copies"]),
                    Cell(percent(part["new_ngrams"])),
                )
            )
    return Table(columns, tuple(rows))


def confusion_table(content: Content, name: str) -> Table:
    """What was asked of a writer, row by row, and what the classifier found, column by column."""
    columns = (Column("Asked for", is_number=False), *(Column(label) for label in content["labels"]))
    parts = content["writers"][name]["labels"]
    rows = tuple(
        (Cell(label), *(Cell(f"{part['given'][other]:,}") for other in content["labels"]))
        for label, part in parts.items()
    )
    return Table(columns, rows)


def control_markdown(content: Content) -> str:
    """The table, the words and the first texts as a Markdown document."""
    blocks = [
        "# What was asked for, and what was written",
        markdown_table(control_table(content)),
        "\n".join(f"- {escape_markdown(sentence)}" for sentence in sentences(content)),
        escape_markdown(words(content)),
    ]
    for name, found in content["writers"].items():
        blocks.append(f"## {escape_markdown(name)}")
        for label, part in found["labels"].items():
            lines = [f"- {escape_markdown(text['text'])} ({escape_markdown(text['given'])})" for text in part["texts"]]
            blocks.append("\n".join([f"**{escape_markdown(label)}**, the first {len(lines)}:", "", *lines]))
    return "\n\n".join(blocks) + "\n"


def control_page(content: Content) -> str:
    """The page as HTML text; every name, label and text in it is escaped."""
    names = list(content["writers"])
    return page_template("control.html.j2").render(
        content=content,
        sentences=sentences(content),
        words=words(content),
        table=control_table(content),
        confusions={name: confusion_table(content, name) for name in names},
        keys=[LineKey(name, f"var(--series-{i % plots.SERIES + 1})", "") for i, name in enumerate(names)],
        # Marked as safe: the SVG is made here, and names in it are escaped.
        plot=Markup(_plot(content)),
    )


def _plot(content: Content) -> str:
    slices = []
    for label in content["labels"]:
        marks = []
        for number, (name, found) in enumerate(content["writers"].items()):
            part = found["labels"][label]
            against = None if part["real"] is None else part["real"]["value"]
            marks.append(Mark(number, name, is_floor=False, **part["rate"], against=against))
        slices.append(MarkedSlice(label, content["samples"], marks, "texts"))
    return slice_plot(slices, "control", "How often what was asked for was found", "Found in what was written, %")
