"""Exercises that are made by rule rather than collected: dates to be written in another form, and numbers to be added.

They show whether a model that reads one text and writes another can learn to look at the right place, and since every
answer is either right or wrong, how well it does. No date and no pair of numbers stands in two splits.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta

import datasets
import numpy as np

_ROWS = {"train": 20_000, "validation": 1_000, "test": 2_000}
_FIRST, _LAST = date(1950, 1, 1), date(2049, 12, 31)
"""A hundred years, so that two digits tell a year."""
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_FORMS: tuple[Callable[[date], str], ...] = (
    lambda day: f"{_MONTHS[day.month - 1]} {day.day}, {day.year}",
    lambda day: f"{day.day} {_MONTHS[day.month - 1][:3]} {day.year}",
    lambda day: f"{_MONTHS[day.month - 1].lower()} {day.day} {day.year % 100:02}",
    lambda day: f"{day.month}/{day.day}/{day.year % 100:02}",
    lambda day: f"{day.year}년 {day.month}월 {day.day}일",
    lambda day: f"{day.year % 100:02}. {day.month}. {day.day}.",
)
_NUMBERS = 1000
_SUMS = {**_ROWS, "train": 40_000}

Pair = tuple[str, str]
"""A question and its answer."""


def make_rows(name: str, split: str) -> datasets.Dataset:
    """The rows of a split of an exercise in `EXERCISES`, always the same: prompt, text."""
    pairs = list(EXERCISES[name](split))
    return datasets.Dataset.from_dict({"prompt": [one for one, _ in pairs], "text": [other for _, other in pairs]})


def _own(count: int, rows: Mapping[str, int], split: str) -> np.ndarray:
    """Of `count` things the numbers of those that are a split's own, (rows of the split,)."""
    order = np.random.default_rng(0).permutation(count)
    start = sum(rows[name] for name in list(rows)[: list(rows).index(split)])
    return order[start : start + rows[split]]


def _dates(split: str) -> Iterator[Pair]:
    """Dates in six forms, English and Korean -> year, month and day in digits."""
    days = _own((_LAST - _FIRST).days + 1, _ROWS, split)
    forms = np.random.default_rng(1).integers(len(_FORMS), size=len(days))
    for number, form in zip(days.tolist(), forms, strict=True):
        day = _FIRST + timedelta(days=number)
        yield _FORMS[form](day), day.isoformat()


def _sums(split: str) -> Iterator[Pair]:
    """Two numbers of up to three digits -> their sum; a pair stands in one order alone."""
    pairs = _own(_NUMBERS * (_NUMBERS + 1) // 2, _SUMS, split)
    swapped = np.random.default_rng(1).random(len(pairs)) < 0.5
    # Counted row by row of the triangle of pairs whose second number is not larger.
    firsts = ((np.sqrt(8 * pairs + 1) - 1) // 2).astype(np.int64)
    seconds = pairs - firsts * (firsts + 1) // 2
    for first, second, swap in zip(firsts.tolist(), seconds.tolist(), swapped, strict=True):
        one, other = (second, first) if swap else (first, second)
        yield f"{one}+{other}", str(one + other)


EXERCISES: Mapping[str, Callable[[str], Iterator[Pair]]] = {"dates": _dates, "sums": _sums}
"""By the name that a recipe has for them behind `embedded:`."""
