"""What `inspect` found -> JSON, Markdown and a page; they show texts of the data, and so stay where they are made."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from finetune.reporting import plots
from finetune.reporting.evidence import Piece, marked_pieces
from finetune.reporting.findings import listed
from finetune.reporting.inspection_plots import Mark, MarkedSlice, slice_plot
from finetune.reporting.page import LineKey, page_template
from finetune.reporting.tables import (
    NOTHING,
    Cell,
    Column,
    Table,
    escape_markdown,
    interval_cell,
    markdown_table,
    shortened,
)
from finetune.run import write_whole, write_whole_json
from finetune.significance import Interval

DATA_FILE, MARKDOWN_FILE, PAGE_FILE = "inspection.json", "inspection.md", "inspection.html"
INTERVALS = (
    "Accuracy in percent with Wilson's 95 % intervals; drops are in points, with paired intervals. Of many intervals "
    "one in twenty misses its value."
)
FLOORS_WITHOUT = "Of a floor it is not told what a mistake rests on: its n-grams overlap and are no tokens of the text."
_STRONGEST = 3
"""Tokens that are named beside a text."""
EMPTY = "(empty)"
"""Stands for rows without a value."""
FEW_ROWS = 10
"""A slice with fewer rows is in the table and not in the plot."""
_WIDTH = 120
"""Columns of a text that are shown in Markdown."""

Content = Mapping[str, Any]


def write_inspection(content: Content, output: Path) -> Path:
    """Write the JSON, the Markdown and the page; returns the path of the page."""
    write_whole_json(output / DATA_FILE, content)
    write_whole(output / MARKDOWN_FILE, inspection_markdown(content))
    write_whole(output / PAGE_FILE, inspection_page(content))
    return output / PAGE_FILE


# --- words ------------------------------------------------------------------------------------------------------------


def sentences(content: Content) -> list[str]:
    """How often each run is right, and what noise costs it; what to look at."""
    said = []
    for name in content["runs"]:
        costs = [
            (part["runs"][name]["drop"]["value"], part) for part in content["noise"]
            if part["runs"][name]["drop"]["low"] > 0
        ]  # fmt: skip
        begin = f"{name} has {_interval(content['accuracy'][name])} of {content['test_rows']:,} test rows right"
        if costs:
            _, worst = max(costs, key=lambda cost: cost[0])
            drop = worst["runs"][name]["drop"]
            said.append(f"{begin}; {worst['noise']} costs it most, {_points(drop)} points where it changes a row.")
        else:
            said.append(f"{begin}; these rows tell no noise apart from none.")
    return said


def _interval(share: Mapping[str, float]) -> str:
    return str(share_cell(share))


def _points(difference: Mapping[str, float]) -> str:
    value, low, high = (round(100 * difference[end], 1) + 0.0 for end in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


# --- tables -----------------------------------------------------------------------------------------------------------


def share_cell(share: Mapping[str, float]) -> Cell:
    """A share with its interval, as JSON has it."""
    return interval_cell(Interval(**share))


def length_title(part: Content) -> str:
    """ "12 to 20 characters"."""
    if part["to"] is None:
        return f"{part['from']} characters and more"
    return f"{part['from']} to {part['to']} characters"


def _label_title(part: Content) -> str:
    return str(part["label"])


def slice_table(parts: Sequence[Content], title: str, of: Callable[[Content], str], names: Sequence[str]) -> Table:
    """A row for each slice, a column for each run."""
    columns = (Column(title, is_number=False), Column("Rows"), *(Column(name) for name in names))
    rows = tuple(
        (Cell(of(part)), Cell(f"{part['rows']:,}"), *(share_cell(part["accuracy"][name]) for name in names))
        for part in parts
    )
    return Table(columns, rows)


def column_table(part: Content, names: Sequence[str]) -> Table:
    """A row for each value of a column, and for each run the accuracy there and how far that is from other rows'."""
    columns = [Column(part["column"], is_number=False), Column("Rows")]
    columns += [column for name in names for column in (Column(name), Column("To the rest", "points"))]
    rows = []
    for of in part["slices"]:
        cells = list[Cell]()
        for name in names:
            difference = of["difference"][name]
            cells += [
                share_cell(of["accuracy"][name]),
                Cell(NOTHING) if difference is None else _gap_cell(difference),
            ]
        rows.append((Cell(of["value"] or EMPTY), Cell(f"{of['rows']:,}"), *cells))
    return Table(tuple(columns), tuple(rows))


