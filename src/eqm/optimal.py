"""The optimal field of a finite data set, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eqm.checks import check_batch, check_count, check_decay, check_fraction, check_positive
from eqm.corruption import Decay, TruncatedDecay
from eqm.gammas import Distribution, Uniform, as_distribution


class OptimalField:
    """The exact minimiser of the equilibrium matching loss for data (N, ...); no training is needed.

    f*(z) = E[ c(gamma) / (1 - gamma) * (z - x_i) | x_gamma = z ]

    The posterior of sample i and gamma is proportional to
    p(gamma) (1 - gamma)^-d exp(-||z - gamma x_i||^2 / (2 (1 - gamma)^2)): a softmax over the data and an
    integral over gamma. p is the density of `distribution` (`eqm.gammas`), by default uniform. It
    follows from Eq. 3 of arXiv 2510.02300.

    With `labels` (N,) the field is conditional: called with labels, it uses only the data of that
    label. `nodes`, an odd number, are the points of Simpson's rule, evenly spaced in log(1 - gamma)
    from 1 to `floor`. The posterior is about 1 / sqrt(2 d) wide on that scale, so 513 points are enough
    for some thousand dimensions. Computes in float64; a call holds N x nodes numbers.

    Raises ValueError for empty or non-finite data, labels of another shape, an even number of nodes,
    and a floor outside (0, 1).

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
        distribution: Distribution = Uniform(),
        nodes: int = 513,
        floor: float = 1e-4,
    ) -> None:
        check_batch(labels, "(N, ...)", data=data)
        check_count(nodes=nodes)
        check_positive(floor=floor)
        check_fraction(floor=floor)
        decay = TruncatedDecay() if decay is None else decay
        check_decay(decay)
        if len(data) == 0 or not torch.isfinite(data).all():
            raise ValueError(f"data must be finite and not empty; got shape {tuple(data.shape)}")
        if nodes < 3 or nodes % 2 == 0:
            raise ValueError(f"nodes must be an odd number, at least 3; got {nodes}")
        self.shape, self.labels = data.shape[1:], labels
        self.data = data.flatten(1).double()  # (N, D)
        noise_level = torch.logspace(
            0, math.log10(floor), nodes, dtype=torch.float64, device=data.device
        )  # 1 - gamma
        self.gamma = 1 - noise_level  # (Q,)
        self.pull = decay(self.gamma) / noise_level
        simpson = torch.ones_like(self.gamma)
        simpson[1:-1:2], simpson[2:-1:2] = 4, 2
        # d gamma = (1 - gamma) d log(1 - gamma) adds one power to the posterior's weight
        self.log_weight = (1 - self.data.shape[1]) * noise_level.log() + simpson.log()
        self.log_weight += as_distribution(distribution).density(self.gamma).log()
        self.precision = noise_level**-2

    def __call__(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The gradient at x (B, ...), the same shape; labels (B,) select the data to use.

        Raises ValueError if x has another shape than the data, and for labels that the data do not have.
        """
        if labels is not None and self.labels is None:
            raise ValueError(
                "this field has no labels: pass labels=None, or build OptimalField with labels"
            )
        check_batch(labels, x=x)
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"x must have shape (B, {', '.join(map(str, self.shape))}); got {tuple(x.shape)}"
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
        # ||z - gamma x||^2, expanded to avoid a tensor of size N x Q x D
        distance = z.square().sum() - 2 * torch.outer(data @ z, self.gamma)
        distance = distance + torch.outer(data.square().sum(1), self.gamma.square())  # (N, Q)
        log_posterior = self.log_weight - distance * self.precision / 2
        posterior = log_posterior.flatten().softmax(0).view_as(log_posterior)
        weight = posterior @ self.pull  # (N,)
        return weight.sum() * z - weight @ data
