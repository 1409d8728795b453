"""The detector as a scikit-learn estimator. Sign: higher = more normal."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from eqm.checks import check_shape
from eqm.models import from_pretrained
from eqm.sampling.model import describe
from eqm.tasks.calibration import FEWEST
from eqm.tasks.detect import EqmDetector

try:
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("EqmOutlierDetector needs scikit-learn: pip install 'eqm[demo]'") from error


class EqmOutlierDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """An `EqmDetector` for scikit-learn's pipelines, searches and scores.

    It takes arrays (n_samples, n_features), rows of pixels in -1..1, and reshapes each row to
    `shape`, by default the model's. The sign is scikit-learn's, the opposite of `EqmDetector`'s:
    `score_samples` and `decision_function` are higher for normal rows; `predict` returns 1 for normal
    rows and -1 for outliers.

    `field` is a field, or the name or folder of a trained model. The other parameters are those of
    `EqmDetector`, with other names for two: `scores` for `score`, and `calibration_contamination` for
    `contamination`, by which scikit-learn means the share of outliers to predict. `detector_` is the
    calibrated detector. `fit` warns with `CalibrationWarning`, as that of `EqmDetector` does.
    """

    def __init__(
        self,
        field: Any = "fashion-mnist",
        *,
        shape: tuple[int, ...] | None = None,
        scores: str | tuple[str, ...] = "combined",
        fpr: float = 0.05,
        config: Any = None,
        batch_size: int = 256,
        calibration_contamination: float = 0.0,
    ) -> None:
        self.field = field
        self.shape = shape
        self.scores = scores
        self.fpr = fpr
        self.config = config
        self.batch_size = batch_size
        self.calibration_contamination = calibration_contamination

    def fit(self, X: Any, y: Any = None) -> Self:
        """The estimator itself, calibrated on normal rows (N, D); `y` is ignored.

        Raises ValueError as `EqmDetector.fit` does, and if there are too few rows for the rate `fpr`.
        """
        X = validate_data(self, X, dtype=np.float32, ensure_min_samples=FEWEST)
        field = from_pretrained(self.field) if isinstance(self.field, str) else self.field
        detector = EqmDetector(
            field,
            self.scores,
            self.fpr,
            self.config,
            self.batch_size,
            contamination=self.calibration_contamination,
        )
        self.detector_ = detector.fit(self._images(X, field))
        self.offset_ = -self.detector_.threshold()
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """How normal each row is, (N,): minus the score of `EqmDetector`."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return -self.detector_.score_samples(self._images(X, self.detector_.field)).numpy()

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` minus `offset_`, (N,): below 0 for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """1 for normal rows and -1 for outliers, (N,)."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def _images(self, rows: np.ndarray, field: Any) -> Tensor:
        if self.shape is not None:
            check_shape(self.shape)
        shape = tuple(self.shape or describe(field).shape or rows.shape[1:])
        if rows.shape[1] != math.prod(shape):
            raise ValueError(
                f"rows must have {math.prod(shape)} numbers, an image of shape {shape}; "
                f"got {rows.shape[1]}: flatten images of the model's size"
            )
        return torch.from_numpy(np.array(rows)).view(-1, *shape)
