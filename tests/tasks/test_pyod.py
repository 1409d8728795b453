"""The detector with PyOD's conventions."""

import numpy as np
import pytest
from sklearn.base import clone

from eqm.tasks.pyod import EqM


@pytest.fixture(scope="module")
def fitted():
    rows = np.random.default_rng(0).normal(size=(100, 3))
    rows[:10] += 8
    return EqM(0.1, steps=10).fit(rows), rows


def test_scores_labels_and_threshold_are_pyods(fitted):
    detector, rows = fitted
    assert np.array_equal(detector.decision_scores_, detector.decision_function(rows))
    assert detector.labels_.sum() == 10
    assert detector.labels_[:10].all()  # higher = more anomalous
    assert detector.threshold_ == np.percentile(detector.decision_scores_, 90)
    assert np.array_equal(detector.predict(rows), detector.labels_)
    assert np.array_equal(clone(detector).fit_predict(rows), detector.labels_)


@pytest.mark.parametrize("method", ["linear", "unify"])
def test_probabilities_rise_with_the_score(fitted, method):
    detector, rows = fitted
    found, confidence = detector.predict_proba(rows, method=method, return_confidence=True)
    assert found.shape == (100, 2)
    assert np.allclose(found.sum(1), 1)
    assert (np.diff(found[detector.decision_scores_.argsort(), 1]) >= 0).all()
    assert ((confidence >= 0) & (confidence <= 1)).all()
    with pytest.raises(ValueError, match="linear"):
        detector.predict_proba(rows, method="other")


def test_it_is_what_pyod_computes(fitted):
    base = pytest.importorskip("pyod.models.base")
    detector, rows = fitted
    given = {"fit": None, "decision_function": staticmethod(detector.decision_function)}
    other = type("Other", (base.BaseDetector,), {**given, "__init__": lambda self: None})()
    other.contamination, other.decision_scores_ = 0.1, detector.decision_scores_
    other._set_n_classes(None)
    other._process_decision_scores()
    assert other.threshold_ == detector.threshold_
    assert np.array_equal(other.predict(rows), detector.predict(rows))
    for method in ("linear", "unify"):
        assert np.allclose(
            other.predict_proba(rows, method=method), detector.predict_proba(rows, method=method)
        )
    assert np.allclose(other.predict_confidence(rows), detector.predict_confidence(rows))


def test_the_share_must_be_told(fitted):
    with pytest.raises(ValueError, match="contamination must be above 0"):
        EqM(0.0).fit(fitted[1])
