"""`eqm distill`: a student of a trained model that takes fewer passes for a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from eqm.cli import options
from eqm.registry import register


@register("command", "distill")
def distill(
    model: options.Model,
    output: Path,
    guidance: Annotated[
        float | None, tyro.conf.arg(help_behavior_hint="(default: as stored with the model)")
    ] = None,
    evaluations: Annotated[
        int | None, tyro.conf.arg(help_behavior_hint="(default: as many as the teacher)")
    ] = None,
    samples: options.Number = 20_000,
    descents: options.Number = 2048,
    learning_rate: float = 1e-3,
    batch_size: options.BatchSize = 64,
    precision: options.Precision = "auto",
    seed: options.AnySeed = 0,
    device: options.Device = "auto",
) -> None:
    """Train a student of a model that takes fewer passes of the network for a sample.

    Example: `eqm distill fashion-mnist --guidance 1.2 --evaluations 4 --output runs/quick`

    Guidance is folded into the student: a guided evaluation takes one pass instead of two. With
    --evaluations it also learns to end in so few steps. It needs no data, and takes minutes. The student is
    a model like any other; `eqm sample runs/quick` uses what it stores.

    Args:
        output: Folder for the student.
        guidance: The guidance scale that is folded in.
        evaluations: Evaluations of the network for one sample, fewer than the teacher's.
        samples: Training samples, in all.
        descents: Descents of the teacher. The student learns from them, more than once if they are fewer
            than the samples.
        learning_rate: The highest learning rate of Muon.
        seed: Seed of all random numbers.
    """
    import time

    from eqm.devices import pick_device
    from eqm.energy import Energy
    from eqm.files import check_folder, check_unlocked, make_folder
    from eqm.models import from_pretrained, save_pretrained
    from eqm.train import DistillationStep
    from eqm.train import distill as distill_model

    check_folder(output, "eqm", name="output")
    if Path(model).is_dir():
        check_unlocked(model)
    teacher = from_pretrained(model, device=pick_device(device))
    if isinstance(teacher, Energy):
        raise ValueError(
            f"distillation is for models that learn the field itself; {model} learns an energy: train one with "
            "objective.energy implicit"
        )
    print(f"the teacher makes {descents:,} descents, then the student learns", flush=True)
    begun, shown = time.monotonic(), 0

    def show(step: DistillationStep) -> None:
        nonlocal shown
        if 10 * step.samples // samples > shown:
            shown = 10 * step.samples // samples
            ends = f", ends {step.end_error:.3g}" if evaluations else ""
            spent = time.monotonic() - begun
            print(
                f"{step.samples:>9,} samples  error of the field {step.field_error:.3g}{ends}  {spent:.0f} s",
                flush=True,
            )

    student = distill_model(
        teacher,
        guidance=guidance,
        evaluations=evaluations,
        samples=samples,
        descents=descents,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        precision=precision,
        on_step=show,
    )
    save_pretrained(student, make_folder(output))
    print(f"wrote {output}: try `eqm sample {output} --output samples.png`")
