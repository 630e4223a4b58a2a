"""Laws of calibration, against SciPy and numbers by hand."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logsumexp

from jaxseg.metrics import calibration


def cross_entropy(logits, labels, weight, temperature):
    scaled = logits / temperature
    of_each = logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]
    return weight @ of_each


def best_by_scipy(logits, labels, weight):
    found = minimize_scalar(
        lambda log_t: cross_entropy(logits, labels, weight, np.exp(log_t)),
        bounds=np.log([calibration.LOWEST, calibration.HIGHEST]),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return np.exp(found.x)


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("sureness", [0.3, 1.0, 4.0])
def test_the_temperature_is_the_one_that_scipy_finds(num_classes, sureness):
    random = np.random.default_rng(num_classes)
    true = random.normal(size=(400, num_classes))
    noise = random.gumbel(size=true.shape)
    labels = (true + noise).argmax(1)  # as softmax(true) says
    logits = true * sureness
    weight = random.integers(1, 5, 400)
    found = calibration.fit_temperature(logits, labels, weight)
    assert found == pytest.approx(best_by_scipy(logits, labels, weight), rel=1e-4)
    assert found == pytest.approx(sureness, rel=0.25)  # what made it over-confident


def test_a_weight_stands_for_copies_and_constants_per_row_do_not_count():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(60, 3)), random.integers(3, size=60)
    weight = random.integers(0, 4, 60)
    weighted = calibration.fit_temperature(logits, labels, weight)
    copied = calibration.fit_temperature(
        logits.repeat(weight, axis=0), labels.repeat(weight)
    )
    shifted = calibration.fit_temperature(
        logits + random.normal(size=(60, 1)), labels, weight
    )
    assert weighted == pytest.approx(copied) == pytest.approx(shifted)


def test_a_binary_score_is_scaled_as_its_logit():
    scores = np.array([0.02, 0.3, 0.9, 0.999])
    scaled = calibration.scale(calibration.log_probs(scores), 2.5)[:, 1]
    np.testing.assert_allclose(scaled, expit(np.log(scores / (1 - scores)) / 2.5))


def test_separated_and_useless_scores_end_at_the_bounds():
    logits = calibration.log_probs(np.array([0.1, 0.9]))
    right = calibration.fit_temperature(logits, np.array([0, 1]))
    wrong = calibration.fit_temperature(logits, np.array([1, 0]))
    assert right == pytest.approx(calibration.LOWEST)
    assert wrong == pytest.approx(calibration.HIGHEST)


def test_probabilities_of_exactly_0_and_1_are_finite():
    logits = calibration.log_probs(np.array([0.0, 1.0, 1.0]))
    found = calibration.fit_temperature(logits, np.array([0, 1, 0]))
    assert np.isfinite(calibration.scale(logits, found)).all()
    assert found > 1


def test_reliability_by_hand():
    probs, true = [0.0, 0.05, 0.25, 0.25, 1.0], [0, 1, 0, 1, 1]
    found = calibration.reliability(np.array(probs), np.array(true), [1, 1, 3, 1, 2])
    assert found.weight.tolist() == [2, 0, 4, 0, 0, 0, 0, 0, 0, 2]
    assert found.claimed[[0, 2, 9]].tolist() == [0.025, 0.25, 1.0]
    assert found.true[[0, 2, 9]].tolist() == [0.5, 0.25, 1.0]
    assert np.isnan(found.true[1])
    assert found.ece == pytest.approx(2 * 0.475 / 8)


def test_scaling_mends_what_is_too_sure_and_not_the_order():
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, 4000)
    labels = (random.random(4000) < expit(logits)).astype(int)
    sure = calibration.log_probs(expit(3 * logits))
    mended = calibration.scale(sure, calibration.fit_temperature(sure, labels))[:, 1]
    before = calibration.reliability(expit(3 * logits), labels).ece
    after = calibration.reliability(mended, labels).ece
    assert before > 0.1
    assert after < 0.03
    # Beyond 1 - 1e-7 scores are cut off and tie.
    assert (np.diff(mended[np.argsort(logits)]) >= 0).all()


def test_without_examples_the_error_is_undefined():
    assert np.isnan(calibration.reliability(np.array([]), np.array([])).ece)
