"""The detectors as a scikit-learn estimator. Sign: higher = more normal."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from eqm.checks import check_count, check_fraction, check_shape
from eqm.models import from_pretrained
from eqm.sampling.model import describe
from eqm.tasks.calibration import FEWEST, CalibrationWarning, check_rate
from eqm.tasks.detect import EqmDetector
from eqm.tasks.experts import STEPS
from eqm.tasks.tables import TableDetector

try:
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils import Tags, check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("EqmOutlierDetector needs scikit-learn: pip install 'eqm[demo]'") from error

LARGEST = 1e100
"""Numbers in a table are at most so large."""
_KEPT = ("fpr", "contamination", "steps", "random_state")
"""The parameters that are saved with a detector of tables."""


class EqmOutlierDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Finds odd rows of a table, or odd pictures with a trained field, as scikit-learn does.

    The sign is scikit-learn's, the opposite of `EqmDetector`'s: `score_samples` and `decision_function`
    are higher for normal rows; `predict` returns 1 for normal rows and -1 for outliers.

    **Tables.** Without a `field`, `fit` trains small fields on the rows (n_samples, n_features) of a
    table, in some seconds. Columns are scaled, and a missing value (NaN) counts as the median or the mean
    of its column. `fit` expects mostly normal rows. Of more than 10,000 rows it learns a random
    choice. `predict` marks a share `fpr` of new normal rows as outliers. With `contamination`, the share
    of outliers among the rows given to `fit`, it marks that share of them instead. Then `fit` learns
    briefly, so that it does not learn the outliers. `steps` is the number of training steps of each
    field. The same `random_state` gives the same detector.

    **Pictures and other samples.** `field` is a field, or the name or folder of a trained model. Rows of
    pixels in -1..1 are reshaped to `shape`, by default the model's. `shape`, `scores`, `config`,
    `batch_size` and `calibration_contamination` are for this use only, and are those of
    `EqmDetector`, with other names for two: `scores` for `score`, and `calibration_contamination` for
    `contamination`.

    `detector_` is the calibrated detector. `fit` warns with `CalibrationWarning`, as that of
    `EqmDetector` does.

    >>> rows = np.random.default_rng(0).normal(size=(200, 4))
    >>> outliers = EqmOutlierDetector(steps=20).fit(rows)
    >>> outliers.predict([[0, 0, 0, 0], [9, 9, -9, 9]])
    array([ 1, -1])
    """

    def __init__(
        self,
        field: Any = None,
        *,
        shape: tuple[int, ...] | None = None,
        scores: str | tuple[str, ...] = "combined",
        fpr: float = 0.05,
        config: Any = None,
        batch_size: int = 256,
        calibration_contamination: float = 0.0,
        contamination: float | None = None,
        steps: int = STEPS,
        random_state: Any = 0,
    ) -> None:
        self.field = field
        self.shape = shape
        self.scores = scores
        self.fpr = fpr
        self.config = config
        self.batch_size = batch_size
        self.calibration_contamination = calibration_contamination
        self.contamination = contamination
        self.steps = steps
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """The estimator itself, fitted to rows (N, D), most of them normal; `y` is ignored.

        Raises ValueError as `EqmDetector.fit` does, for columns that are not numbers, for infinity, for
        fewer than four rows, and with a field for too few rows for the rate `fpr`.
        """
        if self.contamination is not None:
            check_fraction(0.5, contamination=self.contamination)
        check_rate(self.fpr)
        X = self._rows(X, reset=True)
        if self.field is None:
            check_count(steps=self.steps)
            seed = int(check_random_state(self.random_state).randint(2**31))
            table = TableDetector.of(
                X, steps=self.steps, seed=seed, contamination=float(self.contamination or 0)
            )
            self.detector_: TableDetector | EqmDetector = table
            if self.contamination is None:
                self.offset_ = -self._threshold(table.calibration.scores)
            else:
                self.offset_ = -float(table.scores.quantile(1 - self.contamination))
            return self
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
        self.offset_ = -detector.threshold()
        if self.contamination is not None:
            self.offset_ = float(np.quantile(self.score_samples(X), self.contamination))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """How normal each row is, (N,): minus the score of `detector_`."""
        check_is_fitted(self)
        return -self._scores(self._rows(X)).numpy()

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` minus `offset_`, (N,): below 0 for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """1 for normal rows and -1 for outliers, (N,)."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def p_values(self, X: Any) -> np.ndarray:
        """The conformal p-value of each row, (N,), from 1/(n+1) to 1: low = anomalous.

        Of new normal rows about a share p has a p-value of p or less (`EqmDetector.p_values`)."""
        check_is_fitted(self)
        return self.detector_.p_values_of(self._scores(self._rows(X))).numpy()

    def attributions(self, X: Any) -> np.ndarray:
        """How odd each value of a table is, (N, D): 1 = as in the rows given to `fit`.

        Raises ValueError for a detector with a field."""
        check_is_fitted(self)
        return self._table("attributions").attributions(self._rows(X)).numpy()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Returns nothing; writes outliers.json and outliers.safetensors into `folder`, which is new, empty
        or of such a detector.

        Raises ValueError for another folder and for a detector with a field; OSError if it cannot be
        written."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        kept = {name: getattr(self, name) for name in _KEPT}
        if not isinstance(kept["random_state"], int | None):
            kept["random_state"] = None
        fitted = {"offset": self.offset_, "names": None if names is None else names.tolist()}
        self._table("save").save(folder, {**kept, **fitted})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """The estimator of tables saved in `folder`. Raises ValueError if there is none, or it is damaged."""
        detector, kept = TableDetector.load(folder)
        offset, names = kept.pop("offset"), kept.pop("names")
        estimator = cls(**kept)
        estimator.detector_, estimator.offset_ = detector, offset
        estimator.n_features_in_ = len(detector.columns.middle)
        if names is not None:
            estimator.feature_names_in_ = np.array(names, dtype=object)
        return estimator

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.field is None
        return tags

    def _rows(self, X: Any, *, reset: bool = False) -> np.ndarray:
        """X, checked, as rows (N, D)."""
        table = self.field is None
        settings: Any = {"dtype": np.float64 if table else np.float32, "reset": reset}
        if table:
            settings["ensure_all_finite"] = "allow-nan"
        try:
            rows = validate_data(self, X, ensure_min_samples=FEWEST if reset else 1, **settings)
        except ValueError as error:
            reason = " ".join(str(error).partition("\n[")[0].split())  # without the values
            text = "could not convert" in reason
            raise ValueError(_text_in(X, reason) if text else reason) from error
        if table and (np.abs(rows) > LARGEST).any():
            raise ValueError(f"numbers in a table must be at most {LARGEST:g}; got larger ones")
        return rows

    def _scores(self, rows: np.ndarray) -> Tensor:
        if isinstance(self.detector_, TableDetector):
            return self.detector_.score_samples(rows)
        return self.detector_.score_samples(self._images(rows, self.detector_.field))

    def _threshold(self, scores: Tensor) -> float:
        """The score of outliers at the rate `fpr`, from the scores of normal rows, sorted."""
        allowed = math.floor(round(self.fpr * (len(scores) + 1), 9))
        if allowed < 1:
            needed = math.ceil(round(1 / self.fpr, 9)) - 1
            warnings.warn(
                f"a false positive rate of {self.fpr:g} needs {needed:,} rows; got {len(scores):,}, so the "
                f"rate is {1 / (len(scores) + 1):.2g}: fit to more rows, or allow a higher fpr",
                CalibrationWarning,
                stacklevel=3,
            )
        return float(scores[-max(min(allowed, len(scores)), 1)])

    def _table(self, what: str) -> TableDetector:
        if not isinstance(self.detector_, TableDetector):
            raise ValueError(
                f"{what} is for tables, and this estimator has a field: use its detector_, an EqmDetector"
            )
        return self.detector_

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


def _text_in(X: Any, reason: str) -> str:
    """The sentence that names the first column of X with text."""
    names = getattr(X, "column_names", getattr(X, "columns", None))  # of pyarrow, of pandas
    for number, column in enumerate(np.asarray(X, dtype=object).T):
        for value in column:
            try:
                float(value)
            except (TypeError, ValueError):
                name = f"column {number}" if names is None else f"column {str(names[number])!r}"
                return (
                    f"{name} must hold numbers; got {str(value)[:40]!r}: encode text as numbers first, "
                    "for example with scikit-learn's OneHotEncoder"
                )
    return reason
