"""Intervals and paired tests: how sure a score is, and whether two models can be told apart on the same rows.

Rows are drawn anew (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13); two models share the draws,
so that what is hard about a row cancels out. Nothing here loads torch: comparing runs takes no second.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, ndtri  # scipy.stats has these too, and takes a second to load

SAMPLES = 2000
"""Draws for an interval of a difference."""
CONFIDENCE = 0.95
_POWER = 0.8
"""How often a test with as many rows as `rows_to_tell_apart` says would find the difference."""


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same rows: how many rows only one of them has right, and what that says.

    `difference` is the first's share of right rows less the second's, with its interval by paired draws. `p_value` is
    that of McNemar's exact test; `adjusted` is that after Holm's correction, where several pairs are tested.
    """

    first_only: int
    second_only: int
    rows: int
    difference: Interval
    p_value: float
    adjusted: float

    def is_told_apart(self, level: float = 1 - CONFIDENCE) -> bool:
        """Whether the test finds a difference, the correction for several pairs included."""
        return self.adjusted < level


def percentile_interval(value: float, draws: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """The percentile bootstrap's interval: the middle `confidence` of the draws, (n,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def bca_interval(
    value: float, draws: NDArray[np.float64], left_out: NDArray[np.float64], confidence: float = CONFIDENCE
) -> Interval:
    """The bootstrap's bias-corrected and accelerated interval, of draws (n,): percentiles of them, but other ones.

    The bias correction is from the share of draws below the value, ties counting half; the acceleration is the
    jackknife's, from `left_out`, (rows,), what the value is without each row or without each of equal groups of them
    (Efron & Tibshirani 1993, section 14.3; groups as in Efron & Narasimhan 2020, "The automatic construction of
    bootstrap confidence intervals"). Where all draws lie on one side of the value, half a draw is taken to lie on the
    other.
    """
    is_tie = np.isclose(draws, value, rtol=1e-12, atol=0)  # the value may have been summed up in another order
    below = (draws[~is_tie] < value).sum() / len(draws) + is_tie.mean() / 2
    least = 0.5 / len(draws)
    bias = ndtri(np.clip(below, least, 1 - least))
    influences = left_out.mean() - left_out if len(left_out) else left_out
    scale = float((influences**2).sum() ** 1.5)
    acceleration = float((influences**3).sum()) / (6 * scale) if scale > 0 else 0.0
    tail = (1 - confidence) / 2
    shifted = bias + ndtri([tail, 1 - tail])
    # Of a handful of rows the acceleration can be as large as to leave nothing to divide by.
    places = ndtr(bias + shifted / np.maximum(1 - acceleration * shifted, 1e-12))
    low, high = np.quantile(draws, places)
    return Interval(value, float(low), float(high))


def wilson_interval(successes: int, count: int, confidence: float = CONFIDENCE) -> Interval:
    """A share of rows with Wilson's score interval (Wilson 1927), which stays within 0 and 1 and is never empty."""
    share, squared = successes / count, float(ndtri((1 + confidence) / 2)) ** 2 / count
    middle = (share + squared / 2) / (1 + squared)
    half = math.sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    # At the ends exactly, where rounding would miss them.
    return Interval(share, middle - half if successes else 0.0, middle + half if successes < count else 1.0)


def unpaired_difference(successes: int, count: int, other_successes: int, other_count: int) -> Interval:
    """The first share less the second, of different rows: Newcombe's hybrid of two Wilson intervals.

    Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
    """
    first, second = wilson_interval(successes, count), wilson_interval(other_successes, other_count)
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Interval(value, value - below, value + above)


def mcnemar(first_only: int, second_only: int) -> float:
    """The p-value of McNemar's exact test (two-sided, binomial): how often chance parts rows so unevenly.

    It looks at the rows alone of which one model is right and the other is not (McNemar 1947). Being exact it errs on
    the side of caution: with few such rows it finds a difference where there is none less often than its level says.
    """
    differing = first_only + second_only
    return min(1.0, 2 * float(bdtr(min(first_only, second_only), differing, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in their order: each is at least what it was, and at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[i])
        adjusted[i] = min(1.0, largest)
    return adjusted


def difference_interval(first_only: int, second_only: int, rows: int, *, seed: int = 0) -> Interval:
    """How much larger the first's share of right rows is, by paired draws of rows.

    The rows fall into three kinds, so that drawing them anew is drawing from a multinomial over the kinds.
    """
    shares = np.array([first_only, second_only, rows - first_only - second_only]) / rows
    drawn = np.random.default_rng(seed).multinomial(rows, shares, size=SAMPLES)
    return percentile_interval((first_only - second_only) / rows, (drawn[:, 0] - drawn[:, 1]) / rows)


def compare_pairs(first: NDArray[np.bool_], others: Sequence[NDArray[np.bool_]]) -> list[PairedTest]:
    """`first` against each of the `others`: which rows each has right, (n,), all in one order of rows."""
    counts = [(int((first & ~other).sum()), int((other & ~first).sum())) for other in others]
    p_values = [mcnemar(*count) for count in counts]
    return [
        PairedTest(*count, len(first), difference_interval(*count, len(first)), p_value, adjusted)
        for count, p_value, adjusted in zip(counts, p_values, holm(p_values), strict=True)
    ]


def rows_to_tell_apart(first_only: int, second_only: int, rows: int) -> int | None:
    """Test rows at which McNemar's test would find such a difference four times in five; None where there is none.

    Both kinds of differing rows are taken to stay as frequent as they were (Connor 1987, "Sample size for testing
    differences in proportions for the paired-sample design", equation 3).
    """
    if first_only == second_only:
        return None
    differing, gap = (first_only + second_only) / rows, abs(first_only - second_only) / rows
    of_level, of_power = ndtri(1 - (1 - CONFIDENCE) / 2), ndtri(_POWER)
    root = of_level * math.sqrt(differing) + of_power * math.sqrt(differing - gap**2)
    return math.ceil(root**2 / gap**2)


def draw_rows(rows: int) -> Iterator[NDArray[np.int64]]:
    """`SAMPLES` times how often each of the rows was drawn, (rows,); always the same draws."""
    generator = np.random.default_rng(0)
    for _ in range(SAMPLES):
        yield np.bincount(generator.integers(0, rows, rows), minlength=rows)


def bootstrap_seeds_and_rows(
    sums: Sequence[NDArray[np.float64]] | NDArray[np.float64],
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seeds_of: Sequence[Hashable] | None = None,
) -> NDArray[np.float64]:
    """Mean scores where seeds are drawn anew, and rows: of each model (seeds, rows, columns) -> (samples, models).

    `score` makes a score of sums over rows, (..., columns) -> (...). Seeds and rows are two sources of chance: a model
    trained again would be another, and so would its test rows. All models share the draws of rows, and those whose
    `seeds_of` are equal share the draws of seeds, so that the differences of two columns are paired; by default those
    with equally many seeds do. Seeds that have nothing to do with each other are better drawn apart: paired by their
    places alone, a few of them cancel out by chance.

    Owen 2007, "The pigeonhole bootstrap": of many seeds the interval errs on the side of caution, for chance that is a
    seed's and a row's together counts thrice. Of S seeds the part of the seeds is too narrow by √((S − 1) / S).
    """
    generator = np.random.default_rng(0)
    keys: list[Hashable] = [len(of_model) for of_model in sums] if seeds_of is None else list(seeds_of)
    places = {key: [i for i, other in enumerate(keys) if other == key] for key in keys}
    # (models with the same seeds, seeds, columns, rows): columns before rows is several times as fast.
    by_column = {key: np.ascontiguousarray(np.stack([sums[i] for i in places[key]]).swapaxes(2, 3)) for key in places}
    counts = {key: of_models.shape[1] for key, of_models in by_column.items()}
    rows = sums[0].shape[1]
    draws = np.empty((SAMPLES, len(sums)))
    for sample in range(SAMPLES):
        of_seeds = {
            key: np.bincount(generator.integers(0, seeds, seeds), minlength=seeds) / seeds
            for key, seeds in counts.items()
        }
        of_rows = np.bincount(generator.integers(0, rows, rows), minlength=rows).astype(np.float64)
        for key, of_models in by_column.items():
            draws[sample, places[key]] = score(of_models @ of_rows) @ of_seeds[key]
    return draws


@dataclass(frozen=True)
class Spread:
    """How much a mean over seeds would move, in its own unit; None where one seed cannot say.

    `deviation` is the standard deviation over the seeds. `of_seeds` is the mean's standard error for other seeds on
    these rows, `of_rows` that for other rows with these seeds.
    """

    deviation: float | None
    of_seeds: float | None
    of_rows: float


def spread_over_seeds(values: NDArray[np.float64]) -> Spread:
    """The two sources of chance in the mean of `values`, (seeds, rows), kept apart.

    Seeds and rows are crossed, so the mean's variance is the sum of both squares less what is a seed's and a row's
    together, which stands in either (Searle, Casella & McCulloch 1992, "Variance Components", ch. 4; Cameron, Gelbach &
    Miller 2011, "Robust inference with multiway clustering").
    """
    seeds, rows = values.shape
    of_rows = float(values.mean(axis=0).std(ddof=1)) / math.sqrt(rows) if rows > 1 else 0.0
    if seeds == 1:
        return Spread(None, None, of_rows)
    deviation = float(values.mean(axis=1).std(ddof=1))
    return Spread(deviation, deviation / math.sqrt(seeds), of_rows)
