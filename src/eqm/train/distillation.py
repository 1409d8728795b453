"""Distillation: a student that does with fewer passes of the network what its teacher does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eqm.checks import (
    check_callable,
    check_count,
    check_kind,
    check_positive,
    check_range,
    check_seed,
)
from eqm.descent import LinearMultistep, descend, fit_multistep, record_trajectory
from eqm.field import Field, evaluate
from eqm.models import Frozen, Network, for_inference
from eqm.sampling.model import check_time_invariant, describe
from eqm.sampling.settings import Sampling
from eqm.sampling.start import guided
from eqm.train.config import OptimizerConfig
from eqm.train.ema import update_average
from eqm.train.optimizer import learning_rate_at, make_optimizer

UNLABELLED = 0.1
"""The share of descents without a label. There the student learns the teacher without guidance."""
TOGETHER = 256
"""Descents of the teacher at once."""
FITTED = 256
"""Descents that the coefficients of few steps are fitted to."""
MOST_BYTES = 2**30
"""The points of the descents that are kept take at most so much memory."""
POINTS = 2
"""Points of the field for each descent that a step sees."""
WARMUP, HALFLIFE = 0.05, 0.05
"""Of the learning rate and of the average of the weights, as a share of the training."""
ROWS_RATE = 2e-3
"""The learning rate of the coefficients."""


@dataclass(frozen=True)
class DistillationStep:
    """The numbers of one step."""

    samples: int
    """Samples seen so far."""
    field_error: float
    """The squared error of the field on the teacher's way, as a share of the squared field."""
    end_error: float
    """The mean squared error of the ends of the few steps; 0 without `evaluations`."""


def distill(
    model: Network,
    *,
    guidance: float | None = None,
    evaluations: int | None = None,
    samples: int = 20_000,
    descents: int = 2048,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    on_step: Callable[[DistillationStep], object] | None = None,
) -> Network:
    """A student of `model`: the same network, with other weights and sampling settings. It needs no data.

    `guidance` is folded into the field: with a label, the student's gradient is the guided gradient of the
    teacher at this scale, so a guided sample takes one pass an evaluation instead of two. By default it
    is the guidance stored with the model. Without a label the student is the teacher without guidance. With
    `evaluations` the student reaches the end of the teacher's descent in so many evaluations: the
    coefficients of a `LinearMultistep` are fitted to the teacher's descents, and then trained with the
    weights. The stored settings say both, so `generate` uses them.

    The teacher makes `descents` descents from noise with its stored settings. The student sees `samples` of
    them, each several times if there are fewer. At the points on their way it learns the teacher's field,
    so it stays a time-invariant field that denoises, detects and composes. `learning_rate` is that of
    Muon; it falls to 0. `precision` is that of `for_inference`, for teacher and student. `on_step` is called
    after each step. The same seed gives the same student on
    the same machine.

    Guidance is folded as in Meng et al. 2023 (arXiv 2210.03142), with the gradient of an energy and without a
    noise level; the few steps are trained through, against the end of the descent.

    Raises ValueError for guidance of a model without classes, for a model with words, for as many
    evaluations as the model's own steps, for a model that was distilled with another guidance, for an
    explicit energy, for noise-conditioned models, and for numbers out of range.
    """
    stored = check_teacher(model, guidance=guidance, evaluations=evaluations)
    check_count(samples=samples, descents=descents, batch_size=batch_size)
    check_positive(learning_rate=learning_rate)
    check_seed(seed=seed)
    if on_step is not None:
        check_callable(on_step=on_step)
    scale = stored.guidance
    frozen = for_inference(model, precision=precision)
    ways = _Ways.of(frozen, stored, count=max(descents, batch_size), seed=seed)
    student = deepcopy(model).train().requires_grad_(True)
    average = deepcopy(model).eval()
    rows = None
    if evaluations:
        fitted = _fit(frozen, stored, ways, steps=evaluations)
        rows = nn.Parameter(torch.tensor(fitted, device=ways.start.device))
    settings = OptimizerConfig(
        name="muon",
        learning_rate=learning_rate,
        warmup=int(WARMUP * samples),
        schedule="linear",
        cooldown=1 - WARMUP,
        clip=1.0,
    )
    optimizers = [(make_optimizer(student, settings, ways.start.device), 1.0)]
    if rows is not None:
        optimizers.append((torch.optim.Adam([rows]), ROWS_RATE / learning_rate))
    generator, seen = torch.Generator().manual_seed(seed), 0
    for batch in _batches(len(ways.start), batch_size, samples, generator):
        rate = learning_rate_at(settings, images=seen, total=samples)
        for one, most in optimizers:
            for group in one.param_groups:
                group["lr"] = rate * most
            one.zero_grad(set_to_none=True)
        points = torch.randint(len(ways.points), (POINTS * len(batch),), generator=generator)
        with frozen.in_precision():
            errors = ways.field_error(student, points), ways.end_error(student, batch, rows)
        sum(errors).backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(student.parameters(), settings.clip)
        for one, _ in optimizers:
            one.step()
        seen += len(batch)
        update_average(average, student, images=seen, batch=len(batch), halflife=HALFLIFE * samples)
        if on_step is not None:
            on_step(DistillationStep(seen, *(error.item() for error in errors)))
    coefficients = () if rows is None else tuple(map(tuple, rows.detach().cpu().tolist()))
    sampling = replace(stored, guidance=1.0, multistep_coefficients=coefficients)
    average.metadata = deepcopy(model.metadata) | {
        "sampling": asdict(sampling),
        "distillation": {
            "guidance": scale,
            "evaluations": evaluations,
            "samples": samples,
            "descents": descents,
            "seed": seed,
        },
    }
    return average.requires_grad_(True)


