"""The loss on data that training never sees."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn

from eqm.data import Source
from eqm.field import Field
from eqm.monitor.callbacks import Metrics
from eqm.objective import EquilibriumMatching
from eqm.randomness import SampleRandom, generator_at
from eqm.train.config import TrainConfig
from eqm.train.distributed import all_agree, world_size
from eqm.train.loop import Progress
from eqm.train.precision import in_training_precision
from eqm.train.state import TrainingState

BANDS = 10
"""Bands of equal width that gamma's range is cut into."""
SAMPLES = 256
"""Held-out samples that the loss is a mean over, at most."""


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

    At most SAMPLES samples of `source` are used, the same each time, and each of them once a band
    with noise of its own and a gamma spread over the band. Their mean therefore estimates the
    training loss without bias, and two of them differ by what the field has learnt alone.

    `labelled` hands the labels to the field.
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
    if not all_agree(failure is None):  # else the others would wait for this process for ever
        raise failure or RuntimeError("another process failed")
    if world_size() > 1:  # all must agree to the bit on which weights are the best
        distributed.broadcast(losses, src=0)
    return losses.cpu()


class ValidationLoss:
    """A callback that measures the loss of the averaged weights on `source`.

    `keep_best(state, loss)`, where given, is told of each loss. Where several processes train, all
    must watch.
    """

    def __init__(
        self,
        config: TrainConfig,
        source: Source,
        keep_best: Callable[[TrainingState, float], object] | None = None,
    ) -> None:
        self.config, self.source, self.keep_best = config, source, keep_best

    def __call__(self, progress: Progress) -> Metrics:
        average, config = progress.state.average, self.config
        device = next(average.parameters()).device
        with in_training_precision(config, device):
            losses = loss_by_gamma(
                average,
                self.source,
                config.make_objective(),
                labelled=config.model.num_classes > 0,
                device=device,
                batch_size=min(config.micro_batch or config.batch_size // world_size(), SAMPLES),
            ).tolist()
        loss = sum(losses) / BANDS
        if self.keep_best is not None:
            self.keep_best(progress.state, loss)
        bands = {f"val_loss/{(k + 0.5) / BANDS:.2f}": v for k, v in enumerate(losses)}
        return Metrics({"val_loss": loss, **bands})


class Evaluation:
    """A callback that asks a function of the averaged weights, a field, for numbers by name."""

    def __init__(self, evaluate: Callable[[nn.Module], dict[str, float]]) -> None:
        self.evaluate = evaluate

    def __call__(self, progress: Progress) -> Metrics:
        return Metrics({k: float(v) for k, v in self.evaluate(progress.state.average).items()})
