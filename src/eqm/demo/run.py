"""The sections of the demo, in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from eqm.demo.baseline import baseline
from eqm.demo.clothes import clothes
from eqm.demo.composition import composition
from eqm.demo.denoising import denoising
from eqm.demo.descent import descent
from eqm.demo.detection import detection
from eqm.demo.material import Material, prepare
from eqm.demo.report import Section, write_report
from eqm.demo.samples import samples
from eqm.devices import describe_machine
from eqm.files import claim_folder

SECTIONS: dict[str, Callable[[Material], Section]] = {
    "drawing samples": samples,
    "watching the descent": descent,
    "comparing samples with flow matching": baseline,
    "denoising": denoising,
    "denoising and filling in clothes": clothes,
    "detecting impostors": detection,
    "composing classes": composition,
}


def run(
    folder: Path, *, images: int, seed: int, say: Callable[[str], None] = print
) -> list[Section]:
    """The sections of the report, which it writes into `folder`; `say` is called with each stage."""
    began = time.monotonic()
    claim_folder(folder, "eqm-demo")
    say("training two models, by equilibrium matching and by flow matching")
    material = prepare(folder, images=images, seed=seed)
    sections = []
    for stage, section in SECTIONS.items():
        say(stage)
        sections.append(section(material))
    size = sum(weight.numel() for weight in material.model.parameters())
    write_report(
        folder,
        sections,
        intro=f"A network of {size:,} parameters was trained on {len(material.seen):,} handwritten digits of 8x8 "
        "pixels, once, by equilibrium matching (EqM). It gives the gradient of an energy that is low where digits "
        "are, and it takes no noise level. Every use below follows that gradient downhill.",
        circumstances=[
            ("Command", f"eqm demo --images {images} --seed {seed}"),
            (
                "Data",
                f"load_digits of scikit-learn: {len(material.seen):,} training, {len(material.val_data)} validation",
            ),
            (
                "Training",
                f"{images:,} images for each model, repeats counted; batch 128, AdamW, float32, one thread",
            ),
            ("Time", f"{time.monotonic() - began:.0f} s in all"),
            ("Machine", describe_machine()),
        ],
    )
    return sections
