"""Intervals and paired tests: equal to scipy's and statsmodels', and right as often as they say."""

import numpy as np
import pytest
from scipy.stats import bootstrap
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from finetune import significance
from finetune.significance import (
    bca_interval,
    bootstrap_seeds_and_rows,
    compare_pairs,
    difference_interval,
    holm,
    mcnemar,
    percentile_interval,
    rows_to_tell_apart,
    spread_over_seeds,
    unpaired_difference,
    wilson_interval,
)

DRAWS = 10_000


@pytest.mark.parametrize(("successes", "count"), [(0, 5), (5, 5), (160, 200), (1999, 2000), (1, 3)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilsons_interval_is_statsmodels(successes, count, confidence):
    found = wilson_interval(successes, count, confidence)
    expected = proportion_confint(successes, count, alpha=1 - confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 0), (12, 20), (20, 12), (150, 110), (7, 7)])
def test_mcnemars_test_is_statsmodels(first, second):
    expected = reference_mcnemar([[10, first], [second, 10]], exact=True).pvalue
    assert mcnemar(first, second) == pytest.approx(min(1.0, expected), abs=1e-12)


def test_holms_correction_is_statsmodels():
    generator = np.random.default_rng(0)
    for count in (1, 2, 5, 12):
        p_values = list(generator.random(count) ** 3)
        assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))
    assert holm([]) == []


def test_the_percentile_interval_is_scipys():
    values = np.random.default_rng(0).exponential(size=80)
    found = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1))
    mine = percentile_interval(float(values.mean()), found.bootstrap_distribution)
    assert (mine.low, mine.high) == pytest.approx(tuple(found.confidence_interval))


def without_each(values):
    return (values.sum() - values) / (len(values) - 1)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_bias_corrected_and_accelerated_interval_is_scipys(confidence):
    values = np.random.default_rng(0).exponential(size=60)
    found = bootstrap(
        (values,), np.mean, n_resamples=2000, confidence_level=confidence, method="BCa", rng=np.random.default_rng(1)
    )
    mine = bca_interval(float(values.mean()), found.bootstrap_distribution, without_each(values), confidence)
    assert (mine.low, mine.high) == pytest.approx(tuple(found.confidence_interval), abs=1e-12)
    # What is skewed to the right has an interval further right.
    plain = percentile_interval(float(values.mean()), found.bootstrap_distribution, confidence)
    assert mine.low > plain.low
    assert mine.high > plain.high


def test_groups_of_rows_give_the_acceleration_as_well():
    generator = np.random.default_rng(2)
    values = generator.exponential(size=4000)
    draws = values[generator.integers(0, 4000, (2000, 4000))].mean(axis=1)
    groups = values.reshape(500, 8).sum(axis=1)
    of_groups = (values.sum() - groups) / (4000 - 8)
    exact, grouped = (bca_interval(float(values.mean()), draws, left) for left in (without_each(values), of_groups))
    assert (grouped.low, grouped.high) == pytest.approx((exact.low, exact.high), abs=0.05 * (exact.high - exact.low))


def test_the_accelerated_interval_of_next_to_nothing_is_defined():
    assert bca_interval(1.0, np.ones(100), np.ones(5)).high == 1.0
    assert bca_interval(0.5, np.full(100, 0.5), np.array([])).low == 0.5
    # All draws below the value: the highest of them are as near as they come.
    one_sided = bca_interval(2.0, np.linspace(0, 1, 100), np.arange(3.0))
    assert 0.5 < one_sided.low <= one_sided.high <= 1.0
    # One row like no other, of few.
    few = bca_interval(0.9, np.linspace(0, 1, 100), np.array([0.0, 1.0, 1.0, 1.0]))
    assert 0 <= few.low <= few.high <= 1


@pytest.mark.parametrize("count", [200, 2000])
def test_wilsons_interval_covers_as_often_as_it_says(count):
    generator = np.random.default_rng(count)
    # Of one accuracy the coverage hops around 95 %, since rows are whole; each draw has an accuracy of its own.
    accuracies = generator.uniform(0.6, 0.95, size=DRAWS)
    successes = generator.binomial(count, accuracies)
    intervals = {value: wilson_interval(value, count) for value in np.unique(successes).tolist()}
    covered = sum(
        intervals[value].low <= accuracy <= intervals[value].high
        for value, accuracy in zip(successes.tolist(), accuracies.tolist(), strict=True)
    )
    assert 0.94 <= covered / DRAWS <= 0.96


