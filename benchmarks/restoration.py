"""Restoration of test pictures with holes, missing pixels and blur, with EqM and classical methods.

    python benchmarks/restoration.py

EqM restores every picture several times from different noise, without its label; printed are one sample and
the mean of all. The classical methods are biharmonic inpainting, bicubic upsampling, and Wiener and
Richardson-Lucy deconvolution of scikit-image with the true kernel and the settings with the best PSNR on
other pictures. PSNR and SSIM are means with bootstrap intervals. The misfit is the root mean square
difference between the measurement and that of the restored picture; it should be near the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro
from denoising import Judge, apply
from quality import whole
from timing import record
from torch import Tensor
from torch.nn import functional

import eqm
from eqm.features import open_features
from eqm.metrics import psnr
from eqm.pictures import grid
from eqm.tasks import Blur, Downsample, Inpaint, Operator, restore

Settings = Iterator[tuple[str, Callable[[Tensor], Tensor]]]


class Task(NamedTuple):
    """An operator with noise, and the classical methods with all settings to try."""

    operator: Operator
    noise: float
    classical: dict[str, Callable[[], Settings]]


def main(
    model: str = "fashion-mnist",
    test: str = "fashion-mnist-test",
    features: str = "classifier:fashion-mnist",
    count: int = 200,
    samples: int = 8,
    tuning: int = 32,
    steps: int = 25,
    sheet: Path | None = None,
    seed: int = 0,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the tables and writes them to results/.

    Args:
        model: Name or folder of the model.
        test: Test pictures.
        features: Features of the Frechet distance.
        count: Number of pictures to restore.
        samples: Samples of each picture.
        tuning: Number of other pictures for tuning the classical methods.
        steps: Steps of EqM.
        sheet: Write a picture of the first results of every task to this file.
        seed: Seed of the noise.
        threads: CPU threads.
        quick: Only check that it runs; write nothing.
    """
    if quick:
        count, samples, tuning, steps = 8, 2, 2, 3
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    network = eqm.from_pretrained(model)
    pictures = whole(test).data
    clean, others, rest = pictures.split([count, tuning, len(pictures) - count - tuning])
    judge = Judge(open_features(features), rest)
    shown: list[Tensor] = []
    with record(f"restoration-{test}", f"Restoration: {test}", keep=not quick):
        print(
            f"{count} pictures, {samples} samples of each in {steps} steps. Classical settings are tuned on "
            f"{tuning} other pictures. Frechet distances to {len(rest)} others in {judge.features.name} features; "
            f"the clean pictures have {judge.distance(clean):.2f}.\n"
        )
        for name, (operator, noise, classical) in tasks(clean.shape[-1]).items():
            generator = torch.Generator().manual_seed(seed)
            measured = [operator(part) for part in (clean, others)]
            measured = [y + noise * torch.randn(y.shape, generator=generator) for y in measured]
            y, tune = measured
            firsts = range(seed, seed + count * samples, 32 * samples)
            every = torch.cat(
                [
                    restore(
                        network, part, operator, noise=noise, count=samples, seed=first, steps=steps
                    ).x.unflatten(0, (-1, samples))
                    for part, first in zip(y.split(32), firsts, strict=True)
                ]
            )
            results = {"EqM, one sample": every[:, 0]}
            results[f"EqM, mean of {samples}"] = every.mean(1)
            for way, candidates in classical.items():
                scores = {
                    settings: (psnr(call(tune).clamp(-1, 1), others).mean().item(), call)
                    for settings, call in candidates()
                }
                best = max(scores, key=lambda settings: scores[settings][0])
                results[f"{way}{best and f' ({best})'}"] = scores[best][1](y)
            print(
                f"## {name}\n\n| | PSNR | SSIM | Frechet distance | misfit |\n" + "|---" * 5 + "|"
            )
            for way, images in results.items():
                misfit = (operator(images) - y).square().mean().sqrt()
                judge.row(way, images.clamp(-1, 1), clean, f"{misfit:.4f}")
            print()
            seen = y if y.shape == clean.shape else functional.interpolate(y, clean.shape[-1])
            last = list(results.values())[2]
            strip = [
                clean,
                seen,
                every[:, 0],
                every[:, 1],
                results[f"EqM, mean of {samples}"],
                last,
            ]
            shown.append(torch.cat([part[:12] for part in strip]))
    if sheet is not None:
        grid(torch.cat(shown), columns=12, scale=1).save(sheet)


def tasks(side: int) -> dict[str, Task]:
    """The tasks by name."""
    hole = torch.ones(side, side)
    low, high = side // 3, side // 3 + side // 3 + 1
    hole[low:high, low:high] = 0
    few = torch.rand(side, side, generator=torch.Generator().manual_seed(0)) < 0.3
    blur, motion = Blur.gaussian(1.5), Blur.motion(9, 30)
    return {
        f"A hole of {high - low}x{high - low} pixels": Task(
            Inpaint(hole), 0.0, {"biharmonic": lambda: _biharmonic(hole)}
        ),
        "30 % of the pixels": Task(Inpaint(few), 0.0, {"biharmonic": lambda: _biharmonic(few)}),
        "Downsampling by 4": Task(Downsample(4), 0.0, {"bicubic": lambda: _bicubic(side)}),
        "Gaussian blur of standard deviation 1.5, noise 0.02": Task(
            blur, 0.02, _deconvolutions(blur.kernel)
        ),
        "Motion blur over 9 pixels, noise 0.02": Task(motion, 0.02, _deconvolutions(motion.kernel)),
    }


def _biharmonic(mask: Tensor) -> Settings:
    from skimage.restoration import inpaint_biharmonic

    holes = ~mask.bool().numpy()
    yield "", lambda y: apply(lambda image: inpaint_biharmonic(image, holes), y)


def _bicubic(side: int) -> Settings:
    yield "", lambda y: functional.interpolate(y, side, mode="bicubic")


def _deconvolutions(kernel: Tensor) -> dict[str, Callable[[], Settings]]:
    from skimage.restoration import richardson_lucy, wiener

    array = kernel.double().numpy()
    margin = max(array.shape)

    def by(way: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensor], Tensor]:
        def inside(image: np.ndarray) -> np.ndarray:
            # Both assume a periodic picture or a dark surrounding; padding avoids artefacts at the border.
            wide = np.pad((image + 1) / 2, margin, mode="edge")
            return way(wide)[margin:-margin, margin:-margin] * 2 - 1

        return lambda y: apply(inside, y)

    def wieners() -> Settings:
        for balance in (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3):
            yield (
                f"balance {balance:g}",
                by(lambda image, b=balance: wiener(image, array, b, clip=False)),
            )

    def lucys() -> Settings:
        for rounds in (5, 10, 20, 40, 80):
            yield (
                f"{rounds} iterations",
                by(lambda image, n=rounds: richardson_lucy(image.clip(1e-3), array, n, clip=False)),
            )

    return {"Wiener": wieners, "Richardson-Lucy": lucys}


if __name__ == "__main__":
    tyro.cli(main)