def _gap_cell(difference: Mapping[str, float]) -> Cell:
    apart = "" if difference["low"] <= 0 <= difference["high"] else " *"
    value, interval = _points(difference).split(" ", 1)
    return Cell(value, f"{interval}{apart}")


def column_words(part: Content) -> list[str]:
    """What to read off the table of a column, and what is not in it."""
    said = ["A star marks an interval without zero; among many values some have one by chance."]
    if part["others"]["values"]:
        others = part["others"]
        said.append(
            f"{part['values']:,} values: the {len(part['slices'])} with the most rows are shown, and not "
            f"{others['values']:,} others with {others['rows']:,} rows."
        )
    return said


def noise_table(content: Content) -> Table:
    """A row for each kind of noise, and for each run the accuracy under it and the drop."""
    names = content["runs"]
    columns = [Column("Noise", is_number=False), Column("Rows")]
    columns += [column for name in names for column in (Column(name), Column("Drop", "points"))]
    rows = []
    for part in content["noise"]:
        of_runs = [part["runs"][name] for name in names]
        cells = list[Cell]()
        for of in of_runs:
            cells += [share_cell(of["accuracy"]), Cell(*_points(of["drop"]).split(" ", 1))]
        rows.append((Cell(part["noise"]), Cell(f"{part['rows']:,}"), *cells))
    return Table(tuple(columns), tuple(rows))


# --- Markdown ---------------------------------------------------------------------------------------------------------


def inspection_markdown(content: Content) -> str:
    """Slices, noise, and the rows behind them."""
    names: Sequence[str] = content["runs"]
    blocks = [
        f"# {heading(content)}",
        "\n".join(f"- {escape_markdown(sentence)}" for sentence in sentences(content)),
        INTERVALS,
        "## By length and by label",
        markdown_table(slice_table(content["lengths"], "Length", length_title, names)),
        markdown_table(slice_table(content["by_label"], "Label", _label_title, names)),
        *_column_blocks(content),
        "## Under noise",
        noise_words(content),
        markdown_table(noise_table(content)),
        "\n".join(f"- {escape_markdown(part['noise'] + ': ' + _cut(part['example']))}" for part in content["noise"]),
    ]
    for name, rows in content["mistakes"].items():
        blocks.append(f"## The surest mistakes of {escape_markdown(name)}")
        blocks += [_mistake_table(rows)] if rows else ["It makes none."]
        blocks += [FLOORS_WITHOUT] if name in content["floors"] else []
    if content["disagreements"]:
        first, second = names[:2]
        blocks.append(f"## Where {escape_markdown(first)} and {escape_markdown(second)} differ")
        blocks.append(
            _text_table(
                ["Row", "Reference", first, second, "Text"],
                [[row["id"], row["reference"], row["predicted"][first], row["predicted"][second], row["text"]]
                 for row in content["disagreements"]],
            )
        )  # fmt: skip
    suspects = content["suspects"]
    blocks += ["## Labels that may be wrong", escape_markdown(suspect_words(content))]
    if suspects["rows"]:
        blocks.append(
            _text_table(
                ["Row", "Reference", "Likely", "Text"],
                [[row["id"], f"{row['reference']} {row['probability_of_reference']:.3f}",
                  f"{row['likely']} {row['probability_of_likely']:.3f}", row["text"]] for row in suspects["rows"]],
            )
        )  # fmt: skip
    return "\n\n".join(blocks) + "\n"


def _column_blocks(content: Content) -> list[str]:
    blocks = []
    for part in content["columns"]:
        blocks += [f"## By {escape_markdown(part['column'])}", markdown_table(column_table(part, content["runs"]))]
        blocks.append(" ".join(column_words(part)))
    return blocks


def _mistake_table(rows: Sequence[Content]) -> str:
    heads = ["Row", "Reference", "Given", "Text"]
    cells = [[row["id"], row["reference"], f"{row['predicted']} {row['probability']:.3f}", row["text"]] for row in rows]
    if any("attribution" in row for row in rows):
        heads.append("Spoke most for it")
        for row, of_row in zip(rows, cells, strict=True):
            of_row.append(listed_tokens(row) or NOTHING)
    return _text_table(heads, cells)


