"""Section: 28x28 pictures of clothes with a model that comes with eqm."""

from __future__ import annotations

import torch

from eqm.corruption import corrupt
from eqm.data import DataConfig
from eqm.data.builtin import small_copy
from eqm.demo.material import Material
from eqm.demo.report import Fact, Section
from eqm.demo.style import strips
from eqm.metrics import psnr
from eqm.models import from_pretrained
from eqm.randomness import SampleRandom
from eqm.sampling import starting_noise
from eqm.tasks import Inpaint, denoise, generate, restore

COUNT = 48
LEVELS = (0.2, 0.7)
"""The smallest and the largest share of noise."""
SHOWN = 12


def clothes(material: Material) -> Section:
    """Samples, denoising at mixed noise levels and inpainting with the shipped model."""
    model = from_pretrained("fashion-mnist")
    source = small_copy(DataConfig("fashion-mnist-test"))
    assert source is not None  # it comes with eqm
    rows = torch.arange(COUNT)
    clean = source.batch(rows, SampleRandom(0, rows))
    share = torch.linspace(*LEVELS, SHOWN).repeat(COUNT // SHOWN)
    noisy = corrupt(clean, starting_noise(clean.shape[1:], seeds=range(COUNT)), 1 - share)
    cleaned = denoise(model, noisy)
    known = torch.ones(28, 28)
    known[:, 14:] = 0  # the right half is missing
    half = Inpaint(known)
    filled = restore(model, half(clean[:SHOWN]), half, steps=10).x
    drawn = generate(model, [k % 10 for k in range(SHOWN)], seed=material.seed)

    shown = {
        "samples": drawn.x,
        "test pictures": clean[:SHOWN],
        "noisy": noisy[:SHOWN],
        "denoised": cleaned.x[:SHOWN],
        "left half": half(clean[:SHOWN]),
        "filled in": filled,
    }
    strips(material.folder / "clothes.png", [shown], height=4.2)
    levels = f"{COUNT} test pictures, the share of noise from {LEVELS[0]:g} to {LEVELS[1]:g}"
    return Section(
        "Larger pictures: clothes of 28x28 pixels",
        "The model fashion-mnist comes with eqm. One call denoises pictures of different noise levels, and nobody "
        "tells it the levels. No flow-matching model of this size comes with eqm, so this section "
        "compares nothing.",
        "clothes.png",
        (
            Fact(
                "PSNR of the noisy pictures in dB", psnr(noisy, clean).mean().item(), levels, ".1f"
            ),
            Fact(
                "PSNR of the denoised pictures in dB",
                psnr(cleaned.x, clean).mean().item(),
                f"the same pictures; {int(cleaned.nfe.min())} to {int(cleaned.nfe.max())} "
                "evaluations each",
                ".1f",
            ),
            Fact(
                "Evaluations per sample",
                drawn.nfe.float().mean().item(),
                f"{SHOWN} samples from noise, with the settings stored with the model",
                ".1f",
            ),
        ),
    )
