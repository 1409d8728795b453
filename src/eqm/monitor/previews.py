"""Samples of a run as it trains, always from the same noise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from eqm.descent import iterate
from eqm.encoders import encoder_of
from eqm.energy import Energy
from eqm.files import replacing
from eqm.models import Network
from eqm.monitor.callbacks import Metrics
from eqm.pictures import grid
from eqm.sampling import Sampling, describe, prepare
from eqm.tasks import generate
from eqm.train.config import TrainConfig
from eqm.train.distributed import is_main
from eqm.train.loop import Progress
from eqm.train.precision import in_training_precision

ROWS = 4
FOLDER = "pictures"
NORMS = 10
"""Places along the path at which the gradient norm is logged."""


class Previews:
    """A callback that samples the averaged weights and draws a sheet in `folder`/pictures.

    The samples are those of `generate` with the run's sampling settings, from the same noise and
    labels each time. Sheets are called 000256000.png after the images seen; latest.png is the last.
    The numbers are the mean gradient norm of the samples at NORMS places along their path. Samples
    that are no pictures, such as points, give numbers only.

    `decode` turns samples into pictures (N, 1 or 3, H, W) in -1..1. By default it is the encoder
    that the data name; without an encoder, or if it is not found, the first channels are shown.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path | str,
        decode: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.config, self.folder = config, Path(folder) / FOLDER
        self.decode = decode
        self.labels, self.columns = _sheet(config.model.num_classes)

    def __call__(self, progress: Progress) -> Metrics:
        average, config = cast("Network | Energy", progress.state.average), self.config
        with in_training_precision(config, next(average.parameters()).device):
            samples, norms = _descend(average, self.labels, self.columns * ROWS, config.sampling)
        if samples.ndim != 4 or not is_main():
            return Metrics(norms)
        self.decode = self.decode or _decoder(progress, samples.device)
        pictures = self.decode(samples)
        scale = max(1, 64 // pictures.shape[-1])  # so that small ones can be seen
        sheet = grid(pictures, columns=self.columns, scale=scale)
        path = self.folder / f"{progress.images:09d}.png"
        with replacing(path) as temporary:
            sheet.save(temporary, format="png")
        with replacing(self.folder / "latest.png") as temporary:
            shutil.copyfile(path, temporary)
        return Metrics(norms, {"samples": path})


def _decoder(progress: Progress, device: torch.device) -> Callable[[Tensor], Tensor]:
    data = {} if progress.state.run is None else progress.state.run.data
    if not data.get("encoder"):
        return first_channels
    try:
        return encoder_of({"data": data}, device=device).decode
    except ValueError:  # the encoder is not on this machine
        return first_channels


def first_channels(samples: Tensor) -> Tensor:
    """The first three channels of samples (N, C, H, W) as colours, or the first as grey."""
    return samples[:, : 3 if samples.shape[1] >= 3 else 1]


def _sheet(num_classes: int) -> tuple[Tensor | None, int]:
    """Labels of the samples and columns of their sheet: a class a column, or classes far apart."""
    if num_classes == 0:
        return None, 8
    columns = num_classes if 4 <= num_classes <= 10 else 8
    count = columns * ROWS
    places = torch.arange(count)
    apart = num_classes > count
    return (places * num_classes // count if apart else places % num_classes), columns


def _descend(
    model: Network | Energy, labels: Tensor | None, count: int, sampling: Sampling
) -> tuple[Tensor, dict[str, float]]:
    """The samples of `generate`, and their mean gradient norms along the path."""
    if describe(model).noise_conditioning:  # it follows a flow instead of descending
        return generate(model, labels, count=count, sampling=sampling).x, {}
    start = prepare(model, labels, count=count, sampling=sampling)
    end = start.noise
    steps = iterate(start.field, end.clone(), start.labels, rule=start.rule, stop=start.stop)
    norm, norms = torch.zeros(count, device=end.device), []
    for step in islice(steps, start.max_steps):
        end[step.index] = step.x
        norm[step.index] = step.gradient_norm.to(norm)  # one that has ended keeps its last
        norms.append(norm.mean())
    along = torch.stack(norms).tolist()
    along += along[-1:] * (start.max_steps - len(along))
    marks = {round(k * (len(along) - 1) / (NORMS - 1)) for k in range(NORMS)}
    return end, {
        f"descent_gradient_norm/{(mark + 1) / len(along):.2f}": along[mark]
        for mark in sorted(marks)
    }
