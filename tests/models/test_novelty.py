"""The detector by itself: what it finds, what its threshold keeps, and that a file of it says the same."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from finetune.errors import UserError
from finetune.models.novelty import METHODS, NOVELTY_FILE, HeadInputs, fit_novelty, last_layer, load_novelty


def on_a_plane(rows, seed):
    """Features that vary in two directions of twenty, and a little in all."""
    drawn = np.random.default_rng(seed)
    plane = np.random.default_rng(0).normal(size=(2, 20))
    return drawn.normal(size=(rows, 2)) @ plane + 0.1 * drawn.normal(size=(rows, 20))


@pytest.fixture(scope="module", params=METHODS)
def detector(request):
    return fit_novelty(request.param, on_a_plane(600, 1), on_a_plane(999, 2), 0.1, seed=3)


def test_what_lies_off_the_plane_is_novel(detector):
    ordinary, unlike = on_a_plane(500, 4), np.random.default_rng(5).normal(size=(500, 20))
    shares = detector.shares(detector.scores(np.concatenate([ordinary, unlike])))
    flagged = detector.is_novel(shares)
    assert 0.05 < flagged[:500].mean() < 0.16
    assert flagged[500:].mean() > 0.95
    assert shares.min() >= 0
    assert shares.max() == 999 / 1000


def test_the_threshold_is_that_of_conformal_prediction(detector):
    flagged = detector.is_novel(detector.shares(detector.ordinary))
    # ceil(1000 * 0.9) = 900 of 999 texts must be less novel.
    assert flagged.sum() == 999 - 900


@pytest.mark.parametrize(("rows", "false_alarms", "beyond"), [(19, 0.05, 0), (39, 0.05, 1), (300, 0.05, 15)])
def test_no_more_ordinary_texts_are_flagged_than_asked(rows, false_alarms, beyond):
    found = fit_novelty("mahalanobis", on_a_plane(500, 1), on_a_plane(rows, 2), false_alarms)
    assert found.is_novel(found.shares(found.ordinary)).sum() == rows - math.ceil(round((rows + 1) * 0.95, 9)) <= beyond


def test_too_few_texts_are_refused():
    with pytest.raises(UserError, match="18 validation texts: 19 are needed"):
        fit_novelty("mahalanobis", on_a_plane(500, 1), on_a_plane(18, 2), 0.05)
    with pytest.raises(UserError, match="255 training texts: at least 256"):
        fit_novelty("mahalanobis", on_a_plane(255, 1), on_a_plane(100, 2), 0.05)


def test_the_distance_is_scipys_by_sklearns_covariance():
    train, texts = on_a_plane(600, 1), on_a_plane(5, 6)
    found = fit_novelty("mahalanobis", train, on_a_plane(100, 2), 0.05).scores(texts)
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-6
    precision = LedoitWolf(assume_centered=True).fit((train - mean) / scale).precision_
    expected = [mahalanobis((text - mean) / scale, np.zeros(20), precision) for text in texts]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_feature_that_never_changes_is_no_harm():
    train, validation = on_a_plane(500, 1), on_a_plane(100, 2)
    train[:, 3] = validation[:, 3] = 0.0
    for method in METHODS:
        assert np.isfinite(fit_novelty(method, train, validation, 0.05).scores(validation)).all()


def test_equal_seeds_fit_alike_and_leave_the_random_numbers_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, second = (fit_novelty("autoencoder", on_a_plane(256, 1), on_a_plane(100, 2), 0.05, seed=7) for _ in "ab")
    assert torch.equal(torch.rand(3), expected)
    texts = on_a_plane(20, 8)
    np.testing.assert_array_equal(first.scores(texts), second.scores(texts))
    other = fit_novelty("autoencoder", on_a_plane(256, 1), on_a_plane(100, 2), 0.05, seed=8)
    assert not np.array_equal(other.scores(texts), first.scores(texts))


def test_a_file_says_the_same(detector, tmp_path):
    detector.save(tmp_path)
    loaded = load_novelty(tmp_path, 20)
    texts = on_a_plane(50, 9)
    np.testing.assert_array_equal(loaded.scores(texts), detector.scores(texts))
    np.testing.assert_array_equal(loaded.shares(loaded.scores(texts)), detector.shares(detector.scores(texts)))
    assert (loaded.method, loaded.threshold) == (detector.method, detector.threshold)
    assert [file.name for file in tmp_path.iterdir()] == [NOVELTY_FILE]


def test_a_file_that_does_not_fit_is_refused_by_name(detector, tmp_path):
    assert load_novelty(tmp_path, 20) is None
    detector.save(tmp_path)
    with pytest.raises(UserError, match=rf"{NOVELTY_FILE}: no novelty detector of this model .*20 features"):
        load_novelty(tmp_path, 21)
    content = (tmp_path / NOVELTY_FILE).read_bytes()
    (tmp_path / NOVELTY_FILE).write_bytes(content[:100])
    with pytest.raises(UserError, match="remove it, or fit it again"):
        load_novelty(tmp_path, 20)
    for metadata in ({}, {"method": "oracle", "false_alarms": "0.05"}, {"method": "autoencoder", "false_alarms": "x"}):
        save_file(dict(detector.tensors), tmp_path / NOVELTY_FILE, metadata)
        with pytest.raises(UserError, match="no novelty detector of this model"):
            load_novelty(tmp_path, 20)
    empty = dict(detector.tensors) | {"ordinary": torch.zeros(0)}
    save_file(empty, tmp_path / NOVELTY_FILE, {"method": detector.method, "false_alarms": "0.05"})
    with pytest.raises(UserError, match="no novelty detector of this model"):
        load_novelty(tmp_path, 20)


def test_what_a_head_sees_makes_the_logits():
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    model = BertForSequenceClassification(config).eval()
    watched = HeadInputs(model)
    ids = torch.arange(1, 9).reshape(2, 4)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
        again = last_layer(model)(torch.from_numpy(watched.last()).float())
    assert watched.size == 16
    torch.testing.assert_close(again, logits)


def test_a_model_without_a_linear_head_is_refused():
    model = BertForSequenceClassification(BertConfig(vocab_size=30, hidden_size=12, num_labels=3, num_hidden_layers=1))
    model.classifier = nn.Identity()
    with pytest.raises(UserError, match="does not end in a linear layer"):
        HeadInputs(model)
