"""What a detector is given: images, checked, in batches, and copies among them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from eqm.checks import kind_of, warn_of_range
from eqm.encoders import Encoder, FeatureMaps
from eqm.field import Field
from eqm.sampling.model import describe
from eqm.tasks.calibration import outlyingness

TOLERATED_COPIES = 0.01
"""The share of copies among normal images that is not worth a warning."""

TOLERATED = 0.05
"""The share of clear outliers among normal images that is not worth a warning, at least a few images."""
SLACK = 0.02
"""So much more than the share `contamination` may be left out, as it is known roughly."""
JUDGED = 0.25
"""Of several numbers, anomalies show as clear outliers if they are at most this share of the images."""


def batches_of(images: Tensor | Iterable[Tensor]) -> Iterator[Tensor]:
    """The images as batches. Raises ValueError for what is neither a tensor nor batches."""
    single = (
        not isinstance(images, Tensor) and getattr(images, "ndim", 1) == 0
    )  # an array of no axes
    if single or isinstance(images, str | dict | set) or not isinstance(images, Iterable):
        raise ValueError(f"images must be a tensor, or batches of them; got {kind_of(images)}")
    yield from (images,) if isinstance(images, Tensor) else images


def check_images(
    x: Tensor, field: Field, encoder: Encoder | None, shape: tuple[int, ...] | None
) -> None:
    """Returns nothing; raises ValueError for images that are no finite floats, out of range, or of another shape
    than the model's, by default `shape`. Feature maps take pictures of any size."""
    if not isinstance(x, Tensor) or x.ndim < 2 or not x.is_floating_point() or not has_values(x):
        raise ValueError(
            "images must be floating-point tensors (B, C, H, W) in -1..1; "
            f"got {kind_of(x)}: convert bytes by images.float() / 127.5 - 1"
        )
    if not x.isfinite().all():
        raise ValueError("images must be finite; some values are NaN or infinity")
    info = describe(field)
    if isinstance(encoder, FeatureMaps):
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(
                f"images must be grey or RGB pictures (B, 1 or 3, H, W); got {tuple(x.shape)}"
            )
    else:
        shape = info.shape or shape
        if encoder is not None and info.shape is not None:
            shape = encoder.image_shape_of(info.shape)
        if shape is None:
            return
        if x.shape[1:] != shape:
            raise ValueError(
                f"images must have the model's shape {shape}; got {tuple(x.shape[1:])}: "
                "resize them first (`eqm detect --resize` does)"
            )
    latents = encoder is None and bool((info.metadata.get("data") or {}).get("encoder"))
    pixels = info.shape and x.ndim == 4 and not latents
    if pixels and x.numel() and x.abs().max() > 1.001:
        raise ValueError(
            f"images must lie in -1..1; got {x.min():g}..{x.max():g}: scale them, bytes by "
            "images.float() / 127.5 - 1, or clip samples that overshoot by images.clamp(-1, 1)"
        )
    if pixels:
        warn_of_range(x)


def has_values(x: Tensor) -> bool:
    """Whether a tensor is dense and each image of it holds values."""
    return not x.is_meta and x.layout is torch.strided and math.prod(x.shape[1:]) > 0


class Copies:
    """Counts the images that are equal to an earlier one."""

    def __init__(self) -> None:
        self.count, self.different = 0, set[bytes]()

    def add(self, x: Tensor) -> None:
        """Returns nothing; counts images (B, ...)."""
        rows = x.detach().flatten(1).cpu().contiguous().view(torch.uint8).numpy()
        self.count += len(rows)
        self.different.update(hashlib.blake2b(row.data, digest_size=16).digest() for row in rows)

    def problems(self) -> list[str]:
        """A sentence, if copies are more than TOLERATED_COPIES of all."""
        copies = self.count - len(self.different)
        if copies <= TOLERATED_COPIES * self.count:
            return []
        return [
            f"{copies:,} of {self.count:,} normal images are copies of others: the false positive rate "
            f"holds only for different images, here {len(self.different):,}; give each image once"
        ]


def kept_images(
    groups: Sequence[Tensor], contamination: float, fpr: float
) -> tuple[Tensor, list[str]]:
    """Which of N normal images calibrate, (N,), and what is wrong with the others."""
    count, away = len(groups[0]) if groups else 0, outlyingness(groups)
    outliers = int((away > 1).sum())
    kept = torch.arange(count)
    budget = math.ceil((contamination + SLACK) * count) if contamination else 0
    while budget and (away > 1).any():  # without the most distant ones others stand out
        order = away.argsort(descending=True, stable=True)[: min(budget, int((away > 1).sum()))]
        budget -= len(order)
        kept = kept[torch.ones(len(kept), dtype=torch.bool).index_fill(0, order, False)]
        away = outlyingness([group[kept] for group in groups])
    mask = torch.zeros(count, dtype=torch.bool).index_fill(0, kept, True)
    left_out, several = count - len(kept), any(group.shape[1] > 1 for group in groups)
    if several and contamination > JUDGED and 2 * left_out < contamination * count:
        return mask, [
            f"only {left_out:,} of {count:,} normal images are clear outliers, and "
            f"contamination={contamination:g} allows more: if more than a quarter are anomalies, a "
            "score of several numbers may miss them: use a score of one number, such as loss, or "
            "remove anomalies first"
        ]
    rest = outliers - (count - len(kept))
    if rest <= max(3, TOLERATED * count, fpr / 2 * count):
        return mask, []
    share = math.ceil(20 * outliers / count) / 20
    return mask, [
        f"{rest:,} of {count:,} normal images are clear outliers, and anomalies like them will be "
        f"missed: remove them, or leave them out with contamination={min(share, 0.45):g}"
    ]
