"""Samples of any kind as pictures: frames of videos in a row, signals as curves, points in the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from eqm.pictures import heatmap

COLOURS = (
    (31, 90, 180),
    (200, 60, 40),
    (40, 140, 60),
    (140, 80, 170),
    (190, 130, 20),
    (60, 60, 60),
)
"""Of the channels of a signal, one after the other."""
HEIGHT, NARROWEST, WIDEST = 64, 96, 512
"""Pixels of the picture of a signal."""
FINE = 4
"""Lines are drawn so many times larger, and made smaller: then they are smooth."""


def drawn(samples: Tensor, *, spectrogram: bool = False) -> Tensor:
    """Samples (N, ...) as pictures in -1..1, (N, C, H, W).

    Pictures (N, C, H, W) stay as they are. The frames of a video (N, C, T, H, W) stand side by side. Those of one
    line (N, C, T, 1, W), such as spectrograms, are upright, with the first value at the bottom and dark for large. A
    signal (N, C, L) has a curve for each channel, and a point (N, D) one curve through its numbers; all
    have the same vertical axis, with a grey line at 0. Points (N, 2) are one picture together, (1, 3, H, W), and
    so are points (N, 3), seen from above their first two axes at a slant.
    With `spectrogram`, that of the first channel stands below the curves of each signal.
    """
    samples = samples.detach().float().cpu()
    if samples.ndim == 5 and samples.shape[3] == 1:
        low, high = samples.amin(), samples.amax()
        return 1 - 2 * upright(samples - low) / (high - low).clamp(min=1e-9)
    if samples.ndim == 5:
        return samples.transpose(2, 3).flatten(3)
    if samples.ndim == 4:
        return samples
    if samples.ndim == 2 and samples.shape[1] == 2:
        return _tensor([_scattered(samples.numpy())])
    if samples.ndim == 2 and samples.shape[1] == 3:
        return turned(samples, [0.0])
    signals = samples.view(len(samples), -1, samples.shape[-1]).numpy()
    reach = float(max(np.abs(signals).max(initial=0), 1e-9))
    curves = _tensor([_curves(signal / reach) for signal in signals])
    if not spectrogram or samples.ndim != 3:
        return curves
    return torch.cat([curves, _spectrograms(samples[:, 0], curves.shape[-1])], 2)


def upright(lines: Tensor) -> Tensor:
    """Lines (..., T, 1, W) side by side, the first value at the bottom, (..., W, T)."""
    return lines[..., 0, :].mT.flip(-2)


def _spectrograms(signals: Tensor, width: int) -> Tensor:
    """The spectrograms of signals (N, L), (N, 3, H, W): low frequencies at the bottom, dark is loud, and white is
    60 dB or more below the loudest."""
    window = min(256, signals.shape[1])
    power = torch.stft(
        signals,
        window,
        hop_length=max(1, window // 4),
        window=torch.hann_window(window),
        pad_mode="constant",
        return_complex=True,
    ).abs()
    decibels = 20 * (power / power.amax().clamp(min=1e-9)).clamp(min=1e-3).log10()  # -60..0
    shown = -(decibels / 30 + 1)  # loud is -1, black
    sized = interpolate(shown[:, None].flip(2), (HEIGHT, width), mode="bilinear")
    return sized.expand(-1, 3, -1, -1)


def marked(sample: Tensor, strength: Tensor) -> Tensor:
    """A signal (C, L) or a video (C, T, H, W) with the places of `strength`, (L,) or (T, H, W), in red, a picture
    (1, 3, H, W) in -1..1.

    The red grows with the logarithm of the strength, as in `heatmap`. It lies behind the curves of a signal;
    for a video, the frames without it stand above those with it. Raises ValueError for other samples."""
    if sample.ndim not in (2, 4):
        raise ValueError(
            f"a sample must be a signal (C, L) or a video (C, T, H, W); got {tuple(sample.shape)}"
        )
    picture = drawn(sample[None])
    if sample.ndim == 2:
        wide = interpolate(strength[None, None].float().cpu(), picture.shape[-1], mode="linear")
        red = heatmap(torch.full_like(picture, 1 / 0.8), wide.expand(1, *picture.shape[2:]))
        return torch.minimum(picture, red)
    strength = strength.float().cpu()
    one_line = sample.shape[2] == 1
    strip = upright(strength) if one_line else strength.transpose(0, 1).flatten(1)  # (H, T * W)
    colour = picture[:, :3] if picture.shape[1] >= 3 else picture.mean(1, keepdim=True)
    return torch.cat([colour.expand(1, 3, *picture.shape[2:]), heatmap(colour, strip[None])], 2)


def banded(signal: Tensor, samples: Tensor, known: Tensor) -> Tensor:
    """A signal (C, L) with the band of samples (K, C, L) where it is not `known` (L,), a picture (1, 3, H, W) in -1..1.

    The band of each channel reaches from the 5 % to the 95 % quantile; the line in it is the median. The true signal
    is drawn through the band in grey. Raises ValueError for other shapes."""
    if samples.ndim != 3 or samples.shape[1:] != signal.shape or known.shape != signal.shape[-1:]:
        raise ValueError(
            "the signal must be (C, L), samples (K, C, L) and known (L,); got "
            f"{tuple(signal.shape)}, {tuple(samples.shape)} and {tuple(known.shape)}"
        )
    from PIL import Image, ImageDraw

    levels = torch.tensor([0.05, 0.5, 0.95])
    low, middle, high = samples.detach().float().cpu().quantile(levels, 0)
    truth, known = signal.detach().float().cpu(), known.cpu().bool()
    every = torch.cat([truth, low, high])
    least, most = every.min(), every.max()
    width, height = (
        min(max(3 * truth.shape[1], 2 * NARROWEST), WIDEST) * FINE,
        2 * HEIGHT * FINE,
    )
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.rectangle([0, 0, width - 1, height - 1], outline=(225, 225, 225), width=FINE)
    across = np.linspace(0, width - 1, truth.shape[1]).tolist()

    def up(values: Tensor) -> list[float]:
        share = (values - least) / (most - least).clamp(min=1e-9)
        return ((0.97 - 0.94 * share) * height).tolist()

    inside = [k for k in range(len(known)) if not known[max(k - 1, 0) : k + 2].all()]
    for channel in range(len(truth)):
        colour = COLOURS[channel % len(COLOURS)]
        pale = tuple(255 - (255 - one) // 3 for one in colour)
        bounds = up(low[channel]), up(high[channel])
        for k in (k for k in inside if k + 1 in inside):
            corners = [(across[j], bounds[0][j]) for j in (k, k + 1)]
            corners += [(across[j], bounds[1][j]) for j in (k + 1, k)]
            draw.polygon(corners, fill=pale)
        for values, tone in ((truth[channel], (150, 150, 150)), (middle[channel], colour)):
            line = up(values)
            for k in range(len(line) - 1):
                ends = [(across[j], line[j]) for j in (k, k + 1)]
                draw.line(ends, fill=tone, width=FINE)
    small = sheet.resize((width // FINE, height // FINE), Image.Resampling.LANCZOS)
    return _tensor([np.asarray(small)])


def _curves(signal: np.ndarray) -> np.ndarray:
    """The curves of a signal (C, L) in -1..1, (H, W, 3)."""
    from PIL import Image, ImageDraw

    width = min(max(signal.shape[1], NARROWEST), WIDEST)
    size = (width * FINE, HEIGHT * FINE)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.rectangle([0, 0, size[0] - 1, size[1] - 1], outline=(225, 225, 225), width=FINE)
    draw.line([(0, size[1] / 2), (size[0], size[1] / 2)], fill=(215, 215, 215), width=FINE)
    x = np.linspace(0, size[0] - 1, signal.shape[1]) if signal.shape[1] > 1 else np.zeros(1)
    for k, curve in enumerate(signal):
        y = (1 - 0.94 * curve) / 2 * size[1]
        draw.line(
            [*zip(x.tolist(), y.tolist(), strict=True)], fill=COLOURS[k % len(COLOURS)], width=FINE
        )
    return np.asarray(sheet.resize((width, HEIGHT), Image.Resampling.LANCZOS))


def _scattered(points: np.ndarray) -> np.ndarray:
    """Points (N, 2) in one square picture, (H, W, 3)."""
    from PIL import Image, ImageDraw

    side = 4 * HEIGHT
    sheet = Image.new("RGB", (side * FINE, side * FINE), "white")
    draw = ImageDraw.Draw(sheet)
    low, high = points.min(0), points.max(0)
    reach = float(max((high - low).max(), 1e-9)) * 1.05
    at = (points - (low + high) / 2) / reach + 0.5
    for x, y in (at * [1, -1] + [0, 1]) * side * FINE:
        draw.ellipse([x - 6, y - 6, x + 6, y + 6], fill=COLOURS[0])
    return np.asarray(sheet.resize((side, side), Image.Resampling.LANCZOS))


def turned(points: Tensor, turns: Sequence[float]) -> Tensor:
    """Points (N, 3), turned about their third axis by each of the `turns` in radians, (len(turns), 3, H, W).

    They are seen from 35 degrees above the first two axes. Near points are larger and darker."""
    from PIL import Image, ImageDraw

    where = points.detach().double().cpu().numpy()
    where = where - (where.min(0) + where.max(0)) / 2
    where = where / max(np.linalg.norm(where, axis=1).max(), 1e-9)
    side, tilt = 4 * HEIGHT, math.radians(35)
    sheets = []
    for turn in turns:
        x = where[:, 0] * math.cos(turn) - where[:, 1] * math.sin(turn)
        y = where[:, 0] * math.sin(turn) + where[:, 1] * math.cos(turn)
        up = y * math.sin(tilt) + where[:, 2] * math.cos(tilt)
        near = where[:, 2] * math.sin(tilt) - y * math.cos(tilt)  # -1..1
        sheet = Image.new("RGB", (side * FINE, side * FINE), "white")
        draw = ImageDraw.Draw(sheet)
        for k in near.argsort():
            light = 0.35 * (1 - near[k])
            colour = tuple(round(part + (255 - part) * light) for part in COLOURS[0])
            a, b = (0.5 + 0.48 * x[k]) * side * FINE, (0.5 - 0.48 * up[k]) * side * FINE
            size = 6 + 2 * near[k]
            draw.ellipse([a - size, b - size, a + size, b + size], fill=colour)
        sheets.append(np.asarray(sheet.resize((side, side), Image.Resampling.LANCZOS)))
    return _tensor(sheets)


def _tensor(pictures: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