def check_teacher(
    model: Network, *, guidance: float | None = None, evaluations: int | None = None
) -> Sampling:
    """The settings of the teacher's descents, with `guidance`. Raises ValueError as `distill` does."""
    check_kind(Network, model=model)
    check_time_invariant(model)
    info = describe(model)
    stored = Sampling.of(info.metadata)
    known = info.metadata.get("distillation")
    if known is not None:
        raise ValueError(
            f"this model is a student already, of guidance {known['guidance']:g}: distill its teacher"
        )
    if info.sentence:
        raise ValueError("distillation is for models with classes or without; this one has words")
    if stored.guidance_interval is not None:
        raise ValueError(
            "guidance on an interval of the path cannot be folded into a field that knows no path: set "
            "sampling.guidance_interval to none"
        )
    if guidance is not None:
        check_range(0, math.inf, guidance=guidance)
        if not info.num_classes and guidance != 1:
            raise ValueError(
                f"guidance {guidance:g} needs a model with classes; this one has none: leave guidance out"
            )
        stored = stored.but(guidance=float(guidance))
    if not info.num_classes:
        stored = stored.but(guidance=1.0)
    if evaluations is not None:
        check_count(evaluations=evaluations)
        most = len(stored.multistep_coefficients) or stored.max_steps
        if evaluations >= most:
            raise ValueError(
                f"evaluations must be fewer than the {most} of the model's own descent; "
                f"got {evaluations}"
            )
    if evaluations is None and stored.guidance == 1:
        raise ValueError(
            "distillation needs a guidance other than 1, or fewer evaluations; got neither: give "
            "evaluations, such as 4"
        )
    return stored


