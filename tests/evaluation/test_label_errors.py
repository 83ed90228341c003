"""Label errors: the definition of the paper, and wrong labels that were planted are found."""

import numpy as np
import pytest
from reviews import review_rows

from finetune.evaluation.label_errors import confident_labels, confident_thresholds, likely_label_errors
from finetune.models import Floor
from finetune.recipe import TfidfFloor


def planted(rows=600, label_count=3, sharpness=1.0, seed=0):
    """Probabilities of a model that is right more often than not, labels of which 5 % are wrong, and which."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, label_count, rows)
    logits = generator.normal(size=(rows, label_count))
    logits[np.arange(rows), labels] += 2.5
    raised = np.exp(sharpness * logits)
    wrong = generator.choice(rows, rows // 20, replace=False)
    labels[wrong] = (labels[wrong] + 1 + generator.integers(0, label_count - 1, len(wrong))) % label_count
    return raised / raised.sum(axis=1, keepdims=True), labels, wrong


def reference_errors(probabilities, labels):
    """The off-diagonal entries of the confident joint, row by row, as the paper has it."""
    count = probabilities.shape[1]
    thresholds = [np.mean([row[j] for row, label in zip(probabilities, labels, strict=True) if label == j])
                  for j in range(count)]  # fmt: skip
    found = []
    for place, (row, label) in enumerate(zip(probabilities, labels, strict=True)):
        reached = [j for j in range(count) if row[j] >= thresholds[j]]
        if reached and max(reached, key=lambda j: row[j]) != label:
            found.append(place)
    return sorted(found, key=lambda place: probabilities[place][labels[place]])


@pytest.mark.parametrize("label_count", [2, 3, 5])
def test_it_is_the_papers_confident_joint(label_count):
    probabilities, labels, _ = planted(200, label_count, seed=label_count)
    assert likely_label_errors(probabilities, labels).tolist() == reference_errors(probabilities, labels)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_planted_errors_come_first_however_sure_the_model_is(sharpness):
    probabilities, labels, wrong = planted(sharpness=sharpness)
    first = likely_label_errors(probabilities, labels)[: len(wrong)]
    assert np.isin(first, wrong).mean() > 0.6  # by chance 0.05


def test_planted_errors_are_found_by_a_model_that_was_trained_on_other_rows():
    train, rows = review_rows(300, seed=1), review_rows(400)
    names = ["negative", "positive"]
    fitted = Floor(TfidfFloor(family="tfidf"), [text for text, _ in train],
                   np.array([names.index(label) for _, label in train]), 2)  # fmt: skip
    labels = np.array([names.index(label) for _, label in rows])
    wrong = np.random.default_rng(0).choice(len(rows), len(rows) // 20, replace=False)
    labels[wrong] = 1 - labels[wrong]
    found = likely_label_errors(fitted.outputs([text for text, _ in rows]), labels)
    assert np.isin(found[: len(wrong)], wrong).mean() >= 0.9


def test_thresholds_are_means_and_labels_that_no_row_bears_are_never_likely():
    probabilities = np.array([[0.6, 0.1, 0.3], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
    labels = np.array([0, 0, 1, 1, 0])
    assert confident_thresholds(probabilities, labels) == pytest.approx([0.5, 0.45, np.inf])
    assert confident_labels(probabilities, labels).tolist() == [0, 0, 1, 0, -1]
    assert likely_label_errors(probabilities, labels).tolist() == [3]


def test_equal_rows_are_no_errors():
    probabilities = np.tile([0.9, 0.1], (7, 1))
    assert not len(likely_label_errors(probabilities, np.zeros(7, int)))
