"""How well a score tells anomalous samples from normal ones."""

from __future__ import annotations

import math
from typing import Literal

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


def average_precision(
    normal_scores: Tensor,
    anomalous_scores: Tensor,
    *,
    positive: Literal["anomalous", "normal"] = "anomalous",
) -> float:
    """Returns the area under the precision-recall curve of a score, higher = more anomalous.

    The mean, over the positive samples, of the precision among all that score at least as they do
    (scikit-learn's average_precision_score). With anomalous positives it is known as AUPR-out, with
    `positive="normal"`, whose order is reversed, as AUPR-in. By chance it is the share of positives
    in the sets given: unlike `auroc` it depends on their sizes.

    Raises ValueError as `auroc` does, and for another `positive`.

    >>> average_precision(torch.tensor([0.1, 0.5]), torch.tensor([0.2, 0.9]))
    0.833...
    """
    found, others = _positives(normal_scores, anomalous_scores, positive)
    right = len(found) - torch.searchsorted(found, found)
    wrong = len(others) - torch.searchsorted(others, found)
    return float((right / (right + wrong).double()).mean())


def fpr_at_tpr(
    normal_scores: Tensor,
    anomalous_scores: Tensor,
    *,
    tpr: float = 0.95,
    positive: Literal["anomalous", "normal"] = "normal",
) -> float:
    """Returns the share of negatives taken for positives where a share `tpr` of positives is found.

    FPR95 has two meanings. Here and in most of the out-of-distribution literature (ODIN, OpenOOD)
    normal samples are the positives: the share of anomalies that pass where 95 % of the normal
    samples do. With `positive="anomalous"` it is the share of false alarms where 95 % of the
    anomalies are found (pytorch-ood). Lower is better; the threshold is the strictest that finds as
    many.

    Raises ValueError as `auroc` does, for a `tpr` outside (0, 1], and for another `positive`.

    >>> fpr_at_tpr(torch.tensor([0.1, 0.2]), torch.tensor([0.2, 0.9]))
    0.5
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must lie in (0, 1]; got {tpr}: 0.95 is usual")
    found, others = _positives(normal_scores, anomalous_scores, positive)
    needed = math.ceil(round(tpr * len(found), 9))
    return float((others >= found[len(found) - needed]).double().mean())


def _positives(
    normal_scores: Tensor, anomalous_scores: Tensor, positive: str
) -> tuple[Tensor, Tensor]:
    """Scores of positives and of negatives, rising, turned so that positives score higher."""
    normal = _checked(normal_scores, "normal_scores")
    anomalous = _checked(anomalous_scores, "anomalous_scores")
    if positive not in ("anomalous", "normal"):
        raise ValueError(f"positive must be anomalous or normal; got {positive!r}")
    pair = (anomalous, normal) if positive == "anomalous" else (-normal, -anomalous)
    return pair[0].sort().values, pair[1].sort().values


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
