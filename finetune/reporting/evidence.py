"""Which pieces of a text speak for a prediction and which against it, ready to be marked in the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_FAINT = 0.02
"""Of the largest weight: less than that is no colour."""


@dataclass(frozen=True)
class Piece:
    """Of a text; what lies between the weighed pieces has no weight."""

    text: str
    side: Literal["", "for", "against"] = ""
    share: float = 0.0
    """Of the largest weight, which chooses the strength of the colour."""
    weight: float | None = None

    @property
    def number(self) -> str:
        """The weight with its sign; empty where there is none."""
        return "" if self.weight is None else f"{self.weight:+.3f}"


def marked_pieces(text: str, weights: Sequence[tuple[int, int, float]]) -> list[Piece]:
    """The whole text in pieces; `weights` are (start, end, weight) in its order, none overlapping another."""
    largest = max((abs(weight) for _, _, weight in weights), default=0.0) or 1.0
    pieces = []
    done = 0
    for start, end, weight in weights:
        if start > done:
            pieces.append(Piece(text[done:start]))
        share = abs(weight) / largest
        side: Literal["", "for", "against"] = "" if share < _FAINT else "for" if weight > 0 else "against"
        # A token of nothing but spaces that no word follows.
        pieces.append(Piece(text[start:end] or "·", side, share, weight))
        done = max(done, end)
    return [*pieces, Piece(text[done:])] if done < len(text) else pieces
