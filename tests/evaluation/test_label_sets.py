"""Metrics of rows with several labels against scikit-learn, as modules, as points and as intervals."""

import evaluate
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk

from finetune.evaluation import LabelSets, compute_metrics, describe_scores, label_sets, predictions_of, score
from finetune.evaluation import metrics as local

NAMES = ["연기", "음악", "이야기", "편집"]


def made(count=400, seed=0, shares=(0.5, 0.3, 0.2, 0.05), noise=0.35):
    """Scores that know something, ties among them, rows without labels, and rows that get none."""
    generator = np.random.default_rng(seed)
    references = generator.random((count, len(shares))) < shares
    scores = np.clip(references * 0.6 + 0.1 + generator.normal(0, noise, references.shape), 0.01, 0.99).round(2)
    return LabelSets(pa.array([str(i) for i in range(count)]), references, scores)


def expected(one):
    true, predicted = one.references.astype(int), one.predicted.astype(int)
    options = {"zero_division": 0}
    precision, recall, f1, _ = sk.precision_recall_fscore_support(true, predicted, **options)
    return {
        "micro_f1": sk.f1_score(true, predicted, average="micro", **options),
        "macro_f1": sk.f1_score(true, predicted, average="macro", **options),
        "samples_f1": sk.f1_score(true, predicted, average="samples", zero_division=1),
        "subset_accuracy": sk.accuracy_score(true, predicted),
        "hamming_loss": sk.hamming_loss(true, predicted),
        "mean_average_precision": sk.average_precision_score(true, one.probabilities, average="macro"),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.0, 0.35, 2.0])
def test_points_equal_scikit_learn(seed, noise):
    one = made(seed=seed, noise=noise)
    values = compute_metrics(one)
    for name, value in expected(one).items():
        assert values[name] == pytest.approx(value, abs=1e-12), name
    losses = [sk.log_loss(one.references[:, i], one.probabilities[:, i], labels=[0, 1]) for i in range(len(NAMES))]
    assert values["loss"] == pytest.approx(np.mean(losses), rel=1e-9)


def test_a_sure_mistake_has_a_finite_loss():
    losses = label_sets.losses(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[True, False], [False, True]]))
    assert losses.tolist() == [0.0, pytest.approx(53 * np.log(2))]


def test_what_no_row_has_or_gets_counts_as_scikit_learn_counts_it():
    nothing = np.zeros((6, 3), dtype=bool)
    one = LabelSets(pa.array(list("abcdef")), nothing, np.full((6, 3), 0.2))
    values = compute_metrics(one)
    assert (values["micro_f1"], values["macro_f1"]) == (0, 0)
    assert (values["samples_f1"], values["subset_accuracy"], values["hamming_loss"]) == (1, 1, 0)
    assert values["mean_average_precision"] is None
    entry = score(one, ["a", "b", "c"], samples=100, confidence=0.95)
    assert entry["metrics"]["mean_average_precision"] == {"value": None, "low": None, "high": None}


def test_a_probability_of_one_half_gives_the_label():
    one = LabelSets(pa.array(["a"]), np.array([[True, False]]), np.array([[0.5, np.nextafter(0.5, 0)]]))
    assert one.predicted.tolist() == [[True, False]]


def test_weights_are_repeated_rows():
    """A resample's average precision, by weights, equals that of the resampled rows themselves."""
    one, generator = made(120), np.random.default_rng(1)
    ranked = [label_sets.RankedLabel(one.probabilities[:, i], one.references[:, i]) for i in range(len(NAMES))]
    for _ in range(5):
        rows = generator.integers(0, 120, 120)
        weights = np.bincount(rows, minlength=120)
        drawn = LabelSets(one.ids, one.references[rows], one.probabilities[rows])
        found = label_sets.mean_average_precision(ranked, weights)
        assert found == pytest.approx(expected(drawn)["mean_average_precision"], abs=1e-12)
        means = weights @ label_sets.row_counts(one.predicted, one.references) / 120
        for name, value in label_sets.metrics_of(means).items():
            assert value == pytest.approx(expected(drawn)[name], abs=1e-12), name


def test_intervals_hold_the_point_and_are_the_bootstraps():
    one = made()
    entry = score(one, NAMES, samples=400, confidence=0.9)
    assert list(entry["metrics"]) == [
        *("micro_f1", "macro_f1", "samples_f1", "subset_accuracy", "hamming_loss", "mean_average_precision", "loss"),
    ]
    for name, metric in entry["metrics"].items():
        assert metric["low"] < metric["value"] < metric["high"], name
    assert list(entry["per_class"]) == NAMES == entry["labels"]
    generator = np.random.default_rng(7)
    draws = []
    for _ in range(400):
        rows = generator.integers(0, 400, 400)
        draws.append(sk.f1_score(one.references[rows], one.predicted[rows], average="micro"))
    low, high = np.quantile(draws, [0.05, 0.95])
    found = entry["metrics"]["micro_f1"]
    assert found["low"] == pytest.approx(low, abs=0.15 * (high - low))
    assert found["high"] == pytest.approx(high, abs=0.15 * (high - low))
    said = describe_scores("test", entry)
    assert said.startswith(f"test: micro F1 {found['value']:.1%} [")
    assert "all labels right" in said


def test_the_file_holds_names_and_rows_can_be_left_out(tmp_path):
    references = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=np.float32)
    outputs = np.array([[0.9, 0.2, 0.4], [0.1, 0.5, 0.2], [0.0, 0.3, 0.1]])
    one = predictions_of(pa.array(["x", "y", "z"]), references, outputs)
    assert isinstance(one, LabelSets)
    one.write(tmp_path / "sets.parquet", ["a", "b", "c"])
    table = pq.read_table(tmp_path / "sets.parquet").to_pydict()
    assert table["reference"] == [["a", "c"], [], ["b"]]
    assert table["predicted"] == [["a"], ["b"], []]
    assert table["scores"] == outputs.tolist()
    assert one.without(frozenset({"y"})).references.tolist() == [[True, False, True], [False, True, False]]


def test_the_modules_are_evaluate_modules():
    for module in (local.LabelSets, local.AveragePrecision):
        assert isinstance(module(keep_in_memory=True), evaluate.Metric)
