"""A histogram of scores with thresholds, as SVG that follows the colours of its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from html import escape

import torch
from torch import Tensor

WIDTH, HEIGHT = 880, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 16, 44, 34
APART = 34
"""Pixels between the labels of two lines in one row."""


def histogram(scores: Tensor, lines: Mapping[float, float], chosen: float) -> str:
    """The histogram of sorted scores (N,) with a vertical line at the threshold of each false-alarm rate."""
    finite = scores[scores.isfinite()]
    low = min([float(finite[0]), *lines.values()]) if len(finite) else 0.0
    high = max([float(finite[-1]) if len(finite) else 1.0, *filter(math.isfinite, lines.values())])
    room = 0.03 * (high - low) or 0.5
    low, high = low - room, high + room
    bins = min(50, max(8, round(2 * math.sqrt(len(scores)))))
    counts = torch.histc(finite.double(), bins, low, high).tolist()
    most = max(1, round(max(counts)))

    def x(score: float) -> float:
        return LEFT + (score - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(count: float) -> float:
        return HEIGHT - BOTTOM - count / most * (HEIGHT - TOP - BOTTOM)

    edges = [low + k * (high - low) / bins for k in range(bins + 1)]
    parts = [_axes(x, y, low, high, most)]
    parts += [
        f'<rect class="bar" x="{x(left) + 0.5:.1f}" y="{y(count):.1f}" '
        f'width="{x(right) - x(left) - 1:.1f}" height="{y(0) - y(count):.1f}"/>'
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if count
    ]
    last, row = -math.inf, 0
    for rate, threshold in sorted(lines.items(), key=lambda item: item[1]):
        if not math.isfinite(threshold):
            continue
        at = x(threshold)
        row = (row + 1) % 3 if at - last < APART else 0
        last, top = at, TOP - 6 - 13 * row
        used = " used" * (rate == chosen)
        parts.append(
            f'<line class="line{used}" x1="{at:.1f}" x2="{at:.1f}" y1="{top + 3}" y2="{y(0):.1f}"/>'
            f'<text class="rate" x="{at:.1f}" y="{top}" text-anchor="middle">{100 * rate:.3g} %</text>'
        )
    words = escape(_words(scores, lines))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}"><title>{words}</title>'
        f"{''.join(parts)}</svg>"
    )


def _words(scores: Tensor, lines: Mapping[float, float]) -> str:
    """What the histogram shows, in a sentence."""
    low, middle, high = (float(scores[k]) for k in (0, len(scores) // 2, -1))
    rates = ", ".join(f"{value:.4g} at {100 * rate:.3g} %" for rate, value in lines.items())
    return (
        f"Histogram of {len(scores):,} held-out scores from {low:.4g} to {high:.4g}, half of them below "
        f"{middle:.4g}" + (f"; thresholds: {rates}" if rates else "")
    )


def _axes(
    x: Callable[[float], float], y: Callable[[float], float], low: float, high: float, most: int
) -> str:
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(k for k in (5, 2, 1) if (high - low) / (k * step) >= 4 or k == 1)
    ticks = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    parts = [
        f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:.6g}</text>'
        for tick in ticks
    ]
    for count in sorted({0, most // 2, most}):
        parts.append(
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(count):.1f}" y2="{y(count):.1f}"/>'
            f'<text x="{LEFT - 8}" y="{y(count) + 4:.1f}" text-anchor="end">{count:,}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 3}" text-anchor="middle">score</text>')
    return "".join(parts)
