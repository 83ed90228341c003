"""What `inspect` found -> JSON and Markdown; it shows texts of the data, and so stays where it is made."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.reporting.tables import escape_markdown, shortened

_WIDTH = 120
"""Columns of a text that are shown."""


def write_inspection(content: Mapping[str, Any], output: Path) -> Path:
    """Write inspection.json and inspection.md; returns the path of the latter."""
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    (output / "inspection.json").write_text(text, encoding="utf-8")
    page = output / "inspection.md"
    page.write_text(inspection_markdown(content), encoding="utf-8")
    return page


def inspection_markdown(content: Mapping[str, Any]) -> str:
    """Slices, noise, and the rows behind them."""
    names: Sequence[str] = content["runs"]
    lines = [
        f"# Where {len(names)} run(s) are right, on {content['test_rows']:,} test rows",
        "",
        "Accuracy in percent with Wilson's 95 % intervals; drops are in points, with paired intervals.",
        "",
        "## By length and by label",
        "",
        *_table(["Slice", "Rows", *names], [_slice_row(_length(part), part, names) for part in content["lengths"]]),
        "",
        *_table(["Label", "Rows", *names], [_slice_row(part["label"], part, names) for part in content["by_label"]]),
        "",
        "## Under noise",
        "",
        f"Of {content['noise_rows']:,} test rows, those that each kind changes (seed {content['seed']}); beside each "
        "accuracy stands its drop against the same rows as they are.",
        "",
        *_table(["Noise", "Rows", *names], [_noise_row(part, names) for part in content["noise"]]),
        "",
        *(f"- {part['noise']}: {_cut(part['example'])}" for part in content["noise"]),
    ]
    for name, rows in content["mistakes"].items():
        lines += ["", f"## The surest mistakes of {escape_markdown(name)}", ""]
        cells = [
            [row["id"], row["reference"], f"{row['predicted']} {row['probability']:.3f}", row["text"]] for row in rows
        ]
        lines += _table(["Row", "Reference", "Given", "Text"], cells, numbers=0)
    if content["disagreements"]:
        first, second = names[:2]
        lines += ["", f"## Where {escape_markdown(first)} and {escape_markdown(second)} differ", ""]
        lines += _table(
            ["Row", "Reference", first, second, "Text"],
            [
                [row["id"], row["reference"], row["predicted"][first], row["predicted"][second], row["text"]]
                for row in content["disagreements"]
            ],
            numbers=0,
        )
    if content["suspects"]:
        lines += ["", "## Labels that may be wrong", "", "All runs give another label, and the same."]
        lines += ["", *_table(
            ["Row", "Reference", "Given by all", "Text"],
            [[row["id"], row["reference"], row["given"], row["text"]] for row in content["suspects"]],
            numbers=0,
        )]  # fmt: skip
    return "\n".join([*lines, ""])


def _length(part: Mapping[str, Any]) -> str:
    if part["to"] is None:
        return f"{part['from']} characters and more"
    return f"{part['from']} to {part['to']} characters"


def _slice_row(title: str, part: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [title, f"{part['rows']:,}", *(_percent(part["accuracy"][name]) for name in names)]


def _noise_row(part: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [
        part["noise"],
        f"{part['rows']:,}",
        *(f"{_percent(part['runs'][name]['accuracy'])}; drop {_percent(part['runs'][name]['drop'])}" for name in names),
    ]


def _percent(interval: Mapping[str, float]) -> str:
    value, low, high = (100 * interval[end] for end in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _cut(text: str) -> str:
    return escape_markdown(shortened(" ".join(text.split()), _WIDTH))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 1) -> list[str]:
    """GitHub's Markdown; with `numbers` all columns but the first are flush right."""
    rules = [":---", *("---:" if numbers else ":---" for _ in heads[1:])]
    return [
        f"| {' | '.join(escape_markdown(head) for head in heads)} |",
        f"| {' | '.join(rules)} |",
        *(f"| {' | '.join(_cut(cell) for cell in row)} |" for row in rows),
    ]