def suspect_words(content: Content) -> str:
    """How rows with a doubtful label were found, and how many there are."""
    suspects = content["suspects"]
    if not suspects["runs"]:
        return "A majority floor says nothing of a single row, and so of no label."
    said = (
        "By confident learning (Northcutt, Jiang and Chuang 2021) on the mean probability of "
        f"{listed(suspects['runs'])}: {suspects['suspected_rows']:,} rows get another label with at least the "
        "probability that rows of that label get on average."
    )
    if suspects["suspected_rows"] > len(suspects["rows"]):
        said += f" Shown are the {len(suspects['rows'])} whose own label is least probable."
    if suspects["leaked_rows"]:
        said += f" {suspects['leaked_rows']:,} rows are left out: their text is in the training data."
    return f"{said} These are hints, to be read by a person: a hard row looks the same."


def listed_tokens(row: Content) -> str:
    """The tokens that spoke most for the label given: "지루 +0.310, 만 +0.021"; empty where that is not known."""
    if "attribution" not in row:
        return ""
    tokens = sorted(row["attribution"]["tokens"], key=lambda token: -token["score"])[:_STRONGEST]
    return ", ".join(f"{token['text']} {token['score']:+.3f}" for token in tokens if token["score"] > 0)


def evidence(row: Content) -> list[Piece]:
    """The text of a row with what each token adds to the probability of the label given."""
    tokens = row["attribution"]["tokens"] if "attribution" in row else ()
    return marked_pieces(row["text"], [(token["start"], token["end"], token["score"]) for token in tokens])


def heading(content: Content) -> str:
    """The title of the report."""
    return f"Where {listed(content['runs'])} {'are' if len(content['runs']) > 1 else 'is'} right, and where not"


def noise_words(content: Content) -> str:
    """Which rows noise was put into."""
    return (
        f"Of {content['noise_rows']:,} test rows, those that each kind changes (seed {content['seed']}); the drop is "
        "against the same rows as they are."
    )


def _cut(text: str) -> str:
    return shortened(" ".join(text.split()), _WIDTH)


def _text_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    columns = tuple(Column(head, is_number=False) for head in heads)
    return markdown_table(Table(columns, tuple(tuple(Cell(_cut(text)) for text in row) for row in rows)))


# --- the page ---------------------------------------------------------------------------------------------------------


def inspection_page(content: Content) -> str:
    """The page as HTML text; every name, label and text in it is escaped."""
    names: Sequence[str] = content["runs"]
    return page_template("inspection.html.j2").render(
        content=content,
        heading=heading(content),
        sentences=sentences(content),
        intervals=INTERVALS,
        noise_words=noise_words(content),
        keys={name: LineKey(name, f"var(--series-{i % plots.SERIES + 1})", "") for i, name in enumerate(names)},
        lengths=slice_table(content["lengths"], "Length", length_title, names),
        by_label=slice_table(content["by_label"], "Label", _label_title, names),
        columns=[(part["column"], column_table(part, names), column_words(part)) for part in content["columns"]],
        noise=noise_table(content),
        # Marked as safe: the SVG is made here, and names in it are escaped.
        length_plot=Markup(_length_plot(content)) if _enough(content["lengths"]) else None,
        noise_plot=Markup(_noise_plot(content)) if _enough(content["noise"]) else None,
        few=FEW_ROWS,
        suspect_words=suspect_words(content),
        floors_without=FLOORS_WITHOUT,
        evidence=evidence,
        listed_tokens=listed_tokens,
    )


def _marks(content: Content, shares: Mapping[str, Mapping[str, float]], against: Mapping[str, float]) -> list[Mark]:
    return [
        Mark(i, name, name in content["floors"], **shares[name], against=against.get(name))
        for i, name in enumerate(content["runs"])
    ]


def _enough(parts: Sequence[Content]) -> list[Content]:
    """Those with enough rows for a plot: the interval of a few spans all of it."""
    return [part for part in parts if part["rows"] >= FEW_ROWS]


def _length_plot(content: Content) -> str:
    slices = [
        MarkedSlice(length_title(part), part["rows"], _marks(content, part["accuracy"], {}))
        for part in _enough(content["lengths"])
    ]
    return slice_plot(slices, "lengths", "Accuracy by length")


def _noise_plot(content: Content) -> str:
    slices = []
    for part in _enough(content["noise"]):
        shares = {name: of["accuracy"] for name, of in part["runs"].items()}
        clean = {name: of["clean"]["value"] for name, of in part["runs"].items()}
        slices.append(MarkedSlice(part["noise"], part["rows"], _marks(content, shares, clean)))
    return slice_plot(slices, "noise", "Accuracy under noise, and on the same rows as they are")
