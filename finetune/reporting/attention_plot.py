"""Attention maps as inline SVG in the style of `plots`: what was written from top to bottom, the prompt across."""

import unicodedata
from collections.abc import Sequence
from html import escape

from finetune.reporting.plots import TEXT_SIZE

_CELL, _GAP = 22, 2
_LETTER = 0.62
"""The width of a Latin letter, in sizes of the text; letters of East Asian scripts are as wide as the text is high."""
_NARROW = 1.5
"""Tokens of the prompt that are wider than this many sizes of the text are turned upright."""


def attention_plot(
    source: Sequence[str], target: Sequence[str], weights: Sequence[Sequence[float]], name: str, title: str
) -> str:
    """The map as an SVG element; the darker a cell, the more of the row's attention lies there.

    `name` begins the ids of the element, which a page needs to be its own.
    """
    top = max(_width(token) if _is_turned(token) else TEXT_SIZE for token in source) + 12
    left = max(map(_width, target)) + 12
    width, height = left + _CELL * len(source), top + _CELL * len(target)
    parts = []
    for column, token in enumerate(source):
        x = left + _CELL * (column + 0.5)
        turned = (
            f' transform="rotate(-90 {x:.1f} {top - 8:.1f})" dy="0.35em"'
            if _is_turned(token)
            else ' text-anchor="middle"'
        )
        parts.append(f'<text x="{x:.1f}" y="{top - 8:.1f}"{turned}>{escape(token)}</text>')
    for row, (token, of_row) in enumerate(zip(target, weights, strict=True)):
        y = top + _CELL * row
        parts.append(
            f'<text x="{left - 8:.1f}" y="{y + _CELL / 2:.1f}" dy="0.35em" text-anchor="end">{escape(token)}</text>'
        )
        for column, weight in enumerate(of_row):
            place = f'x="{left + _CELL * column:.1f}" y="{y:.1f}" width="{_CELL - _GAP}" height="{_CELL - _GAP}" rx="2"'
            parts.append(f'<rect {place} fill="var(--band)"/>')
            if weight >= 0.01:
                parts.append(f'<rect {place} fill="var(--series-1)" fill-opacity="{weight:.2f}"/>')
    strongest = ", ".join(
        f"{token} at {source[max(range(len(source)), key=of_row.__getitem__)]}"
        for token, of_row in zip(target, weights, strict=True)
    )
    return (
        f'<svg class="plot" viewBox="0 0 {width:.0f} {height:.0f}" style="max-width: {width * 1.1:.0f}px" role="img" '
        f'aria-labelledby="{name}-title {name}-description" font-size="{TEXT_SIZE}" fill="currentColor">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-description">Looked most: {escape(strongest)}</desc>{"".join(parts)}</svg>'
    )


def _is_turned(token: str) -> bool:
    """Whether a token of the prompt stands upright, being wider than its column."""
    return _width(token) > _NARROW * TEXT_SIZE


def _width(token: str) -> float:
    """About how wide a token is drawn, in units of the view box."""
    return TEXT_SIZE * sum(1.0 if unicodedata.east_asian_width(letter) in "WF" else _LETTER for letter in token)
