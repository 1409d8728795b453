"""Couplings of noise and data: which noise of a batch goes with which sample.

A coupling is a function `couple(data, noise, uniform)` of samples (B, D), noise (B, D) and uniform numbers (B,).
It returns the row of the noise for each sample (B,), on any device. It must not use other random numbers, so that
a run resumes exactly. Independent noise has no function: the noise stays as it was drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eqm.checks import check_alike, check_count, check_positive, kind_of
from eqm.registry import make, register

if TYPE_CHECKING:
    from torch import Tensor

Coupling = Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]
INDEPENDENT = "independent"


@register("coupling", INDEPENDENT)
def independent(data: Tensor, noise: Tensor, uniform: Tensor) -> Tensor:
    """Noise that knows nothing of the data, as in the paper."""
    import torch

    return torch.arange(len(data), device=data.device)


@register("coupling", "optimal")
def optimal(data: Tensor, noise: Tensor, uniform: Tensor) -> Tensor:
    """The permutation with the least sum of squared distances: optimal transport within the batch.

    Exact, by `scipy.optimize.linear_sum_assignment`; its time grows with the cube of B. Of equal best ones it
    takes the same each time. Raises ValueError if scipy is not installed.
    """
    import torch

    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ValueError("the coupling optimal needs scipy: pip install scipy") from error
    _, columns = linear_sum_assignment(_costs(data, noise).double().cpu().numpy())
    return torch.as_tensor(columns, device=data.device)


@register("coupling", "sinkhorn")
@dataclass(frozen=True)
class Sinkhorn:
    """Rows drawn from the entropic transport plan, for batches too large for `optimal`.

    `regularisation` is the entropy's weight as a share of the mean squared distance: small is near to `optimal`,
    large to independent noise. One noise may go with several samples. Runs on the device of the data; its
    memory is B^2 numbers. Sinkhorn's algorithm in the log domain.
    """

    regularisation: float = 0.02
    iterations: int = 100

    def __post_init__(self) -> None:
        check_positive(regularisation=self.regularisation)
        check_count(iterations=self.iterations)

    def __call__(self, data: Tensor, noise: Tensor, uniform: Tensor) -> Tensor:
        import torch

        costs = _costs(data, noise)
        costs = costs - costs.amin(1, keepdim=True)
        kernel = -costs / (
            self.regularisation * costs.mean().clamp(min=1e-30)
        )  # (B, B), logarithms
        right = kernel.new_zeros(len(kernel))
        for _ in range(self.iterations):
            left = -(kernel + right).logsumexp(1)
            right = -(kernel + left[:, None]).logsumexp(0)
        below = (kernel + right).softmax(1).cumsum(1)  # each row of the plan, given its sample
        place = uniform[:, None].to(below) * below[:, -1:]
        return torch.searchsorted(below, place, right=True)[:, 0].clamp(max=len(noise) - 1)


def couple(
    coupling: Coupling,
    data: Tensor,
    noise: Tensor,
    uniform: Tensor,
    *,
    labels: Tensor | None = None,
) -> Tensor:
    """The noise (B, ...) in the order of the samples `data` (B, ...).

    With `labels` (B,) each class is coupled by itself. Raises ValueError if noise and data differ in shape, and
    for a coupling that does not return B rows.

    >>> import torch
    >>> data, noise = torch.tensor([[0.0], [5.0]]), torch.tensor([[4.0], [1.0]])
    >>> couple(optimal, data, noise, torch.rand(2))
    tensor([[1.],
            [4.]])
    """
    import torch

    check_alike(data=data, noise=noise)
    x, y = data.flatten(1), noise.flatten(1)
    rows = torch.arange(len(x), device=x.device)
    if labels is not None and labels.ndim == 2:  # equal sentences
        labels = labels.unique(dim=0, return_inverse=True)[1]
    groups = [rows] if labels is None else [rows[labels == label] for label in labels.unique()]
    chosen = rows.clone()
    for group in groups:
        found: Any = coupling(x[group], y[group], uniform[group])
        if (
            not isinstance(found, torch.Tensor)
            or found.dtype != torch.int64
            or found.shape != group.shape
        ):
            raise ValueError(
                "a coupling must return the row of the noise for each sample, int64 (B,); got "
                f"{kind_of(found)} for {len(group)} samples"
            )
        chosen[group] = group[found.to(group.device)]
    return noise[chosen]


def coupling_of(name: str, options: Any = ()) -> Coupling | None:
    """The coupling registered as `name` with its settings; None for independent noise. Raises ValueError for
    an unknown name or setting."""
    found: Coupling = make("coupling", name, {}, options)
    return None if name == INDEPENDENT else found


def _costs(data: Tensor, noise: Tensor) -> Tensor:
    """Squared distances (B, B), float32."""
    import torch

    return torch.cdist(data.float(), noise.float()).square().nan_to_num()
