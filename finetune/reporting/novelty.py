"""What `novelty` found -> JSON, Markdown and a page; they show texts of the test split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from finetune.reporting import plots
from finetune.reporting.inspection import share_cell
from finetune.reporting.inspection_plots import Mark, MarkedSlice, slice_plot
from finetune.reporting.page import LineKey, page_template
from finetune.reporting.tables import Cell, Column, Table, escape_markdown, markdown_table
from finetune.run import write_whole, write_whole_json

DATA_FILE, MARKDOWN_FILE, PAGE_FILE = "novelty.json", "novelty.md", "novelty.html"
NAMES = {"autoencoder": "autoencoder", "mahalanobis": "Mahalanobis distance", "doubt": "the model's own doubt"}
_SHORT = {"autoencoder": "autoencoder", "mahalanobis": "Mahalanobis", "doubt": "own doubt"}
"""In the plot, which has little room."""
Content = Mapping[str, Any]


def write_novelty(content: Content, output: Path) -> Path:
    """Write the JSON, the Markdown and the page; returns the path of the page."""
    write_whole_json(output / DATA_FILE, content)
    write_whole(output / MARKDOWN_FILE, novelty_markdown(content))
    write_whole(output / PAGE_FILE, novelty_page(content))
    return output / PAGE_FILE


def sentences(content: Content) -> list[str]:
    """How well other texts are told from test texts, by which method, and what the threshold does."""
    method = content["method"]
    said = [
        f"{content['run']}: the {NAMES[method]} that is kept calls {share_cell(content['test'][method])} of "
        f"{content['test_rows']:,} test texts novel; {100 * content['false_alarms']:g} % were allowed."
    ]
    for part in content["unlike"]:
        flagged = share_cell(part["flagged"][method])
        line = f"{part['name']}: {flagged} of {part['rows']:,} are called novel; AUROC {_verdict(part)}"
        if "doubt" in part["auroc"]:
            line += f"; {NAMES['doubt']} {_area(part['auroc']['doubt'])}"
        said.append(f"{line}.")
    return said


def _area(area: Mapping[str, float]) -> str:
    return f"{area['value']:.3f} [{area['low']:.3f}, {area['high']:.3f}]"


def _verdict(part: Mapping[str, Any]) -> str:
    """Both methods' areas, and whether they are told apart."""
    lead, areas = part["lead"], part["auroc"]
    both = (
        f"{_area(areas['autoencoder'])} by the autoencoder, {_area(areas['mahalanobis'])} by the Mahalanobis distance"
    )
    if lead["low"] <= 0 <= lead["high"]:
        return f"{both}, which are not told apart"
    ends = sorted(abs(lead[end]) for end in ("low", "high"))
    ahead = "autoencoder" if lead["value"] > 0 else "mahalanobis"
    return f"{both}: the {NAMES[ahead]} is {abs(lead['value']):.3f} [{ends[0]:.3f}, {ends[1]:.3f}] ahead"


def words(content: Content) -> str:
    """How the table came about."""
    return (
        f"Both methods were fitted on what the model's head sees ({content['features']:,} numbers) of "
        f"{content['training_rows']:,} training texts; nothing else was shown to them. A text is called novel where it "
        f"is more so than {100 - 100 * content['false_alarms']:g} % of {content['validation_rows']:,} validation "
        "texts. AUROC is the chance that such a text is found more novel than a test text: 0.5 is a coin. The model's "
        "own doubt is one less the probability of its likeliest label, which every classifier has. Shares with "
        "Wilson's 95 % intervals, AUROC by 2,000 draws of the texts; one fit, with seed "
        f"{content['seed']}."
    )


def novelty_table(content: Content) -> Table:
    """A row for each kind of texts, the test texts first."""
    methods = list(content["unlike"][0]["auroc"]) if content["unlike"] else list(content["test"])
    columns = (
        Column("Texts", is_number=False),
        Column("Number"),
        *(Column(f"AUROC, {NAMES[name]}", "95 % interval") for name in methods),
        *(Column(f"Called novel, {NAMES[name]}", "95 % interval") for name in content["test"]),
    )
    rows = [
        (
            Cell("test"),
            Cell(f"{content['test_rows']:,}"),
            *(Cell("–") for _ in methods),
            *(share_cell(share) for share in content["test"].values()),
        )
    ]
    rows += [
        (
            Cell(part["name"]),
            Cell(f"{part['rows']:,}"),
            *(_area_cell(part["auroc"][name]) for name in methods),
            *(share_cell(share) for share in part["flagged"].values()),
        )
        for part in content["unlike"]
    ]
    return Table(columns, tuple(rows))


def _area_cell(area: Mapping[str, float]) -> Cell:
    value, _, ends = _area(area).partition(" ")
    return Cell(value, ends)


def novelty_markdown(content: Content) -> str:
    """The table, the words and the most novel test texts as a Markdown document."""
    novel = [f"- {escape_markdown(one['text'])}" for one in content["most_novel"]]
    blocks = [
        "# How unlike its training texts a text is",
        markdown_table(novelty_table(content)),
        "\n".join(f"- {escape_markdown(sentence)}" for sentence in sentences(content)),
        escape_markdown(words(content)),
        "## The most novel test texts",
        "\n".join(novel),
    ]
    return "\n\n".join(blocks) + "\n"


def novelty_page(content: Content) -> str:
    """The page as HTML text; every name and text in it is escaped."""
    methods = list(content["unlike"][0]["auroc"]) if content["unlike"] else []
    return page_template("novelty.html.j2").render(
        content=content,
        kept=NAMES[content["method"]],
        sentences=sentences(content),
        words=words(content),
        table=novelty_table(content),
        keys=[LineKey(NAMES[name], f"var(--series-{i % plots.SERIES + 1})", "") for i, name in enumerate(methods)],
        # Marked as safe: the SVG is made here, and names in it are escaped.
        plot=Markup(_plot(content)) if methods else "",
    )


def _plot(content: Content) -> str:
    slices = [
        MarkedSlice(
            part["name"],
            part["rows"],
            [
                Mark(number, _SHORT[name], is_floor=False, **area, against=None)
                for number, (name, area) in enumerate(part["auroc"].items())
            ],
            "texts",
        )
        for part in content["unlike"]
    ]
    return slice_plot(slices, "novelty", "How well texts of another kind are told from test texts", "AUROC, %")
