"""Losses by recipe: against their formulas, and what each does on an unbalanced set."""

import csv
import random

import numpy as np
import pytest
import torch
from reviews import small_recipe
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from finetune.errors import UserError
from finetune.losses import build_criterion, build_set_criterion, label_set_loss
from finetune.predict import load_classifier
from finetune.recipe import Loss
from finetune.text.masking import IGNORED_LABEL
from finetune.training import train

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 0.0]])
LABELS = torch.tensor([0, 2, 1])
COUNTS = [6, 3, 1]


def loss(kind="cross_entropy", logits=LOGITS, labels=LABELS, **values):
    return build_criterion(Loss(kind=kind, **values), COUNTS)(logits, labels)


def test_plain_cross_entropy_is_left_to_the_loop():
    assert build_criterion(Loss(), COUNTS) is None


def test_each_loss_is_its_formula():
    expected = functional.cross_entropy(LOGITS, LABELS, reduction="sum", label_smoothing=0.1)
    assert loss(label_smoothing=0.1) == pytest.approx(expected.item())
    probabilities = LOGITS.softmax(-1)
    of_target = probabilities[range(3), LABELS]
    assert loss("focal").item() == pytest.approx((-((1 - of_target) ** 2) * of_target.log()).sum().item())
    assert loss("focal", focal_gamma=0.0).item() == pytest.approx(
        functional.cross_entropy(LOGITS, LABELS, reduction="sum").item()
    )
    one_hot = torch.eye(3)[LABELS]
    binary = -(one_hot * LOGITS.sigmoid().log() + (1 - one_hot) * (1 - LOGITS.sigmoid()).log()).sum()
    assert loss("binary_cross_entropy").item() == pytest.approx(binary.item(), rel=1e-5)
    assert loss("mse").item() == pytest.approx(((probabilities - one_hot) ** 2).sum().item())
    smooth = one_hot * 0.7 + 0.1
    assert loss("mse", label_smoothing=0.3).item() == pytest.approx(((probabilities - smooth) ** 2).sum().item())


def test_balanced_weights_are_scikit_learns_and_one_on_the_average():
    labels = np.repeat([0, 1, 2], COUNTS)
    weights = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    of_each = [functional.cross_entropy(LOGITS[i : i + 1], LABELS[i : i + 1]).item() for i in range(3)]
    expected = sum(weight * one for weight, one in zip(weights[LABELS], of_each, strict=True))
    assert loss(class_weights="balanced").item() == pytest.approx(expected, rel=1e-5)
    assert weights[labels].mean() == pytest.approx(1)


SETS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def set_loss(logits=LOGITS, labels=SETS, **values):
    return build_set_criterion(Loss(**values), [10, 30, 5], 40)(logits, labels)


def test_losses_of_label_sets_are_their_formulas():
    assert build_set_criterion(Loss(), [1, 2], 3) is None
    assert build_set_criterion(Loss(kind="binary_cross_entropy"), [1, 2], 3) is None
    plain = functional.binary_cross_entropy_with_logits(LOGITS, SETS, reduction="mean") * len(SETS)
    assert label_set_loss(LOGITS, SETS).item() == pytest.approx(plain.item())
    weights = torch.tensor([30 / 10, 10 / 30, 35 / 5])
    weighted = functional.binary_cross_entropy_with_logits(LOGITS, SETS, pos_weight=weights) * len(SETS)
    assert set_loss(class_weights="balanced").item() == pytest.approx(weighted.item())
    right = torch.where(SETS > 0, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    focal = -((1 - right) ** 1.5 * right.log()).mean(dim=1).sum()
    assert set_loss(kind="focal", focal_gamma=1.5).item() == pytest.approx(focal.item(), rel=1e-5)
    assert set_loss(kind="focal", focal_gamma=0.0).item() == pytest.approx(plain.item())


@pytest.mark.parametrize("values", [{}, {"kind": "focal"}, {"class_weights": "balanced"}])
def test_rows_that_are_no_targets_count_nothing_in_label_sets(values):
    criterion = build_set_criterion(Loss(**values), [10, 30, 5], 40) or label_set_loss
    more = torch.cat([LOGITS, torch.full((1, 3), 90.0)]).requires_grad_()
    labels = torch.cat([SETS, torch.full((1, 3), float("nan"))])
    loss = criterion(more, labels)
    loss.backward()
    assert loss.item() == pytest.approx(criterion(LOGITS, SETS).item())
    assert torch.equal(more.grad[3], torch.zeros(3))
    assert criterion(LOGITS, torch.full((3, 3), float("nan"))).item() == 0


def test_a_sure_row_has_a_gradient():
    logits = torch.tensor([[50.0, 0.0, 0.0]], requires_grad=True)
    loss("focal", logits, torch.tensor([0]), focal_gamma=0.5).backward()
    assert logits.grad.isfinite().all()


def test_a_label_without_rows_leaves_the_others_their_weights():
    weighted = build_criterion(Loss(class_weights="balanced"), [6, 0, 2])
    one = functional.cross_entropy(LOGITS[:1], LABELS[:1])
    assert weighted(LOGITS[:1], LABELS[:1]).item() == pytest.approx(one.item() * 8 / 12)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "binary_cross_entropy", "mse"])