@pytest.mark.parametrize("count", [200, 2000])
@pytest.mark.parametrize(("first", "second"), [(0.10, 0.10), (0.15, 0.08)])
def test_the_interval_of_a_difference_covers_as_often_as_it_says(count, first, second):
    generator = np.random.default_rng(count)
    drawn = generator.multinomial(count, [first, second, 1 - first - second], size=DRAWS // 4)
    intervals = [difference_interval(a, b, count, seed=number) for number, (a, b, _) in enumerate(drawn.tolist())]
    covered = np.mean([interval.low <= first - second <= interval.high for interval in intervals])
    # 2,500 draws: two standard errors are 0.9 points.
    assert 0.935 <= covered <= 0.965


@pytest.mark.parametrize("count", [200, 2000])
def test_models_that_are_alike_are_told_apart_one_time_in_twenty_at_most(count):
    drawn = np.random.default_rng(count).multinomial(count, [0.1, 0.1, 0.8], size=DRAWS)
    found = {}
    for a, b, _ in drawn.tolist():
        found[a, b] = found.get((a, b), 0) + 1
    false_positives = sum(times for (a, b), times in found.items() if mcnemar(a, b) < 0.05) / DRAWS
    # Exact, and so on the side of caution: the fewer rows differ, the more.
    assert (0.02 if count == 200 else 0.035) < false_positives <= 0.05


def test_holm_keeps_one_family_in_twenty():
    generator = np.random.default_rng(3)
    families = 1000
    wrong = 0
    for _ in range(families):
        drawn = generator.multinomial(2000, [0.1, 0.1, 0.8], size=5).tolist()
        wrong += min(holm([mcnemar(a, b) for a, b, _ in drawn])) < 0.05
    assert wrong / families < 0.06


def test_so_many_rows_would_tell_them_apart():
    first, second, rows = 40, 28, 600
    needed = rows_to_tell_apart(first, second, rows)
    drawn = np.random.default_rng(5).multinomial(
        needed, [first / rows, second / rows, 1 - (first + second) / rows], size=4000
    )
    power = np.mean([mcnemar(a, b) < 0.05 for a, b, _ in drawn.tolist()])
    assert 0.76 < power < 0.84
    assert rows_to_tell_apart(7, 7, 100) is None


def test_pairs_are_compared_on_the_same_rows():
    generator = np.random.default_rng(0)
    best = generator.random(500) < 0.85
    flips = generator.random(500) < 0.1
    others = [best ^ flips, best.copy()]
    tests = compare_pairs(best, others)
    assert tests[0].first_only == int((best & ~others[0]).sum())
    assert tests[0].difference.value == pytest.approx(best.mean() - others[0].mean())
    assert tests[0].adjusted == pytest.approx(min(1.0, 2 * tests[0].p_value))
    assert tests[1].p_value == 1.0
    assert not tests[1].is_told_apart()
    assert tests[1].difference.low == tests[1].difference.high == 0.0


def test_seeds_widen_the_interval_and_models_share_the_draws():
    generator = np.random.default_rng(1)
    base = generator.random((3, 400)) < np.array([[0.7], [0.8], [0.9]])

    # Of one column the score is the share of right rows.
    def drawn(right):
        return bootstrap_seeds_and_rows(right[..., None].astype(float), lambda sums: sums[..., 0] / 400)

    draws = drawn(np.stack([base, base]))
    assert np.array_equal(draws[:, 0], draws[:, 1])
    one = drawn(base[None, 1:2])
    widths = [np.subtract(*np.quantile(column, [0.975, 0.025])) for column in (draws[:, 0], one[:, 0])]
    assert widths[0] > 1.5 * widths[1]


def right_rows(generator, seeds, rows, mean, *, of_seeds=0.08, of_rows=0.1):
    """Which rows each seed has right, (seeds, rows): some seeds are better than others, and `rows` (n,) easier."""
    chance = mean + of_seeds * generator.uniform(-1, 1, (seeds, 1)) + of_rows * rows
    return (generator.random(chance.shape) < chance).astype(float)


def bootstrapped(models, seeds_of=None):
    return bootstrap_seeds_and_rows(
        [model[..., None] for model in models], lambda sums: sums[..., 0] / models[0].shape[1], seeds_of
    )


def test_equally_many_seeds_are_drawn_as_ever():
    generator = np.random.default_rng(2)
    sums = generator.random((2, 3, 50, 2))
    draws = bootstrap_seeds_and_rows(sums, lambda sums: sums[..., 0] / sums[..., 1])
    same = np.random.default_rng(0)
    for draw in draws[:20]:
        seeds, rows = same.integers(0, 3, 3), same.integers(0, 50, 50)
        drawn = sums[:, seeds][:, :, rows].sum(axis=2)
        assert draw == pytest.approx((drawn[..., 0] / drawn[..., 1]).mean(axis=1), abs=1e-12)


def test_models_share_draws_of_the_seeds_that_they_share():
    generator = np.random.default_rng(3)
    model, other = (right_rows(generator, 3, np.zeros(300), 0.7, of_seeds=0) for _ in range(2))
    longer = np.concatenate([model, other])
    shared = bootstrapped([model, longer, model])
    assert np.array_equal(shared[:, 0], shared[:, 2])
    apart = bootstrapped([model, longer, model], ["one", "both", "other"])
    # They still share the rows.
    assert 0.1 < np.corrcoef(apart[:, 0], apart[:, 2])[0, 1] < 0.99
    with pytest.raises(ValueError, match="same shape"):
        bootstrapped([model, longer], ["one", "one"])


def test_intervals_over_unequal_numbers_of_seeds_cover_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(significance, "SAMPLES", 250)
    generator = np.random.default_rng(11)
    simulations = 200
    mean, gap = 0, 0
    for _ in range(simulations):
        easy = np.where(generator.random(300) < 0.75, 1, -3)  # what is hard is so for every seed
        models = [
            right_rows(generator, seeds, easy, share, of_seeds=0.05, of_rows=0.2)
            for seeds, share in ((30, 0.75), (20, 0.7))
        ]
        draws = bootstrapped(models)
        for_mean, for_gap = (percentile_interval(0, of_draws) for of_draws in (draws[:, 0], draws[:, 0] - draws[:, 1]))
        mean += for_mean.low <= 0.75 <= for_mean.high
        gap += for_gap.low <= 0.05 <= for_gap.high
    # 200 of them: two standard errors are 3 points. Of differences, in which the rows cancel out, they are cautious.
    assert 0.915 <= mean / simulations <= 0.98
    assert 0.92 <= gap / simulations <= 0.995


def test_the_parts_of_seeds_and_of_rows_are_what_a_mean_moves_by():
    generator = np.random.default_rng(5)
    easy = generator.uniform(-1, 1, 400)
    other_seeds = [right_rows(generator, 6, easy, 0.7) for _ in range(2000)]
    found = [spread_over_seeds(values) for values in other_seeds]
    moved = np.std([values.mean() for values in other_seeds])
    assert np.sqrt(np.mean([spread.of_seeds**2 for spread in found])) == pytest.approx(moved, rel=0.05)
    seeds = generator.uniform(-1, 1, (6, 1))
    means, of_rows = [], []
    for _ in range(2000):
        chance = 0.7 + 0.08 * seeds + 0.1 * generator.uniform(-1, 1, 400)
        values = (generator.random(chance.shape) < chance).astype(float)
        means.append(values.mean())
        of_rows.append(spread_over_seeds(values).of_rows)
    assert np.sqrt(np.mean(np.square(of_rows))) == pytest.approx(np.std(means), rel=0.05)
    one = spread_over_seeds(other_seeds[0][:1])
    assert one.deviation is None
    assert one.of_seeds is None


@pytest.mark.parametrize("counts", [(56, 70, 48, 80), (9, 10, 3, 10), (10, 10, 0, 10), (0, 5, 0, 300)])
def test_the_interval_of_an_unpaired_difference_is_statsmodels(counts):
    found = unpaired_difference(*counts)
    assert (found.low, found.high) == pytest.approx(confint_proportions_2indep(*counts, method="newcomb"), abs=1e-12)
    assert -1 <= found.low <= found.value <= found.high <= 1


def test_the_interval_of_an_unpaired_difference_is_the_published_one():
    """Newcombe 1998, table II, case (a), method 10."""
    found = unpaired_difference(56, 70, 48, 80)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
