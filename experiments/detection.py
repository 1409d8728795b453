"""Detection: does the energy of EqM detect images of other kinds, and does the training loss do better?

The paper's score is the dot energy; higher means less like the data. It is compared with
`eqm.tasks.matching_error` of the same model. The paper's data sets are replaced: SVHN by another data
set, Textures by crops of the two photographs of scikit-learn. Constant images and means of two images are
made as in the paper. No labels are used.
"""

from statistics import fmean

import torch
from harness import DOT, Bench, everything, model, parts, prepare, run, seedwise
from sklearn.datasets import load_sample_images
from torch import Generator, Tensor
from torch.nn.functional import interpolate
from verdict import Verdict, conclude, margins

from eqm.data import DataConfig, open_source
from eqm.metrics import auroc
from eqm.plots import BLUE, GREEN, GREY, RED, drawing
from eqm.tasks import matching_error

COUNT = 500
"""Images of each kind, at most."""
OTHER = {"digits": "fashion-mnist-test", "fashion-mnist": "digits"}
"""The other data set, by scale."""
SCORES = ("dot energy", "matching error")
PAPER = {"another data set": 0.55, "textures": 0.49, "constant": 1.00, "mean of two": 0.68}


def other_images(images: Tensor, other: str) -> dict[str, Tensor]:
    """Images in -1..1 of other kinds, by kind, each (N, 1, H, W)."""
    generator, count, size = Generator().manual_seed(0), len(images), images.shape[-1]
    others = everything(open_source(DataConfig(other)))[0]
    order = torch.randperm(len(others), generator=generator)[:count]
    photographs = [
        torch.tensor(p, dtype=torch.float32).mean(2) / 127.5 - 1
        for p in load_sample_images().images
    ]
    crops, side = [], 4 * size
    for k in range(count):
        photograph = photographs[k % 2]
        top, left = (
            int(torch.randint(extent - side + 1, (), generator=generator))
            for extent in photograph.shape
        )
        crops.append(photograph[None, top : top + side, left : left + side])
    level = torch.rand(count, 1, 1, 1, generator=generator) * 2 - 1
    partner = images[torch.randperm(count, generator=generator)]
    kinds = (
        interpolate(others[order], size=(size, size), mode="area"),
        interpolate(torch.stack(crops), size=(size, size), mode="area"),
        level.expand_as(images),
        (images + partner) / 2,
    )
    return dict(zip(PAPER, kinds, strict=True))


def areas(bench: Bench, seed: int, _: None) -> dict[tuple[str, str], float]:
    """The AUROC by score and kind of other images."""
    field = model(bench, DOT, seed)
    images = everything(parts(bench)[1])[0][:COUNT]
    scores = {
        "dot energy": lambda x: field.energy_and_gradient(x, None)[0],
        "matching error": lambda x: matching_error(field, x, seed=seed),
    }
    with torch.no_grad():
        normal = {name: score(images) for name, score in scores.items()}
        return {
            (name, kind): auroc(normal[name], score(x))
            for kind, x in other_images(images, OTHER[bench.scale]).items()
            for name, score in scores.items()
        }


def detection(bench: Bench) -> str:
    prepare(bench, DOT)
    every = seedwise(bench, areas, [None])[None]
    found = {cell: tuple(each[cell] for each in every) for cell in every[0]}
    with drawing(bench.output / f"detection-{bench.scale}.png", panels=2) as (bars, pictures):
        places = torch.arange(len(PAPER))
        for k, (name, color) in enumerate(zip(SCORES, (BLUE, GREEN), strict=True)):
            values = [found[name, kind] for kind in PAPER]
            bars.bar(
                places + 0.27 * k,
                list(map(fmean, values)),
                0.25,
                color=color,
                alpha=0.4,
                label=name,
            )
            for place, dots in zip(places, values, strict=True):
                bars.plot([place + 0.27 * k] * len(dots), dots, "o", color=color, ms=3)
        bars.bar(
            places + 0.54,
            list(PAPER.values()),
            0.25,
            color=RED,
            alpha=0.4,
            label="paper, dot energy",
        )
        bars.axhline(0.5, color=GREY, ls=":")
        bars.set_xticks(places + 0.27, list(PAPER), fontsize=7)
        bars.set_title("AUROC")
        bars.legend(fontsize=7, loc="lower right")
        images = everything(parts(bench)[1])[0][:COUNT]
        kinds = {"the data": images, **other_images(images, OTHER[bench.scale])}
        sheet = torch.cat([torch.cat(list(x[:8, 0]), 1) for x in kinds.values()])
        pictures.imshow(sheet, cmap="gray", vmin=-1, vmax=1)
        size = images.shape[-1]
        pictures.set_yticks([size * (k + 0.5) for k in range(len(kinds))], list(kinds), fontsize=7)
        pictures.set_xticks([])
        pictures.grid(visible=False)
    rows = [
        {"other images": kind}
        | {f"AUROC, {name}": found[name, kind] for name in SCORES}
        | {"paper, dot energy": PAPER[kind]}
        for kind in PAPER
    ]
    energy, error = ([found[name, kind] for kind in PAPER] for name in SCORES)
    mean = {
        name: tuple(map(fmean, zip(*v, strict=True)))
        for name, v in zip(SCORES, (energy, error), strict=True)
    }
    verdicts = [
        *(
            Verdict(
                f"The dot energy detects better than chance: {kind}.",
                f"AUROC {PAPER[kind]:.2f}",
                tuple(area - 0.5 for area in found["dot energy", kind]),
            )
            for kind in PAPER
        ),
        Verdict(
            "The matching error has a higher mean AUROC than the dot energy.",
            "not in the paper",
            margins(mean["matching error"], mean["dot energy"]),
        ),
    ]
    how = (
        f"{bench.basis} The model is a dot energy. AUROC of validation images against other images, "
        f"at most {COUNT} of each. The other data set is {OTHER[bench.scale]}, resized."
    )
    return conclude(bench, "detection", "Detection by the energy", rows, verdicts, how=how)


if __name__ == "__main__":
    run(
        detection,
        {"EqM-E-B/2 (the paper's is of CIFAR-10)": "eqm train imagenet256-b-2-dot"},
        ["# score: load {folder} with eqm.from_pretrained and take .energy(latents)"],
    )