def test_rows_without_a_label_count_nothing_and_gradients_are_those_of_the_rest(kind):
    more = torch.cat([LOGITS, torch.full((1, 3), 7.0)]).requires_grad_()
    less = LOGITS.clone().requires_grad_()
    options = {"class_weights": "balanced", "label_smoothing": 0.05}
    a = loss(kind, more, torch.cat([LABELS, torch.tensor([IGNORED_LABEL])]), **options)
    b = loss(kind, less, LABELS, **options)
    assert a.item() == pytest.approx(b.item())
    a.backward()
    b.backward()
    assert torch.equal(more.grad[3], torch.zeros(3))
    assert torch.allclose(more.grad[:3], less.grad)
    nothing = loss(kind, less, torch.full((3,), IGNORED_LABEL), **options)
    assert nothing.item() == 0


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory):
    """Nine rows in ten are of one label, and the word that tells them apart lies once in five."""
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("unbalanced") / "rows.csv"
    rows = []
    for number in range(400):
        label = "rare" if number % 10 == 0 else "common"
        telling = {"rare": "고장", "common": "만족"}[label if draw.random() < 0.8 else draw.choice(["rare", "common"])]
        words = [draw.choice("가나다라마바사아") * 2 for _ in range(4)]
        words.insert(draw.randrange(5), telling)
        rows.append((f"{' '.join(words)} {number % 7}", label))
    with path.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([("text", "label"), *rows])
    return path


def outcome(file, directory, **loss):
    """(recall of the rare label on test, mean confidence there) after training with a loss."""
    recipe = small_recipe(
        directory,
        "lstm",
        name="-".join(map(str, loss.values())) or "plain",
        data={"train_file": str(file), "test_fraction": 0.5},
        training={"num_train_epochs": 12, "learning_rate": 1e-2, "metric_for_best_model": "macro_f1"},
        loss=loss,
    )
    run = train(recipe)
    scores = run.scores()["splits"]["test"]
    classifier = load_classifier(str(run.path))
    said = classifier.classify(["가가 고장 나나 다다", "라라 만족 마마 바바", "사사 아아 가가"])
    return scores["per_class"]["rare"]["recall"]["value"], float(said.max(axis=1).mean())


@pytest.mark.slow
def test_what_each_loss_does_on_an_unbalanced_set(unbalanced, tmp_path):
    plain = outcome(unbalanced, tmp_path)
    balanced = outcome(unbalanced, tmp_path, class_weights="balanced")
    assert balanced[0] > plain[0]  # rare rows are found more often
    smoothed = outcome(unbalanced, tmp_path, label_smoothing=0.3)
    assert smoothed[1] < plain[1] - 0.03  # and what is smoothed is less sure
    focal = outcome(unbalanced, tmp_path, kind="focal", focal_gamma=4.0)
    assert focal[1] < plain[1]
    for kind in ("binary_cross_entropy", "mse"):
        assert outcome(unbalanced, tmp_path, kind=kind, class_weights="balanced")[0] > 0.5


def test_what_does_not_go_together_is_refused(tmp_path):
    with pytest.raises(UserError, match="focal_gamma is for focal"):
        small_recipe(tmp_path, "lstm", loss={"focal_gamma": 1.0})
    with pytest.raises(UserError, match="loss is for neural models that classify"):
        small_recipe(tmp_path, {"family": "tfidf"}, loss={"kind": "focal"})
