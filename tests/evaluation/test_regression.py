"""Rating metrics against scikit-learn and scipy, as modules, as points and as intervals."""

import evaluate
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sklearn import metrics as sk

from finetune.evaluation import Ratings, compute_metrics, describe_scores, score
from finetune.evaluation import metrics as local
from finetune.evaluation.regression import pearson


def ratings(count=300, seed=0, offset=0.0):
    generator = np.random.default_rng(seed)
    references = generator.integers(1, 11, count) + offset
    predicted = references + generator.normal(0, 2, count)
    return Ratings(pa.array([str(i) for i in range(count)]), references.astype(np.float64), predicted)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_points_equal_scikit_learn_and_scipy(offset):
    made = ratings(offset=offset)
    values = compute_metrics(made)
    mse = sk.mean_squared_error(made.references, made.predicted)
    assert values["mse"] == values["loss"] == pytest.approx(mse, rel=1e-12)
    assert values["rmse"] == pytest.approx(np.sqrt(mse), rel=1e-12)
    assert values["mae"] == pytest.approx(sk.mean_absolute_error(made.references, made.predicted), rel=1e-12)
    assert values["pearson"] == pytest.approx(stats.pearsonr(made.references, made.predicted).statistic, rel=1e-9)


def test_a_constant_has_no_correlation():
    made = ratings()
    constant = Ratings(made.ids, made.references, np.full(len(made.ids), 5.5))
    entry = score(constant, [], samples=100, confidence=0.95)
    assert entry["metrics"]["pearson"] == {"value": None, "low": None, "high": None}
    assert "Pearson undefined" in describe_scores("test", entry)
    assert pearson(np.array([1e9, 1e9]), np.array([1.0, 2.0])) is None


def test_intervals_hold_the_point_and_agree_with_scipy():
    made = ratings(500)
    entry = score(made, [], samples=1000, confidence=0.95)
    for name in ("mse", "rmse", "mae", "pearson"):
        metric = entry["metrics"][name]
        assert metric["low"] < metric["value"] < metric["high"], name
    errors = np.abs(made.predicted - made.references)
    expected = stats.bootstrap((errors,), np.mean, n_resamples=1000, method="percentile", rng=0).confidence_interval
    width = expected.high - expected.low
    assert entry["metrics"]["mae"]["low"] == pytest.approx(expected.low, abs=0.15 * width)
    assert entry["metrics"]["mae"]["high"] == pytest.approx(expected.high, abs=0.15 * width)


def test_the_file_holds_numbers_and_rows_can_be_left_out(tmp_path):
    made = ratings(5)
    made.write(tmp_path / "ratings.parquet", [])
    table = pq.read_table(tmp_path / "ratings.parquet").to_pydict()
    assert table["reference"] == made.references.tolist()
    assert [scores[0] for scores in table["scores"]] == table["predicted"] == made.predicted.tolist()
    assert made.without(frozenset({"1", "3"})).ids.to_pylist() == ["0", "2", "4"]


def test_the_modules_are_evaluate_modules():
    for module in (local.MeanSquaredError, local.MeanAbsoluteError, local.Pearson):
        assert isinstance(module(keep_in_memory=True), evaluate.Metric)
