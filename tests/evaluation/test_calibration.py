"""Calibration: the error, the temperature that mends it, and the band in which nothing is said."""

import evaluate
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from finetune.evaluation.calibration import (
    apply_temperature,
    brier_scores,
    calibration_error,
    confidences,
    coverage_curve,
    fit_neutral_band,
    fit_temperature,
    reliability,
)
from finetune.evaluation.metrics import ExpectedCalibrationError


def sharpened(count=20_000, labels=3, temperature=0.4, seed=0):
    """Probabilities that are too sure: the references were drawn from the same logits at temperature 1."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, labels)) * 1.5
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    references = (generator.random((count, 1)) < true.cumsum(axis=1)).argmax(axis=1)
    return apply_temperature(true, temperature), references, true


def test_the_error_is_the_papers():
    confidence = np.array([0.55, 0.58, 0.9, 0.92, 1.0])
    correct = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    # 15 bins: (0.533, 0.6], (0.867, 0.933], (0.933, 1].
    expected = (2 * abs(0.565 - 0.5) + 2 * abs(0.91 - 1.0) + 1 * abs(1.0 - 0.0)) / 5
    assert calibration_error(confidence, correct) == pytest.approx(expected)
    module = ExpectedCalibrationError(keep_in_memory=True)
    assert isinstance(module, evaluate.Metric)
    assert module.compute(confidences=confidence, correct=correct) == {"ece": pytest.approx(expected)}


def test_the_brier_score_is_scikit_learns():
    probabilities, references, _ = sharpened(500)
    assert brier_scores(probabilities, references).mean() == pytest.approx(
        brier_score_loss(references, probabilities, scale_by_half=False)
    )


def test_the_temperature_is_found_and_mends_the_error():
    probabilities, references, true = sharpened()
    temperature = fit_temperature(probabilities, references)
    assert temperature == pytest.approx(2.5, rel=0.05)
    mended = apply_temperature(probabilities, temperature)
    assert np.array_equal(mended.argmax(axis=1), probabilities.argmax(axis=1))
    assert mended.sum(axis=1) == pytest.approx(1)
    assert np.abs(mended - true).max() < 0.02
    before, after = (calibration_error(*confidences(given, references)) for given in (probabilities, mended))
    assert before > 0.1
    assert after < 0.015


def test_certainty_survives_a_temperature():
    given = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert np.isfinite(apply_temperature(given, 3.0)).all()
    assert fit_temperature(given, np.array([0, 1])) > 0


def test_bins_hold_every_row_once():
    probabilities, references, _ = sharpened(1000)
    bins = reliability(probabilities, references)
    assert sum(found.count for found in bins) == 1000
    assert all(found.low < found.confidence <= found.high for found in bins)
    gap = sum(found.count * abs(found.confidence - found.accuracy) for found in bins) / 1000
    assert gap == pytest.approx(calibration_error(*confidences(probabilities, references)))


def test_outside_of_the_band_answers_are_right_as_often_as_was_asked():
    probabilities, references, _ = sharpened(20_000, labels=2, temperature=1.0)
    second = probabilities[:, 1]
    plain = ((second >= 0.5) == (references == 1)).mean()
    band = fit_neutral_band(second, references, accuracy=plain + 0.08)
    assert band.low < 0.5 < band.high
    said = second >= band.high
    unsaid = second <= band.low
    assert (references[said] == 1).mean() >= plain + 0.08
    assert (references[unsaid] == 0).mean() >= plain + 0.08
    assert band.coverage == pytest.approx((said | unsaid).mean())
    assert band.accuracy == pytest.approx(
        ((references[said] == 1).sum() + (references[unsaid] == 0).sum()) / (said | unsaid).sum()
    )
    wider = fit_neutral_band(second, references, accuracy=plain + 0.1)
    assert wider.coverage < band.coverage
    assert fit_neutral_band(second, references, accuracy=1.01) is None


def test_the_surest_rows_come_first():
    probabilities, references, _ = sharpened(2000)
    curve = coverage_curve(probabilities, references)
    assert curve["coverage"][0] == 0.05
    assert curve["coverage"][-1] == 1
    assert curve["accuracy"][-1] == pytest.approx((probabilities.argmax(axis=1) == references).mean())
    assert curve["accuracy"][0] > curve["accuracy"][-1] + 0.1
