"""Scores: point values, bootstrap intervals, and what is written to disk."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import bootstrap
from sklearn import metrics as sk
from statsmodels.stats.proportion import proportion_confint

from finetune.evaluation import Predictions, compute_metrics, score
from finetune.evaluation.classification import RankedScores, confusion, macro_f1, precision
from finetune.evaluation.predictions import LabelSets, Ratings, TokenSums


def predictions(count=400, skill=1.5, seed=0, labels=2):
    generator = np.random.default_rng(seed)
    references = generator.integers(0, labels, count)
    logits = generator.normal(size=(count, labels))
    logits[np.arange(count), references] += skill
    odds = np.exp(logits)
    return Predictions(pa.array([str(i) for i in range(count)]), references, odds / odds.sum(axis=1, keepdims=True))


def test_point_values_are_plain_numbers_and_right():
    made = predictions()
    values = compute_metrics(made)
    assert json.loads(json.dumps(values)) == values
    assert values["loss"] == pytest.approx(sk.log_loss(made.references, made.probabilities), abs=1e-12)
    assert values["roc_auc"] == pytest.approx(sk.roc_auc_score(made.references, made.probabilities[:, 1]), abs=1e-12)
    assert values["accuracy"] == (made.predicted == made.references).mean()


def test_intervals_are_those_of_a_bootstrap_over_rows():
    made = predictions(300, labels=3)
    entry = score(made, ["a", "b", "c"], samples=2000, confidence=0.9)
    generator = np.random.default_rng(5)
    draws = {"macro_f1": [], "loss": []}
    losses = -np.log(made.probabilities[np.arange(300), made.references])
    for _ in range(2000):
        rows = generator.integers(0, 300, 300)
        matrix = confusion(made.references[rows], made.predicted[rows], 3)
        draws["macro_f1"].append(macro_f1(matrix))
        draws["loss"].append(losses[rows].mean())
    for name, values in draws.items():
        interval = entry["metrics"][name]
        assert interval["low"] <= interval["value"] <= interval["high"]
        low, high = np.quantile(values, [0.05, 0.95])
        width = high - low
        assert interval["low"] == pytest.approx(low, abs=0.15 * width), name
        assert interval["high"] == pytest.approx(high, abs=0.15 * width), name


def test_bias_corrected_and_accelerated_intervals_are_scipys():
    made = predictions(120, skill=1.0)
    entry = score(made, ["a", "b"], samples=4000, confidence=0.9, interval="bca")
    chosen = made.probabilities[:, 1]
    statistics = {
        ("metrics", "macro_f1"): lambda rows: macro_f1(confusion(made.references[rows], made.predicted[rows], 2)),
        ("metrics", "loss"): lambda rows: -np.log(made.probabilities[rows, made.references[rows]]).mean(),
        ("metrics", "roc_auc"): lambda rows: RankedScores(chosen[rows], made.references[rows] == 1).area(),
        ("per_class", "b"): lambda rows: precision(confusion(made.references[rows], made.predicted[rows], 2))[1],
    }
    for (part, name), statistic in statistics.items():
        found = entry[part][name] if part == "metrics" else entry[part][name]["precision"]
        expected = bootstrap(
            (np.arange(120),), statistic, n_resamples=4000, confidence_level=0.9, method="BCa", vectorized=False,
            rng=np.random.default_rng(3),
        ).confidence_interval  # fmt: skip
        assert (found["low"], found["high"]) == pytest.approx(tuple(expected), abs=0.08 * (expected[1] - expected[0]))
    plain = score(made, ["a", "b"], samples=4000, confidence=0.9)
    assert (plain["interval_method"], entry["interval_method"]) == ("percentile", "bca")
    assert entry["metrics"]["accuracy"] == plain["metrics"]["accuracy"]
    assert entry["metrics"]["loss"] != plain["metrics"]["loss"]
    assert json.loads(json.dumps(entry)) == entry


def test_accelerated_intervals_of_every_task_hold_their_values():
    generator = np.random.default_rng(4)
    references, ids = generator.normal(size=80), pa.array([str(i) for i in range(80)])
    ratings = Ratings(ids, references, references + generator.normal(size=80))
    sets = LabelSets(ids, generator.random((80, 3)) < 0.4, generator.random((80, 3)))
    tokens = TokenSums(ids, generator.integers([20, 1, 9, 60, 30, 0], [60, 5, 15, 90, 45, 3], (80, 6)).astype(float))
    for made, labels in ((ratings, []), (sets, ["a", "b", "c"]), (tokens, [])):
        entry = score(made, labels, samples=500, confidence=0.95, interval="bca")
        per_class = [metric for metrics in entry.get("per_class", {}).values() for metric in metrics.values()]
        for metric in (*entry["metrics"].values(), *per_class):
            assert metric["low"] < metric["value"] < metric["high"]
        plain = score(made, labels, samples=500, confidence=0.95)["metrics"]
        assert all(entry["metrics"][name] != plain[name] for name in plain)


def test_accuracy_has_wilsons_interval():
    made = predictions(2500)
    entry = score(made, ["a", "b"], samples=100, confidence=0.9)["metrics"]["accuracy"]
    hits = int((made.predicted == made.references).sum())
    expected = proportion_confint(hits, 2500, alpha=0.1, method="wilson")
    assert (entry["low"], entry["high"]) == pytest.approx(expected, abs=1e-12)


def test_scores_of_one_class_and_of_one_row_are_defined_or_none():
    made = predictions(5)
    constant = Predictions(made.ids, np.zeros(5, dtype=np.int64), made.probabilities)
    entry = score(constant, ["a", "b"], samples=100, confidence=0.95)
    assert entry["metrics"]["roc_auc"] == {"value": None, "low": None, "high": None}
    assert json.loads(json.dumps(entry)) == entry
    for interval in ("percentile", "bca"):
        single = score(constant.without(frozenset("1234")), ["a", "b"], samples=100, confidence=0.95, interval=interval)
        assert single["count"] == 1
        assert single["metrics"]["loss"]["low"] == single["metrics"]["loss"]["value"]


def test_predictions_file_holds_names_and_probabilities_but_no_text(tmp_path):
    made = predictions(10)
    made.write(tmp_path / "p.parquet", ["부정", "긍정"])
    table = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert list(table) == ["id", "reference", "predicted", "scores"]
    assert table["reference"] == [["부정", "긍정"][i] for i in made.references]
    assert np.array_equal(np.array(table["scores"]), made.probabilities)
