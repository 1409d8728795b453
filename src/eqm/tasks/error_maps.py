"""Maps of errors: how unusual each pixel is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, avg_pool2d, interpolate

from eqm.tasks.scores import ScoreContext


def errors_of(context: ScoreContext) -> Tensor:
    """What a map is made of, (G, B, ...) float32 on the CPU: the distances of residuals, G is 1, where the
    context has `usual`; else the squared errors at each gamma, summed over channels. Points have no channels."""
    with torch.no_grad():
        if context.usual is not None:
            return context.distances[None].float()
        errors = context.errors
        return (errors.sum(2) if errors.ndim > 3 else errors).float().cpu()


def relative(errors: Tensor, expected: Tensor, axes: int) -> Tensor:
    """Maps (B, ...) of errors (G, B, ...): divided by those expected (G, ...), the mean over gammas.

    Both are smoothed along `axes` axes of space and time."""
    usual = smooth(expected, axes)[:, None] + 1e-8  # (G, 1, H, W)
    return (smooth(errors, axes) / usual).mean(0)


def smooth(maps: Tensor, axes: int = 2) -> Tensor:
    """The mean of three neighbours along each of the last `axes` axes; at the edge the mean of those inside."""
    if axes == 2:
        return avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)
    for axis in range(maps.ndim - axes, maps.ndim):
        lines = maps.movedim(axis, -1)
        flat = lines.reshape(-1, 1, lines.shape[-1])
        means = avg_pool1d(flat, 3, stride=1, padding=1, count_include_pad=False)
        maps = means.view(lines.shape).movedim(-1, axis)
    return maps


def enlarged(maps: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Maps (B, h, w) at the size of their pictures, (B, H, W), bilinear."""
    if tuple(maps.shape[1:]) == sides:
        return maps
    return interpolate(maps[:, None], sides, mode="bilinear", align_corners=False)[:, 0]
