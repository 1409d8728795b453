"""How well a score separates anomalous samples from normal ones."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from eqm.checks import as_floats, check_choice, check_ratio


def auroc(normal_scores: Tensor, anomalous_scores: Tensor) -> float:
    """Returns the area under the ROC curve of a score, higher = more anomalous.

    P(anomalous > normal) + P(anomalous = normal) / 2, over all pairs. It is 1 if every anomalous sample
    scores above every normal one, 0.5 by chance, and 0 if the sign of the score is wrong: scikit-learn's
    detectors score inliers higher, so negate them. Scores have shapes (N,) and (M,) and may be
    infinite, like those of diverged samples.

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

    For each positive sample, take the precision among all samples that score at least as high; this is
    the mean (scikit-learn's average_precision_score). With anomalous positives it is also called
    AUPR-out; with `positive="normal"`, which reverses the order, AUPR-in. A random score gets the
    fraction of positives, so unlike `auroc` it depends on the sizes of the sets.

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
    """Returns the false positive rate at the threshold with true positive rate `tpr`; lower is better.

    FPR95 has two meanings. Here, as in most of the out-of-distribution literature (ODIN, OpenOOD),
    normal samples are the positives: it is the fraction of anomalies that pass if 95 % of the normal
    samples pass. With `positive="anomalous"` it is the fraction of false alarms if 95 % of the anomalies
    are found (pytorch-ood). The threshold is the strictest one that reaches `tpr`.

    Raises ValueError as `auroc` does, for a `tpr` outside (0, 1], and for another `positive`.

    >>> fpr_at_tpr(torch.tensor([0.1, 0.2]), torch.tensor([0.2, 0.9]))
    0.5
    """
    check_ratio(tpr=tpr)
    found, others = _positives(normal_scores, anomalous_scores, positive)
    needed = math.ceil(round(tpr * len(found), 9))
    return float((others >= found[len(found) - needed]).double().mean())


def _positives(
    normal_scores: Tensor, anomalous_scores: Tensor, positive: str
) -> tuple[Tensor, Tensor]:
    """Sorted scores of positives and negatives, with the sign that makes positives score higher."""
    normal = _checked(normal_scores, "normal_scores")
    anomalous = _checked(anomalous_scores, "anomalous_scores")
    check_choice(("anomalous", "normal"), positive=positive)
    pair = (anomalous, normal) if positive == "anomalous" else (-normal, -anomalous)
    return pair[0].sort().values, pair[1].sort().values


def _checked(scores: Tensor, name: str) -> Tensor:
    scores = as_floats("(N,)", **{name: scores})
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(
            f"{name} must have shape (N,) with N at least 1; got {tuple(scores.shape)}: pass one score "
            "per sample"
        )
    missing = int(scores.isnan().sum())
    if missing:
        raise ValueError(
            f"{name} must not be NaN; got {missing} of {len(scores)}: "
            "drop those samples or give them an infinite score"
        )
    return scores.detach().to("cpu", torch.float64)
