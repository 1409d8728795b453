"""Test pictures restored from holes, few pixels and blur: by a landscape and by classical means.

    python benchmarks/restoration.py

The landscape restores every picture several times, from different noise, without its label: one
sample, and the mean of all. Beside it biharmonic inpainting, bicubic enlargement, and Wiener and
Richardson-Lucy deconvolution of scikit-image, told the kernel, with the settings that have the best
PSNR on other pictures. PSNR and SSIM are means with bootstrap intervals. The misfit is the root mean
square difference between the measurement and that of the restored picture, which the noise in the
measurement is the measure of.
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
    """What was measured, and the classical ways back, each in all settings to try."""

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
    """Prints the tables and keeps them in results/.

    Args:
        model: Name or folder of the landscape.
        test: Pictures that it has not seen.
        features: Of the Frechet distance.
        count: Pictures to restore.
        samples: Of each.
        tuning: Other pictures to tune the classical means on.
        steps: Of the landscape.
        sheet: Picture of the first of every task, if you like.
        seed: Of the noise.
        threads: CPU threads.
        quick: Only try whether everything runs.
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
    with record(f"restoration-{test}", f"Restoring: {test}", keep=not quick):
        print(
            f"{count} pictures, {samples} samples of each in {steps} steps; classical settings tuned on "
            f"{tuning} other pictures; Frechet distances to {len(rest)} others in {judge.features.name}; "
            f"of the clean pictures {judge.distance(clean):.2f}.\n"
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
            results = {"landscape, one sample": every[:, 0]}
            results[f"landscape, mean of {samples}"] = every.mean(1)
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
                results[f"landscape, mean of {samples}"],
                last,
            ]
            shown.append(torch.cat([part[:12] for part in strip]))
    if sheet is not None:
        grid(torch.cat(shown), columns=12, scale=1).save(sheet)


def tasks(side: int) -> dict[str, Task]:
    """What is tried, by name."""
    hole = torch.ones(side, side)
    low, high = side // 3, side // 3 + side // 3 + 1
    hole[low:high, low:high] = 0
    few = torch.rand(side, side, generator=torch.Generator().manual_seed(0)) < 0.3
    bell, move = Blur.gaussian(1.5), Blur.motion(9, 30)
    return {
        f"A hole of {high - low}x{high - low} pixels": Task(
            Inpaint(hole), 0.0, {"biharmonic": lambda: _biharmonic(hole)}
        ),
        "Three pixels in ten": Task(Inpaint(few), 0.0, {"biharmonic": lambda: _biharmonic(few)}),
        "A quarter of the side": Task(Downsample(4), 0.0, {"bicubic": lambda: _bicubic(side)}),
        "Bell of deviation 1.5, noise .02": Task(bell, 0.02, _deconvolutions(bell.kernel)),
        "Motion over 9 pixels, noise .02": Task(move, 0.02, _deconvolutions(move.kernel)),
    }


def _biharmonic(mask: Tensor) -> Settings:
    from skimage.restoration import inpaint_biharmonic

    holes = ~mask.bool().numpy()
    yield "", lambda y: apply(lambda image: inpaint_biharmonic(image, holes), y)


def _bicubic(side: int) -> Settings:
    yield "", lambda y: functional.interpolate(y, side, mode="bicubic")


def _deconvolutions(kernel: Tensor) -> dict[str, Callable[[], Settings]]:
    from skimage.restoration import richardson_lucy, wiener

    bell = kernel.double().numpy()
    margin = max(bell.shape)

    def by(way: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensor], Tensor]:
        def inside(image: np.ndarray) -> np.ndarray:
            # Both take the picture for periodic or dark around: a margin keeps that off.
            wide = np.pad((image + 1) / 2, margin, mode="edge")
            return way(wide)[margin:-margin, margin:-margin] * 2 - 1

        return lambda y: apply(inside, y)

    def wieners() -> Settings:
        for balance in (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3):
            yield (
                f"balance {balance:g}",
                by(lambda image, b=balance: wiener(image, bell, b, clip=False)),
            )

    def lucys() -> Settings:
        for rounds in (5, 10, 20, 40, 80):
            yield (
                f"{rounds} rounds",
                by(lambda image, n=rounds: richardson_lucy(image.clip(1e-3), bell, n, clip=False)),
            )

    return {"Wiener": wieners, "Richardson-Lucy": lucys}


if __name__ == "__main__":
    tyro.cli(main)
