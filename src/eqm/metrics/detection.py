"""How well a score tells anomalous samples from normal ones."""

from __future__ import annotations

import torch
from torch import Tensor


def auroc(normal_scores: Tensor, anomalous_scores: Tensor) -> float:
    """Returns the area under the ROC curve of a score that is higher for the more anomalous.

    P(anomalous > normal) + P(anomalous = normal) / 2, over all pairs: 1 where every anomalous
    sample scores above every normal one, 0.5 by chance, 0 where the sign of the score is wrong
    (scikit-learn's detectors score inliers higher: negate them). Scores have shapes (N,) and (M,)
    and may be infinite, as those of diverged samples are.

    Raises ValueError for a NaN score, an empty set, or another shape.

    >>> auroc(torch.tensor([0.1, 0.2]), torch.tensor([0.2, 0.9]))
    0.875
    """
    normal = _checked(normal_scores, "normal_scores").sort().values
    anomalous = _checked(anomalous_scores, "anomalous_scores")
    below = torch.searchsorted(normal, anomalous, right=False)
    not_above = torch.searchsorted(normal, anomalous, right=True)
    return float((below + not_above).sum()) / (2 * len(normal) * len(anomalous))


def _checked(scores: Tensor, name: str) -> Tensor:
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(
            f"{name} must have shape (N,), one value a sample, N at least 1; got "
            f"{tuple(scores.shape)}: pass one number a sample"
        )
    missing = int(scores.isnan().sum())
    if missing:
        raise ValueError(
            f"{name} must not be NaN; got {missing} of {len(scores)}: "
            "drop those samples or score them as infinity"
        )
    return scores.detach().to("cpu", torch.float64)
