"""The local `evaluate` modules against scikit-learn, loaded by path and as classes, with no network."""

import warnings
from pathlib import Path

import evaluate
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from finetune.evaluation import Predictions, compute_metrics, scores
from finetune.evaluation import metrics as local
from finetune.evaluation.classification import RankedScores

MODULES = sorted(path for path in Path(local.__file__).parent.glob("*.py") if path.stem != "__init__")


def rows(labels=3, count=200, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, labels, count), generator.integers(0, labels, count)


def compute(metric, references, predictions, labels):
    return metric(keep_in_memory=True).compute(predictions=predictions, references=references, num_labels=labels)


def test_every_module_loads_by_its_path_without_a_network():
    assert len(MODULES) == 19
    for path in MODULES:
        assert evaluate.load(str(path)).description


@settings(deadline=None, max_examples=30)
@given(data=st.data(), labels=st.integers(2, 5))
def test_all_metrics_equal_scikit_learn(data, labels):
    label = st.integers(0, labels - 1)
    pairs = data.draw(st.lists(st.tuples(label, label), min_size=2, max_size=40))
    references, predictions = np.array(pairs).T
    ids = list(range(labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": sk.accuracy_score(references, predictions),
            "macro_f1": sk.f1_score(references, predictions, average="macro"),
            "weighted_f1": sk.f1_score(references, predictions, average="weighted"),
            "mcc": sk.matthews_corrcoef(references, predictions),
            "precision": sk.precision_score(references, predictions, average=None, labels=ids, zero_division=0),
            "recall": sk.recall_score(references, predictions, average=None, labels=ids, zero_division=0),
            "f1": sk.f1_score(references, predictions, average=None, labels=ids, zero_division=0),
            "confusion_matrix": sk.confusion_matrix(references, predictions, labels=ids),
        }
    modules = (local.Accuracy, local.F1, local.MatthewsCorrelation, local.PrecisionRecall, local.ConfusionMatrix)
    values = {}
    for module in modules:
        values |= compute(module, references, predictions, labels)
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert np.allclose(values[name], value, atol=1e-12), name


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("decimals", [1, 9])
def test_roc_auc_equals_scikit_learn_with_and_without_ties(labels, decimals):
    generator = np.random.default_rng(1)
    references = generator.integers(0, labels, 300)
    probabilities = generator.dirichlet(np.ones(labels), 300).round(decimals) + 1e-6
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predictions = Predictions(pa.array([str(i) for i in range(300)]), references, probabilities)
    value = compute_metrics(predictions)["roc_auc"]
    expected = (
        sk.roc_auc_score(references, probabilities[:, 1])
        if labels == 2
        else sk.roc_auc_score(references, probabilities, multi_class="ovr", average="macro")
    )
    assert value == pytest.approx(expected, abs=1e-12)


def test_roc_auc_is_none_where_it_is_undefined():
    for references in ([1, 1], [0, 0]):
        metric = local.RocAuc(keep_in_memory=True)
        assert metric.compute(prediction_scores=[0.8, 0.7], references=references) == {"roc_auc": None}


def test_many_rows_go_through_files_and_score_the_same(monkeypatch):
    generator = np.random.default_rng(3)
    probabilities = generator.dirichlet(np.ones(3), 25_000)
    ids = pa.array([str(i) for i in range(len(probabilities))])
    predictions = Predictions(ids, generator.integers(0, 3, len(probabilities)), probabilities)
    expected = compute_metrics(predictions)
    monkeypatch.setattr(scores, "_MAX_ROWS_IN_MEMORY", 100)
    assert compute_metrics(predictions) == expected


def test_weighted_area_equals_repeating_rows():
    generator = np.random.default_rng(2)
    scores, positive = generator.random(50).round(1), generator.random(50) > 0.5
    weights = generator.integers(0, 4, 50)
    repeated = np.repeat(np.arange(50), weights)
    expected = sk.roc_auc_score(positive[repeated], scores[repeated])
    assert RankedScores(scores, positive).area(weights) == pytest.approx(expected, abs=1e-12)


def test_the_likelihood_of_tokens_is_a_quotient_of_sums():
    module = evaluate.load(str(next(path for path in MODULES if path.stem == "token_likelihood")))
    found = module.compute(nats=[3.0, 1.0], correct=[1, 2], tokens=[3, 5], bytes=[10, 6])
    assert found == pytest.approx({"loss": 0.5, "masked_accuracy": 3 / 8, "bits_per_byte": 4 / np.log(2) / 16})
