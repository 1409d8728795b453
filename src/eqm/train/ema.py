"""Averages of the weights (EMA), updated during training or made afterwards.

A power-function average (arXiv 2312.02696) after t images gives the weights of time tau the factor
(gamma + 1) tau^gamma / t^(gamma + 1). Its relative width sigma_rel is the standard deviation of this
profile, divided by t. From snapshots of one or two averages, an average of any other width is found
by least squares.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from eqm.files import replacing
from eqm.models.pretrained import clean_name
from eqm.reading import open_regular
from eqm.tensor_files import open_tensors
from eqm.train.config import MAX_SIGMA_REL, MIN_SIGMA_REL, OptimizerConfig
from eqm.train.distributed import whole

FOLDER = "averages"
"""The folder of the snapshots, in the folder of a run."""
SNAPSHOTS = 16
"""Snapshots per run by default."""


@torch.no_grad()
def update_average(
    average: nn.Module,
    model: nn.Module,
    *,
    images: int,
    batch: int,
    halflife: float,
    ramp: float = 0.1,
) -> None:
    """Returns nothing; moves the weights of `average` towards those of `model`.

    average <- beta average + (1 - beta) model, with beta = 2^(-batch / halflife), after `images` in
    all, `batch` of them in this step. The half-life is at most `ramp` times the images seen, unless
    `ramp` is 0 (as in the reference code of arXiv 2206.00364).
    """
    if ramp:
        halflife = min(halflife, max(ramp * images, 1))
    averages: list[Tensor] = [p for p in average.parameters() if p.requires_grad]
    weights: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    torch._foreach_lerp_(averages, weights, 1 - 0.5 ** (batch / halflife))


def exponent(sigma_rel: float) -> float:
    """The gamma of the power-function average of relative width `sigma_rel`.

    It is the largest root of sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) (equation 123
    and Algorithm 2 of arXiv 2312.02696). Raises ValueError for a width outside [0.0001, 0.289); from
    0.289 on gamma would be below 0.

    >>> round(exponent(0.05), 2), round(exponent(0.1), 2)
    (16.97, 6.94)
    """
    if not MIN_SIGMA_REL <= sigma_rel < MAX_SIGMA_REL:
        raise ValueError(
            f"sigma_rel must lie between {MIN_SIGMA_REL:g} and {MAX_SIGMA_REL:.3f}; got {sigma_rel}"
        )
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


class Averages:
    """Power-function averages of the trainable weights of a model, one for each relative width.

    average <- beta average + (1 - beta) weights, with beta = (1 - batch / images)^(gamma + 1). The
    weights after a batch get the integral of the profile over that batch, for any batch size. The
    tensors are sharded like the parameters.
    """

    def __init__(self, model: nn.Module, sigma_rels: Sequence[float] = ()) -> None:
        self.tensors: dict[float, dict[str, Tensor]] = {
            sigma_rel: {name: weight.detach().clone() for name, weight in _trainable(model).items()}
            for sigma_rel in sigma_rels
        }
        """By relative width, then by the name of the parameter."""

    @torch.no_grad()
    def update(self, model: nn.Module, *, images: int, batch: int) -> None:
        """Returns nothing; adds the weights of `model` after `images` in all, `batch` of them new."""
        weights = list(_trainable(model).values()) if self.tensors else []
        for sigma_rel, averages in self.tensors.items():
            beta = (1 - batch / images) ** (exponent(sigma_rel) + 1)
            torch._foreach_lerp_(list(averages.values()), weights, 1 - beta)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """The tensors by relative width, as text, and parameter; they share memory."""
        return {repr(sigma_rel): dict(tensors) for sigma_rel, tensors in self.tensors.items()}

    def save(self, folder: Path, *, images: int, write: bool = True) -> dict[str, str]:
        """The SHA-256 of each file by its name, after writing a snapshot of each average to `folder`.

        A snapshot is a safetensors file in float32. All processes must call this, because tensors are
        gathered; one of them has `write` True, and the others get nothing. Raises OSError if it cannot
        be written, DiskFullError if the disk is full.
        """
        failure: OSError | None = None
        written: dict[str, str] = {}
        for sigma_rel, averages in self.tensors.items():
            tensors: dict[str, Tensor] = {}
            for name, tensor in averages.items():
                gathered = whole(tensor)
                if write:
                    tensors[name] = gathered.to("cpu", torch.float32).contiguous()
            if write:
                try:
                    name = _file_name(images, sigma_rel)
                    with replacing(folder / name) as path:
                        save_file(tensors, path, metadata={"format": "pt"})
                        written[name] = sha256_of(path)
                except OSError as error:
                    failure = error
        if failure is not None:
            raise failure
        return written


def snapshots_due(settings: OptimizerConfig, *, before: int, after: int, total: int) -> int:
    """The number of snapshots of each average to save between `before` and `after` images.

    There is one at every multiple of `settings.ema_every` (if 0, of a sixteenth of `total`), and one
    at the end.
    """
    every = settings.ema_every or max(total // SNAPSHOTS, 1)
    passed = after // every - before // every
    return max(passed, int(after >= total)) if settings.ema_sigma_rel else 0


@dataclass(frozen=True)
class Snapshot:
    """A file with a power-function average after `images`."""

    path: Path
    images: int
    sigma_rel: float


def snapshots(folder: Path | str) -> list[Snapshot]:
    """The snapshots in the folder of a run or its `averages`, sorted by images and width.

    Raises ValueError if there are none.
    """
    folder = Path(folder)
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    matches = [(path, _FILE_NAME.fullmatch(path.name)) for path in folder.glob("*.safetensors")]
    found = [Snapshot(path, int(m["images"]), float(m["width"])) for path, m in matches if m]
    if not found:
        raise ValueError(
            f"{folder} holds no snapshots of averages: "
            "train with --optimizer.ema-sigma-rel 0.05 0.1"
        )
    return sorted(found, key=lambda snapshot: (snapshot.images, snapshot.sigma_rel))


@dataclass(frozen=True)
class Fit:
    """A weighted sum of snapshots."""

    coefficients: tuple[float, ...]
    """One per snapshot; their sum is 1."""
    residual: float
    """L2 distance between the wanted and the found profile, divided by the norm of the wanted one; 0
    for an exact fit."""


def fit(profiles: Sequence[tuple[float, float]], wanted: tuple[float, float]) -> Fit:
    """The weighted sum of `profiles`, each (images, sigma_rel), that is nearest to `wanted`.

    It is the least-squares solution over time with coefficients that sum to 1, in float64. Section
    3.2 and Algorithm 3 of arXiv 2312.02696 rescale the unconstrained solution instead.

    >>> fit([(8, 0.05), (8, 0.1)], (8, 0.1)).coefficients
    (0.0, 1.0)
    """
    if wanted in profiles:
        return Fit(tuple(float(profile == wanted) for profile in profiles), 0.0)
    products = _inner_products([*profiles, wanted])
    norms = np.sqrt(np.diag(products))
    # Norms of 1, as those of early profiles are far larger.
    unit = products / norms / norms[:, None]
    # With coefficients u of these profiles: minimise u A u - 2 b u, where c u = 1 (c: inverse norms).
    a, b, c = unit[:-1, :-1], unit[:-1, -1], norms[-1] / norms[:-1]
    free, along = np.linalg.lstsq(a, np.stack([b, c], axis=1), rcond=1e-14)[0].T
    u = free + along * (1 - c @ free) / (c @ along)
    squared = 1 - 2 * b @ u + u @ a @ u
    return Fit(tuple((u * c).tolist()), math.sqrt(max(float(squared), 0.0)))


def reconstruct(
    found: Sequence[Snapshot], sigma_rel: float, *, images: int | None = None
) -> dict[str, Tensor]:
    """The average of relative width `sigma_rel` after `images`, by parameter, float32.

    It is the weighted sum of the snapshots `found` of one run, in float64, after the images of the
    last one by default. `fit_snapshots(...).residual` says how exact it is. Raises ValueError if a
    snapshot cannot be read or has other tensors.
    """
    chosen = fit_snapshots(found, sigma_rel, images=images)
    sums: dict[str, Tensor] = {}
    parts = [(s, x) for s, x in zip(found, chosen.coefficients, strict=True) if x]
    for snapshot, coefficient in parts:
        with open_tensors(snapshot.path, advice="move it away") as file:
            names = set(file.keys())
            if sums and names != sums.keys():
                raise ValueError(f"{snapshot.path} has other tensors than {parts[0][0].path}")
            for name in names:
                term = coefficient * file.get_tensor(name).double()
                sums[name] = sums[name].add_(term) if name in sums else term
    return {name: total.float() for name, total in sums.items()}


def fit_snapshots(found: Sequence[Snapshot], sigma_rel: float, *, images: int | None = None) -> Fit:
    """The weighted sum of the snapshots `found` that gives the width `sigma_rel` after `images`.

    Raises ValueError if there are no snapshots, or `images` lie outside them.
    """
    if not found:
        raise ValueError("snapshots must not be empty: train with optimizer.ema_sigma_rel")
    exponent(sigma_rel)  # raises for a wrong width
    first, last = found[0].images, found[-1].images
    images = last if images is None else images
    if not first <= images <= last:
        raise ValueError(f"images must lie in {first:,}..{last:,}, the snapshots; got {images:,}")
    return fit([(s.images, s.sigma_rel) for s in found], (images, sigma_rel))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_FILE_NAME = re.compile(r"(?P<images>\d+)-(?P<width>[\d.e-]+)\.safetensors")


def _file_name(images: int, sigma_rel: float) -> str:
    return f"{images:012d}-{sigma_rel!r}.safetensors"


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {clean_name(n): p for n, p in model.named_parameters() if p.requires_grad}


def _inner_products(profiles: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Integrals of the products of all pairs of profiles, (N, N), computed in logarithms."""
    times, widths = np.array(profiles, dtype=np.float64).T
    # Times relative to the last one, so that the norms, proportional to 1 / sqrt(time), are near 1.
    times, gammas = times / times.max(), np.array([exponent(width) for width in widths])
    one, other = times[:, None], times[None, :]
    p, q = gammas[:, None], gammas[None, :]
    logarithm = (
        np.log((p + 1) * (q + 1) / (p + q + 1))
        + (p + q + 1) * np.log(np.minimum(one, other))
        - (p + 1) * np.log(one)
        - (q + 1) * np.log(other)
    )
    return np.exp(logarithm)
