"""The detector of tables with PyOD's conventions. Sign: higher = more anomalous."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.special import erf
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from eqm.checks import check_fraction
from eqm.tasks.estimator import EqmOutlierDetector
from eqm.tasks.experts import STEPS


class EqM(BaseEstimator):  # type: ignore[misc]
    """Finds odd rows of a table as the detectors of PyOD do; PyOD itself is not needed.

    `contamination` is the share of outliers among the rows given to `fit`, above 0 and at most 0.5. `steps` and
    `random_state` are those of `EqmOutlierDetector`, which does the work and is `detector_`. After `fit`:

    * `decision_scores_`: the scores of the rows given to `fit`, (N,).
    * `threshold_`: the score that the share `contamination` of them exceeds.
    * `labels_`: 1 for the rows above it, 0 for the others, (N,).

    >>> rows = np.random.default_rng(0).normal(size=(200, 4))
    >>> EqM(steps=20).fit(rows).predict([[0, 0, 0, 0], [9, 9, -9, 9]])
    array([0, 1])
    """

    def __init__(
        self, contamination: float = 0.1, *, steps: int = STEPS, random_state: Any = 0
    ) -> None:
        self.contamination = contamination
        self.steps = steps
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """The detector itself, fitted to rows (N, D); `y` is ignored. Raises as `EqmOutlierDetector.fit`."""
        check_fraction(0.5, contamination=self.contamination)
        if not self.contamination:
            raise ValueError("contamination must be above 0; got 0: PyOD's default is 0.1")
        self.detector_ = EqmOutlierDetector(
            contamination=self.contamination, steps=self.steps, random_state=self.random_state
        ).fit(X)
        self.n_features_in_ = self.detector_.n_features_in_
        self.decision_scores_ = self.decision_function(X)
        self.threshold_ = float(np.quantile(self.decision_scores_, 1 - self.contamination))
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        self._classes = 2  # PyOD's combinations of detectors ask for it
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """The score of each row, (N,): higher = more anomalous."""
        check_is_fitted(self, "detector_")
        return -self.detector_.score_samples(X)

    def predict(self, X: Any, return_confidence: bool = False) -> Any:
        """1 for outliers and 0 for other rows, (N,); with `return_confidence` also `predict_confidence`."""
        scores = self.decision_function(X)
        labels = (scores > self.threshold_).astype(int)
        return (labels, self._confidence(scores)) if return_confidence else labels

    def predict_proba(self, X: Any, method: str = "linear", return_confidence: bool = False) -> Any:
        """The probabilities of a normal row and of an outlier, (N, 2), as PyOD computes them.

        `linear`: the score between the least and the largest of `decision_scores_`. `unify`: the error function
        of the standardised score (Kriegel et al. 2011). These are no p-values: for those see
        `detector_.p_values`. Raises ValueError for another method."""
        scores, known = self.decision_function(X), self.decision_scores_
        if method == "linear":
            width = float(np.ptp(known)) or 1.0
            odd = np.clip((scores - known.min()) / width, 0, 1)
        elif method == "unify":
            spread = float(known.std()) or 1.0
            odd = np.clip(erf((scores - known.mean()) / (spread * 2**0.5)), 0, 1)
        else:
            raise ValueError(f"method must be 'linear' or 'unify'; got {method!r}")
        found = np.column_stack([1 - odd, odd])
        return (found, self._confidence(scores)) if return_confidence else found

    def predict_confidence(self, X: Any) -> np.ndarray:
        """How sure `predict` is of each row, (N,) in 0..1 (Perini et al., ECML 2020)."""
        return self._confidence(self.decision_function(X))

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """`labels_` after `fit`; `y` is ignored."""
        return self.fit(X).labels_

    def _confidence(self, scores: np.ndarray) -> np.ndarray:
        from scipy.stats import binom

        known = np.sort(self.decision_scores_)
        count = len(known)
        below = np.searchsorted(known, scores, "right")
        odd = 1 - binom.cdf(
            count - int(count * self.contamination), count, (1 + below) / (2 + count)
        )
        return np.where(scores > self.threshold_, odd, 1 - odd)
