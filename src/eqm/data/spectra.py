"""Sounds as log-mel spectrograms, and back by the method of Griffin and Lim."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn.functional import fold, pad

from eqm.randomness import generator_at
from eqm.schema import check_fields, convert

Size = Annotated[int, Meta(ge=1, le=2**14)]


@dataclass(frozen=True)
class LogMel:
    """How a sound (..., L) becomes a log-mel spectrogram (..., bands, L / hop), and back.

    The spectrogram has a column for each `hop` samples of the sound, so L must be a multiple of `hop`. A column
    is the natural logarithm of the mean magnitude in each of `bands` bands, which are equally wide on the mel
    scale, from 0 to half of the sample `rate`, in a Hann window of `window` samples. Magnitudes below `floor`
    count as `floor`. Raises ValueError for numbers out of range.
    """

    rate: Annotated[int, Meta(ge=1, le=2**20)]
    """Samples per second."""
    hop: Size = 128
    window: Size = 512
    bands: Size = 64
    floor: Annotated[float, Meta(gt=0, le=1)] = 3e-5

    def __post_init__(self) -> None:
        check_fields(self)
        if self.window % 2 or self.hop > self.window:
            raise ValueError(
                f"window must be even and at least hop, {self.hop}; got {self.window}: take {4 * self.hop}"
            )

    @classmethod
    def at(cls, rate: int) -> Self:
        """That for sounds of this sample rate: a column for about 16 ms, from a window of 64 ms."""
        hop = 2 ** round(math.log2(max(0.016 * rate, 1)))
        return cls(rate, hop, 4 * hop)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Self | None:
        """That of a model with these metadata; None where it has none. Raises ValueError for damaged ones."""
        stored = (metadata.get("data") or {}).get("log_mel")
        found: Self | None = stored and convert(
            stored, cls, "the model's metadata: ", name="log_mel"
        )
        return found

    def spectrogram(self, sound: Tensor) -> Tensor:
        """The log-mel spectrogram (..., bands, L / hop) of a sound (..., L) in -1..1."""
        magnitude = self._transform(sound).abs()
        return (self._filters().to(magnitude) @ magnitude).clamp(min=self.floor).log()

    def sound(self, spectrogram: Tensor) -> Tensor:
        """A sound (..., L) whose log-mel spectrogram is near to this one (..., bands, L / hop).

        The magnitude of each frequency is the non-negative least-squares solution for the bands, by 50
        multiplicative updates (Lee and Seung, NIPS 2000). The phases are those of the fast Griffin-Lim method
        (Perraudin et al., WASPAA 2013), from random ones that are always the same.
        """
        filters = self._filters().to(spectrogram)
        target = spectrogram.exp()
        target = target * (target > 2 * self.floor)  # near the floor is silence
        magnitude = filters.mT @ target
        for _ in range(50):
            fitted = filters.mT @ (filters @ magnitude)
            magnitude = magnitude * (filters.mT @ target) / fitted.clamp(min=1e-12)
        generator = generator_at("phases", seed=0, position=0)
        angles = 2 * math.pi * torch.rand(magnitude.shape[-2:], generator=generator)
        found = torch.polar(magnitude, angles.to(magnitude).expand_as(magnitude))
        before = torch.zeros_like(found)
        for _ in range(60):
            again = self._transform(self._inverse(found))
            ahead = again + 0.99 * (again - before)
            found, before = magnitude * ahead / ahead.abs().clamp(min=1e-12), again
        return self._inverse(found)

    def _transform(self, sound: Tensor) -> Tensor:
        """The short-time Fourier transform (..., window / 2 + 1, L / hop), scaled to the amplitude of a sine."""
        flat = pad(sound.reshape(-1, sound.shape[-1]), self._padding)
        taper = torch.hann_window(self.window).to(sound)
        found = torch.stft(
            flat, self.window, self.hop, window=taper, center=False, return_complex=True
        )
        return found.view(*sound.shape[:-1], *found.shape[1:]) * (2 / self.window)

    def _inverse(self, found: Tensor) -> Tensor:
        """The sound (..., L) whose transform is nearest to `found`."""
        taper = torch.hann_window(self.window).to(found.real)
        flat = found.reshape(-1, *found.shape[-2:])
        frames = torch.fft.irfft(flat * (self.window / 2), self.window, dim=1)
        frames = frames * taper[:, None]
        length = self.hop * (frames.shape[-1] - 1) + self.window

        def add(frames: Tensor) -> Tensor:
            return fold(frames, (1, length), (1, self.window), stride=(1, self.hop)).flatten(1)

        weight = add(taper.square()[None, :, None].expand(1, -1, frames.shape[-1]))
        whole = add(frames) / weight.clamp(min=1e-4)
        left, right = self._padding
        return whole[:, left : length - right].reshape(*found.shape[:-2], -1)

    @property
    def _padding(self) -> tuple[int, int]:
        """Zeros before and after a sound, so that it has a column for each `hop` samples."""
        both = self.window - self.hop
        return both // 2, both - both // 2

    def _filters(self) -> Tensor:
        """The weights of the frequencies in each band, (bands, window / 2 + 1), triangles of sum 1."""
        top = 2595 * math.log10(1 + self.rate / 2 / 700)
        edges = 700 * (
            10 ** (torch.linspace(0, top, self.bands + 2, dtype=torch.float64) / 2595) - 1
        )
        heard = torch.linspace(0, self.rate / 2, self.window // 2 + 1, dtype=torch.float64)
        rise = (heard - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        fall = (edges[2:, None] - heard) / (edges[2:] - edges[1:-1])[:, None]
        triangles = torch.minimum(rise, fall).clamp(min=0)
        return triangles / triangles.sum(1, keepdim=True).clamp(min=1e-12)