@dataclass(frozen=True, eq=False)
class _Ways:
    """Descents of the teacher from noise to their end, and the guided field at points on their way."""

    start: Tensor
    """The noise, (N, ...)."""
    end: Tensor
    labels: Tensor | None
    points: Tensor
    """Points where the teacher was evaluated, (M, ...)."""
    gradients: Tensor
    """The guided field at the points, (M, ...)."""
    point_labels: Tensor | None

    @classmethod
    def of(cls, teacher: Frozen, sampling: Sampling, *, count: int, seed: int) -> _Ways:
        info, generator = describe(teacher), torch.Generator().manual_seed(seed)
        assert info.shape is not None  # a network says its shape
        start = torch.randn(count, *info.shape, generator=generator)
        labels = None
        if info.num_classes:
            labels = torch.randint(info.num_classes, (count,), generator=generator)
            without = torch.rand(count, generator=generator) < UNLABELLED
            labels = labels.masked_fill(without, info.num_classes).to(info.device)
        field = guided(teacher, sampling, labels)
        coefficients = sampling.multistep_coefficients
        rule = LinearMultistep(coefficients) if coefficients else sampling.make_rule()
        stop = None if coefficients else sampling.make_stop()
        steps = len(coefficients) or sampling.max_steps
        most = MOST_BYTES // (2 * start[0].numel() * start.element_size())
        share = min(1.0, most / (count * steps))
        kept: list[tuple[Tensor, Tensor, Tensor | None]] = []

        def noting(x: Tensor, labels: Tensor | None) -> Tensor:
            gradient = evaluate(field, x, labels)
            rows = torch.rand(len(x), generator=generator) < share
            kept.append(
                (x[rows].cpu(), gradient[rows].cpu(), None if labels is None else labels[rows])
            )
            return gradient

        ends = []
        for rows in torch.arange(count).split(TOGETHER):
            moved = descend(
                noting,
                start[rows].to(info.device, info.dtype),
                None if labels is None else labels[rows],
                rule=rule,
                stop=stop,
                max_steps=steps,
            )
            ends.append(moved.x)
        points, gradients, point_labels = zip(*kept, strict=True)
        return cls(
            start.to(info.device, info.dtype),
            torch.cat(ends),
            labels,
            torch.cat(points),
            torch.cat(gradients),
            None if labels is None else torch.cat(point_labels),
        )

    def field_error(self, student: Field, points: Tensor) -> Tensor:
        """The squared error of the student at these points, as a share of the squared field."""
        wanted = self.gradients[points].to(self.start)
        labels = None if self.point_labels is None else self.point_labels[points]
        found = student(self.points[points].to(self.start), labels).float()
        return (found - wanted).square().mean() / wanted.square().mean()

    def end_error(self, student: Field, batch: Tensor, rows: Tensor | None) -> Tensor:
        """The mean squared error of the ends of the steps `rows` (K, 1 + order) from the noise of the batch."""
        if rows is None:
            return self.start.new_zeros(())
        x, labels = self.start[batch], None if self.labels is None else self.labels[batch]
        gradients: list[Tensor] = []
        for row in rows:
            gradients = [student(x, labels).float(), *gradients][: len(row) - 1]
            x = row[0] * x
            for weight, gradient in zip(row[1:], gradients, strict=False):
                x = x - weight * gradient
        return (x - self.end[batch]).square().mean()


def _fit(teacher: Frozen, sampling: Sampling, ways: _Ways, *, steps: int) -> Any:
    """The coefficients of so many steps, fitted to descents of the teacher by its rule."""
    start = ways.start[:FITTED]
    labels = None if ways.labels is None else ways.labels[:FITTED]
    field = guided(teacher, sampling, labels)
    most = sampling.max_steps
    way = record_trajectory(
        field,
        start,
        labels,
        rule=sampling.make_rule(),
        stop=sampling.make_stop(),
        at=range(most + 1),
        max_steps=most,
    )
    return fit_multistep(field, way, labels, steps=steps).rows


def _batches(count: int, size: int, samples: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of all descents in random order, again and again, until `samples` are given."""
    done = 0
    while done < samples:
        for rows in torch.randperm(count, generator=generator).split(size):
            if done < samples:
                yield rows
                done += len(rows)
