"""The order of the demonstration."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from eqm.demo.baseline import baseline
from eqm.demo.composition import composition
from eqm.demo.denoising import denoising
from eqm.demo.descent import descent
from eqm.demo.detection import detection
from eqm.demo.material import Material, prepare
from eqm.demo.report import Section, write_report
from eqm.demo.samples import samples
from eqm.devices import describe_machine
from eqm.files import make_folder

SECTIONS: dict[str, Callable[[Material], Section]] = {
    "drawing samples": samples,
    "watching the descent": descent,
    "comparing with flow matching": baseline,
    "denoising": denoising,
    "detecting impostors": detection,
    "composing classes": composition,
}


def run(
    folder: Path, *, images: int, seed: int, say: Callable[[str], None] = print
) -> list[Section]:
    """The sections of the report, which is then in `folder`; `say` hears of each stage."""
    began = time.monotonic()
    make_folder(folder)
    say("training two models, one by equilibrium matching and one by flow matching")
    material = prepare(folder, images=images, seed=seed)
    sections = []
    for stage, section in SECTIONS.items():
        say(stage)
        sections.append(section(material))
    size = sum(weight.numel() for weight in material.model.parameters())
    write_report(
        folder,
        sections,
        intro=f"A network of {size:,} parameters learned one field on {len(material.seen):,} handwritten digits of 8x8 "
        "pixels: the gradient of an energy that is low where digits are. It was trained once, by equilibrium matching, "
        "and everything below is a way to walk down that landscape.",
        circumstances=[
            ("Command", f"eqm demo --images {images} --seed {seed}"),
            (
                "Data",
                f"scikit-learn load_digits, {len(material.seen):,} for training, {len(material.val_data)} held out",
            ),
            (
                "Training",
                f"{images:,} images a model, repeats counted, batch 128, AdamW, float32, one thread a model",
            ),
            ("Time", f"{time.monotonic() - began:.0f} s in all"),
            ("Machine", describe_machine()),
        ],
    )
    return sections
