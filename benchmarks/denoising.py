"""Denoising of test pictures with EqM, flow matching and classical denoisers.

    python benchmarks/denoising.py --flow FOLDER

Noisy pictures are gamma * picture + (1 - gamma) * noise; the noise level is 1 - gamma. EqM does not get
the noise level. Flow matching gets it, or starts every picture as pure noise. The classical denoisers of
scikit-image get picture / gamma, the standard deviation of its noise, and the settings with the best PSNR
on other pictures at that level. PSNR and SSIM are means with bootstrap intervals. Frechet distances are in
classifier features, to test pictures that are not used otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from quality import whole
from timing import record
from torch import Tensor

import eqm
from eqm.corruption import corrupt
from eqm.descent import integrate
from eqm.features import Features, open_features
from eqm.metrics import Moments, bootstrap, frechet_distance, psnr, ssim
from eqm.models import Network
from eqm.pictures import grid
from eqm.sampling import starting_noise
from eqm.tasks import denoise, estimate_gamma, estimate_sigma

Denoiser = Callable[[np.ndarray], np.ndarray]
NAMES = (
    "EqM, sample",
    "EqM, mmse",
    "flow matching, level unknown",
    "flow matching, level known",
)


def main(
    flow: str,
    model: str = "fashion-mnist",
    test: str = "fashion-mnist-test",
    features: str = "classifier:fashion-mnist",
    levels: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9),
    count: int = 1000,
    tuning: int = 32,
    steps: int = 25,
    assets: Path | None = None,
    seed: int = 50_000,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the tables and writes them to results/.

    Args:
        flow: Folder of a noise-conditioned flow-matching model with the same network.
        model: Name or folder of the EqM model.
        test: Test pictures.
        features: Features of the Frechet distance.
        levels: Noise levels, 1 - gamma.
        count: Number of pictures to denoise.
        tuning: Number of other pictures for tuning the classical denoisers.
        steps: Euler steps of flow matching.
        assets: Write a picture and a plot to this folder.
        seed: Seed of the noise.
        threads: CPU threads.
        quick: Only check that it runs; write nothing.
    """
    if quick:
        levels, count, tuning, steps = levels[:1], 8, 2, 3
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    network, baseline = (eqm.from_pretrained(name) for name in (model, flow))
    pictures = whole(test).data
    clean, others, rest = pictures.split([count, tuning, len(pictures) - count - tuning])
    judge = Judge(open_features(features), rest)
    table: dict[tuple[str, float], tuple[float, float, float]] = {}
    shown: list[Tensor] = []
    with record(f"denoising-{test}", f"Denoising: {test}", keep=not quick):
        print(
            f"{count} pictures. Flow matching takes {steps} Euler steps. Classical settings are tuned on "
            f"{tuning} other pictures. Frechet distances to {len(rest)} others in {judge.features.name} features; "
            f"the clean pictures have {judge.distance(clean):.2f}.\n"
        )
        for level in levels:
            gamma = 1 - level
            noise = starting_noise(clean.shape[1:], seeds=range(seed, seed + count + tuning))
            every = torch.cat([clean, others])
            noisy = corrupt(every, noise, torch.full((len(every),), gamma))
            x, tune = noisy.split([count, tuning])
            results = {"noisy": x / gamma}
            results |= dict(zip(NAMES, learned(network, baseline, x, gamma, steps), strict=True))
            settings = {}
            for name, grid_of in CLASSICAL.items():
                best, settings[name] = tuned(grid_of(level / gamma), tune / gamma, others)
                results[name] = apply(best, x / gamma)
            print(
                f"## Noise level {level:g}\n\n| | PSNR | SSIM | Frechet distance |\n"
                + "|---" * 4
                + "|"
            )
            for name, images in results.items():
                more = f" ({settings[name]})" if name in settings else ""
                table[name, level] = judge.row(name + more, images.clamp(-1, 1), clean)
            found = estimate_gamma(network, x)
            sigma = estimate_sigma(x / gamma)
            print(
                f"\nEstimates: gamma {gamma:g} from the field, mean {found.mean():.3f}, root mean square error "
                f"{(found - gamma).square().mean().sqrt():.3f}; sigma {level / gamma:.3f} from wavelets, mean "
                f"{sigma.mean():.3f}, error {(sigma - level / gamma).square().mean().sqrt():.3f}\n"
            )
            best_name = max(CLASSICAL, key=lambda name: table[name, level][0])
            shown += [part[:8] for part in (clean, x, *map(results.get, (*NAMES, best_name)))]
    if assets is not None:
        rows = torch.cat([torch.cat(shown[k :: len(NAMES) + 3][:3]) for k in range(len(NAMES) + 3)])
        grid(rows, columns=24, scale=1).save(assets / "denoise.png")
        plot(table, levels, assets / "denoise-levels.png")


