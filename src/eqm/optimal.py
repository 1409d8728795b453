"""The field that perfect training would find for a finite data set, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eqm.corruption import Decay, TruncatedDecay


class OptimalField:
    """The minimiser of the equilibrium matching loss for data (N, ...), each equally likely.

    f*(z) = E[ c(gamma) / (1 - gamma) * (z - x_i) | x_gamma = z ], over the posterior of sample i
    and gamma, which is proportional to (1 - gamma)^-d exp(-||z - gamma x_i||^2 / (2 (1 - gamma)^2))
    for gamma uniform: a softmax over the data and a quadrature over gamma. Follows from Eq. 3 of
    arXiv 2510.02300 by conditioning; no training is involved.

    With `labels` (N,) the field is conditional: it may be called with labels, and then sees only
    the data that have them. `nodes`, an odd number, is that of the Simpson quadrature, evenly
    spaced in log(1 - gamma) down to `floor`; the posterior of gamma is about 1 / sqrt(2 d) wide on
    that scale, so 513 suffice up to some thousand dimensions. Work is float64 inside; a call holds
    N x nodes numbers.

    Raises ValueError for empty or non-finite data, labels that do not fit, an even number of nodes.

    >>> field = OptimalField(torch.tensor([[1.0, 1.0]]))
    >>> field(torch.tensor([[1.0, 1.0]]), None)
    tensor([[0., 0.]])
    """

    def __init__(
        self,
        data: Tensor,
        decay: Decay | None = None,
        *,
        labels: Tensor | None = None,
        nodes: int = 513,
        floor: float = 1e-4,
    ) -> None:
        if len(data) == 0 or not torch.isfinite(data).all():
            raise ValueError(f"data must be finite and not empty; got shape {tuple(data.shape)}")
        if labels is not None and labels.shape != data.shape[:1]:
            raise ValueError(
                f"labels must have shape ({len(data)},), one a sample; got {tuple(labels.shape)}"
            )
        if nodes < 3 or nodes % 2 == 0:
            raise ValueError(f"nodes must be an odd number from 3; got {nodes}")
        if not 0 < floor < 1:
            raise ValueError(f"floor, the least 1 - gamma, must lie in (0, 1); got {floor}")
        self.shape, self.labels = data.shape[1:], labels
        self.data = data.flatten(1).double()  # (N, D)
        noise_share = torch.logspace(
            0, math.log10(floor), nodes, dtype=torch.float64, device=data.device
        )  # 1 - gamma
        self.gamma = 1 - noise_share  # (Q,)
        self.pull = (decay or TruncatedDecay())(self.gamma) / noise_share
        simpson = torch.ones_like(self.gamma)
        simpson[1:-1:2], simpson[2:-1:2] = 4, 2
        # d gamma = (1 - gamma) d log(1 - gamma): one power of the noise share less in the
        # posterior's weight
        self.log_weight = (1 - self.data.shape[1]) * noise_share.log() + simpson.log()
        self.precision = noise_share**-2

    def __call__(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The gradient at x (B, ...), same shape; labels (B,) choose among data that have labels.

        Raises ValueError when x has another shape than the data, or labels are given that the data
        do not have.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"x must have shape (B, {', '.join(map(str, self.shape))}); got {tuple(x.shape)}"
            )
        if labels is not None and self.labels is None:
            raise ValueError(
                "labels were given to the optimal field of unlabelled data: pass labels=None, or build it with labels"
            )
        rows = x.flatten(1).double()
        chosen = [None] * len(rows) if labels is None else labels.tolist()
        gradient = [self._row(row, label) for row, label in zip(rows, chosen, strict=True)]
        return torch.stack(gradient).view(x.shape).to(x.dtype) if gradient else torch.zeros_like(x)

    def _row(self, z: Tensor, label: int | None) -> Tensor:
        data = (
            self.data if label is None or self.labels is None else self.data[self.labels == label]
        )
        if len(data) == 0:
            raise ValueError(f"no data have label {label}")
        # ||z - gamma x||^2, expanded so that nothing of size N x Q x D is ever made
        distance = z.square().sum() - 2 * torch.outer(data @ z, self.gamma)
        distance = distance + torch.outer(data.square().sum(1), self.gamma.square())  # (N, Q)
        log_posterior = self.log_weight - distance * self.precision / 2
        posterior = log_posterior.flatten().softmax(0).view_as(log_posterior)
        share = posterior @ self.pull  # (N,)
        return share.sum() * z - share @ data
