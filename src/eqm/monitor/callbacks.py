"""Callbacks look at a run between two steps: previews, validation loss, numbers of your own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, distributed, nn

from eqm.data import Source
from eqm.descent import iterate
from eqm.encoders import encoder_of
from eqm.energy import Energy
from eqm.field import Field
from eqm.files import printable, replacing
from eqm.models import Network
from eqm.objective import EquilibriumMatching
from eqm.pictures import grid
from eqm.randomness import SampleRandom, generator_at
from eqm.sampling import Sampling, describe, prepare
from eqm.tasks import generate
from eqm.train.config import TrainConfig
from eqm.train.distributed import all_agree, is_main, world_size
from eqm.train.folding import unfolded
from eqm.train.loop import Progress
from eqm.train.state import TrainingState
from eqm.train.step import in_training_precision

LOG = logging.getLogger(__name__)
ROWS = 4
FOLDER = "pictures"
NORMS = 10
"""Places along the path at which the gradient norm is logged."""
BANDS = 10
"""Bands of equal width into which gamma is divided."""
SAMPLES = 256
"""The validation loss is a mean over at most so many samples."""


class Metrics(NamedTuple):
    """The result of a callback."""

    numbers: Mapping[str, float] = {}
    """Numbers by name; `val_loss/0.05` is one of a series."""
    pictures: Mapping[str, Path] = {}
    """PNG files by name."""


Callback = Callable[[Progress], Metrics]
"""A function that is called between two steps. It must not change the run or the global random state."""


class Previews:
    """A callback that samples the averaged weights and draws a sheet in `folder`/pictures.

    The samples are those of `generate` with the run's sampling settings, from the same noise and
    labels each time. Files are named after the images seen, such as 000256000.png; latest.png is the
    newest. The numbers are the mean gradient norm of the samples at NORMS places along their path.
    Samples that are not pictures, such as points, give numbers only.

    `decode` turns samples into pictures (N, 1 or 3, H, W) in -1..1. By default it is the encoder
    that the data name, if `data.outside` allows to open it; else, and for feature maps, the first channels are
    shown. A network of sentences draws those of eight samples of `source`, one a column; without, the empty sentence.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path | str,
        decode: Callable[[Tensor], Tensor] | None = None,
        *,
        source: Source | None = None,
    ) -> None:
        self.config, self.folder = config, Path(folder) / FOLDER
        self.decode = decode
        if config.model.text.encoder:
            self.labels, self.columns = _sentences(source), 8
        else:
            self.labels, self.columns = _sheet(config.model.num_classes)

    def __call__(self, progress: Progress) -> Metrics:
        return self._drawn(progress, f"{progress.images:09d}.png", "latest.png")

    def early(self, progress: Progress) -> Metrics:
        """The same, but only latest.png is drawn, so that no file depends on the speed of the run."""
        return self._drawn(progress, "latest.png")

    def _drawn(self, progress: Progress, *names: str) -> Metrics:
        average, config = cast("Network | Energy", progress.state.average), self.config
        with in_training_precision(config, next(average.parameters()).device):
            samples, norms = _descend(
                average,
                self.labels,
                self.columns * ROWS,
                config.sampling,
                shape=config.model.shape,
            )
        if samples.ndim != 4 or not is_main():
            return Metrics(norms)
        self.decode = self.decode or _decoder(progress, samples.device, config.data.outside)
        pictures = self.decode(samples)
        scale = max(1, 64 // pictures.shape[-1])  # so that small ones can be seen
        sheet = grid(pictures, columns=self.columns, scale=scale)
        for name in names:
            with replacing(self.folder / name) as temporary:
                sheet.save(temporary, format="png")
        return Metrics(norms, {"samples": self.folder / names[0]})


def _decoder(progress: Progress, device: torch.device, outside: bool) -> Callable[[Tensor], Tensor]:
    data = {} if progress.state.run is None else progress.state.run.data
    if not data.get("encoder"):
        return first_channels
    if "mean" in data["encoder"]:  # feature maps have no way back
        return first_channels
    try:
        return encoder_of({"data": data}, device=device, outside=outside).decode
    except ValueError:  # the encoder is not on this machine, or not allowed
        if not outside:
            name = printable(str(data["encoder"].get("name")))
            LOG.warning(
                "previews show the first channels of latents: set data.outside to decode them by %s",
                name,
            )
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


def _sentences(source: Source | None) -> Tensor | None:
    """The tokens of eight samples, far apart, again in each row of a sheet."""
    if source is None or source.labels is None:
        return None
    return source.labels[torch.arange(8) * len(source) // 8].repeat(ROWS, 1)


def _descend(
    model: Network | Energy,
    labels: Tensor | None,
    count: int,
    sampling: Sampling,
    *,
    shape: tuple[int, ...] | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The samples of `generate`, and their mean gradient norms along the path."""
    if describe(model).noise_conditioning:  # it follows a flow instead of descending
        return generate(model, labels, count=count, sampling=sampling, shape=shape).x, {}
    start = prepare(model, labels, count=count, sampling=sampling, shape=shape)
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


@torch.no_grad()
def loss_by_gamma(
    field: Field,
    source: Source,
    objective: EquilibriumMatching,
    *,
    labelled: bool = True,
    device: torch.device,
    batch_size: int = SAMPLES,
) -> Tensor:
    """The mean loss in each band of gamma, (BANDS,) on the CPU, lowest gamma first.

    Samples (at most SAMPLES), noise and gammas are the same in each call, with one noise and one
    uniform gamma per sample and band. The mean over the bands is an unbiased estimate of the loss,
    at uniform gamma without weights whatever the objective's distribution, so that runs compare.
    `labelled` gives the labels to the field.
    """
    count = min(len(source), SAMPLES)
    chosen = torch.randperm(len(source), generator=generator_at("held out", seed=0, position=0))
    losses, failure = torch.zeros(BANDS, device=device), None
    try:
        for first in range(0, count, batch_size):
            rows = chosen[first : min(first + batch_size, count)]
            draws = SampleRandom(0, torch.arange(first, first + len(rows)))
            data = source.batch(rows, draws).to(device)
            known = labelled and source.labels is not None
            labels = source.labels[rows].to(device) if known else None  # type: ignore[index]
            noise = draws.normal("held-out noise", (BANDS, *data.shape[1:])).to(device)
            place = draws.uniform("held-out gamma", (BANDS,)).to(device)
            for band in range(BANDS):
                gamma = (band + place[:, band]) / BANDS
                loss = objective.loss_at(field, data, labels, noise=noise[:, band], gamma=gamma)
                losses[band] += loss.sum() / count
    except Exception as error:
        failure = error
    if not all_agree(failure is None):  # otherwise the others would wait for ever
        raise failure or RuntimeError("another process failed")
    if world_size() > 1:  # all must have the same bits, to agree on the best weights
        distributed.broadcast(losses, src=0)
    return losses.cpu()


class ValidationLoss:
    """A callback that measures the loss of the averaged weights on `source`, the validation set.

    It calls `keep_best(state, loss)`, if given. It ends the run after `config.stop_after` losses in
    a row that were not lower than the lowest one (early stopping). All processes must call it.
    """

    def __init__(
        self,
        config: TrainConfig,
        source: Source,
        keep_best: Callable[[TrainingState, float], object] | None = None,
    ) -> None:
        self.config, self.source, self.keep_best = config, source, keep_best

    def __call__(self, progress: Progress) -> Metrics:
        state, average, config = progress.state, progress.state.average, self.config
        device = next(average.parameters()).device
        with in_training_precision(config, device):
            losses = loss_by_gamma(
                unfolded(average, average, config),
                self.source,
                config.make_objective(),
                labelled=config.model.num_classes > 0,
                device=device,
                batch_size=min(config.micro_batch or config.batch_size // world_size(), SAMPLES),
            ).tolist()
        loss = sum(losses) / BANDS
        if self.keep_best is not None:
            self.keep_best(state, loss)
        if loss < state.lowest:
            state.lowest, state.worse = loss, 0
        else:
            state.worse += 1
        state.stopping = 0 < config.stop_after <= state.worse
        bands = {f"val_loss/{(k + 0.5) / BANDS:.2f}": v for k, v in enumerate(losses)}
        return Metrics({"val_loss": loss, **bands})


class Evaluation:
    """A callback that calls `evaluate(field)` with the averaged weights; it gives numbers by name."""

    def __init__(self, evaluate: Callable[[nn.Module], dict[str, float]]) -> None:
        self.evaluate = evaluate

    def __call__(self, progress: Progress) -> Metrics:
        return Metrics({k: float(v) for k, v in self.evaluate(progress.state.average).items()})
