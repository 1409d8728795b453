"""Section: noisy digits made clean without knowing the noise level."""

from __future__ import annotations

import torch

from eqm.corruption import corrupt
from eqm.demo.material import Material
from eqm.demo.report import Fact, Section
from eqm.demo.style import strips
from eqm.descent import integrate
from eqm.metrics import psnr
from eqm.sampling import starting_noise
from eqm.tasks import denoise

GAMMAS = (0.25, 0.5, 0.75)
FLOW_STEPS = 20
SHOWN = 4
EQM, UNKNOWN, KNOWN = (
    "equilibrium matching",
    "flow matching, level unknown",
    "flow matching, level known",
)
MEASURES = ("recognised digits", "PSNR")


def denoising(material: Material) -> Section:
    """Validation digits at several noise levels, denoised by both models."""
    clean, labels = material.val_data.data, material.val_data.classes
    noise = starting_noise(material.val_data.shape, seeds=range(50_000, 50_000 + len(clean)))
    columns, facts = [], []
    wins = {(measure, name): 0 for measure in MEASURES for name in (UNKNOWN, KNOWN)}
    for gamma in GAMMAS:
        noisy = corrupt(clean, noise, torch.full((len(clean),), gamma))
        ours = denoise(material.model, noisy)
        results = {
            "digit": clean,
            "noisy": noisy,
            EQM: ours.x,
            UNKNOWN: integrate(material.baseline, noisy, steps=FLOW_STEPS).x,
            KNOWN: integrate(material.baseline, noisy, steps=FLOW_STEPS, start=gamma).x,
        }
        columns.append({name: images[:SHOWN] for name, images in results.items()})
        level = f"noise level {1 - gamma:g}"
        spent = f"{ours.nfe.float().mean():.0f} evaluations on average"
        value = {
            (measure, name): found
            for name in (EQM, UNKNOWN, KNOWN)
            for measure, found in (
                ("PSNR", psnr(results[name], clean).mean().item()),
                ("recognised digits", material.recognised(results[name], labels)),
            )
        }
        for measure, name in wins:
            wins[measure, name] += value[measure, EQM] > value[measure, name]
        for name, how in (
            (EQM, f"level unknown, {spent}"),
            (UNKNOWN, f"{FLOW_STEPS} Euler steps from gamma 0, as from noise"),
            (KNOWN, f"{FLOW_STEPS} Euler steps from gamma {gamma:g}"),
        ):
            facts += [
                Fact(f"PSNR in dB at {level}: {name}", value["PSNR", name], how, ".1f"),
                Fact(
                    f"Recognised at {level}: {name}",
                    value["recognised digits", name],
                    "share that the classifier takes for the right digit",
                ),
            ]
    recognised, ratio = MEASURES
    levels = len(GAMMAS)
    titles = [f"noise level {1 - gamma:g}" for gamma in GAMMAS]
    strips(material.folder / "denoising.png", columns, height=3.6, titles=titles)
    return Section(
        "Denoising when the noise level is unknown",
        f"{len(clean)} validation digits mixed with noise, without labels. EqM needs no noise level: the descent "
        "starts at the noisy picture and stops when the gradient is small. Flow matching that does not know the level "
        "must treat every picture as pure noise. At noise level 0.75 little is left of the digit, and "
        "every method draws another one.",
        "denoising.png",
        tuple(facts),
        verdict="Denoising: without the noise level, EqM beats flow matching at "
        f"{wins[recognised, UNKNOWN]} of {levels} levels by recognised digits, and at "
        f"{wins[ratio, UNKNOWN]} of {levels} by PSNR. If flow matching knows the level, EqM beats it "
        f"at {wins[recognised, KNOWN]} and {wins[ratio, KNOWN]} of {levels}.",
    )