class Judge:
    """Compares images with clean images, and their distribution with a reference."""

    def __init__(self, features: Features, reference: Tensor) -> None:
        self.features = features
        self.reference = self.moments(reference)

    def moments(self, images: Tensor) -> Moments:
        """The moments of the features of images."""
        return Moments.of(torch.cat([self.features(part).vector for part in images.split(500)]))

    def distance(self, images: Tensor) -> float:
        """The Frechet distance to the reference."""
        return frechet_distance(self.moments(images), self.reference)

    def row(
        self, name: str, images: Tensor, clean: Tensor, *more: str
    ) -> tuple[float, float, float]:
        """PSNR, SSIM and Frechet distance; prints them as a row of a table, with the cells `more`."""
        ratio, alike = (bootstrap(torch.mean, measure(images, clean)) for measure in (psnr, ssim))
        distance = self.distance(images)
        print(
            f"| {name} | {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] | "
            f"{alike.value:.3f} [{alike.low:.3f}, {alike.high:.3f}] | "
            + " | ".join([f"{distance:.2f}", *more])
            + " |",
            flush=True,
        )
        return ratio.value, alike.value, distance


def learned(
    network: Network, baseline: Network, x: Tensor, gamma: float, steps: int
) -> Iterator[Tensor]:
    """The results of the trained models, in the order of `NAMES`."""

    def by(way: Callable[..., Any]) -> Tensor:
        return torch.cat([way(part).x for part in x.split(250)])

    yield by(partial(denoise, network))
    yield by(partial(denoise, network, aim="mmse"))
    yield by(partial(integrate, baseline, steps=steps))
    yield by(partial(integrate, baseline, steps=steps, start=gamma))


def _tv(sigma: float) -> Iterator[tuple[str, Denoiser]]:
    from skimage.restoration import denoise_tv_chambolle

    for share in (0.3, 0.5, 0.7, 1, 1.4, 2, 3):
        yield f"weight {share:g} sigma", partial(denoise_tv_chambolle, weight=share * sigma)


def _nlm(sigma: float) -> Iterator[tuple[str, Denoiser]]:
    from skimage.restoration import denoise_nl_means

    for share, patch, distance in product((0.4, 0.6, 0.8, 1, 1.3), (3, 5), (6, 11)):
        yield (
            f"h {share:g} sigma, patch {patch}, distance {distance}",
            partial(
                denoise_nl_means,
                h=share * sigma,
                sigma=sigma,
                patch_size=patch,
                patch_distance=distance,
            ),
        )


def _wavelet(sigma: float) -> Iterator[tuple[str, Denoiser]]:
    from skimage.restoration import denoise_wavelet

    for wavelet, method, mode in product(
        ("db1", "db2", "sym4"), ("BayesShrink", "VisuShrink"), ("soft", "hard")
    ):
        # Fewer levels than the default, which warns on small pictures.
        yield (
            f"{wavelet}, {method}, {mode}",
            partial(
                denoise_wavelet,
                sigma=sigma,
                wavelet=wavelet,
                method=method,
                mode=mode,
                wavelet_levels=2,
            ),
        )


def _bilateral(sigma: float) -> Iterator[tuple[str, Denoiser]]:
    from skimage.restoration import denoise_bilateral

    def shifted(image: np.ndarray, **settings: float) -> np.ndarray:
        low = image.min()  # it takes only positive values
        return denoise_bilateral(image - low, **settings) + low

    for colour, space in product((1, 2, 4, 8), (0.7, 1, 1.5, 2)):
        yield (
            f"colour {colour:g} sigma, space {space:g}",
            partial(shifted, sigma_color=colour * sigma, sigma_spatial=space),
        )


CLASSICAL: dict[str, Callable[[float], Iterator[tuple[str, Denoiser]]]] = {
    "total variation": _tv,
    "non-local means": _nlm,
    "wavelets": _wavelet,
    "bilateral": _bilateral,
}
"""Denoisers of grey pictures with all settings to try, for a standard deviation of the noise."""


def tuned(
    candidates: Iterator[tuple[str, Denoiser]], noisy: Tensor, clean: Tensor
) -> tuple[Denoiser, str]:
    """The candidate with the best PSNR, and its settings."""
    scores = {}
    for name, denoiser in candidates:
        images = apply(denoiser, noisy).clamp(-1, 1)
        scores[name] = (psnr(images, clean).mean().item(), denoiser)
    best = max(scores, key=lambda name: scores[name][0])
    return scores[best][1], best


def apply(denoiser: Denoiser, images: Tensor) -> Tensor:
    """The results of a denoiser of single grey pictures, for images (N, 1, H, W)."""
    return torch.from_numpy(
        np.stack([denoiser(image[0].double().numpy()) for image in images])
    ).float()[:, None]


def plot(
    table: dict[tuple[str, float], tuple[float, float, float]],
    levels: tuple[float, ...],
    path: Path,
) -> None:
    """Plots PSNR and Frechet distance by noise level."""
    from eqm.plots import BLUE, GREEN, GREY, RED, drawing

    best = [max(table[name, level] for name in CLASSICAL) for level in levels]
    lines = dict(zip(NAMES, ((BLUE, "-"), (GREEN, "-"), (RED, ":"), (RED, "-")), strict=True))
    with drawing(path, panels=2) as axes:
        for axis, part, title in zip(axes, (0, 2), ("PSNR in dB", "Frechet distance"), strict=True):
            for name, (colour, style) in lines.items():
                values = [table[name, level][part] for level in levels]
                axis.plot(levels, values, style, marker="o", ms=3, color=colour, label=name)
            axis.plot(levels, [row[part] for row in best], "--", color=GREY, label="best classical")
            axis.set(xlabel="noise level", title=title)
        axes[1].set_yscale("log")
        axes[0].legend(fontsize=7)


if __name__ == "__main__":
    tyro.cli(main)
