"""Nearest neighbours: are samples copies of the training images?

The distance of samples to the nearest training image, compared with that of validation images: copies
would be closer. The paper shows neighbours and gives no numbers.
"""

import torch
from harness import EQM, Bench, everything, model, parts, prepare, run, seedwise, starts
from torch import Tensor
from verdict import Verdict, conclude

from eqm.descent import NesterovLookahead, descend
from eqm.metrics import auroc, nearest_distances
from eqm.plots import BLUE, GREY, drawing

PATH, COUNT, SHARES = 250 * 0.0017, 500, (0.01, 0.1, 0.5, 0.9)


def drawn(bench: Bench, seed: int) -> Tensor:
    """Samples (N, C, H, W), N at most COUNT."""
    steps, rule = bench.at.nfe, NesterovLookahead(PATH / bench.at.nfe)
    ends = descend(model(bench, EQM, seed), *starts(bench, seed, COUNT), rule=rule, max_steps=steps)
    return ends.x.clamp(-1, 1)


def distances(bench: Bench, seed: int, _: None) -> Tensor:
    """The distance of each sample to its nearest training image."""
    return nearest_distances(drawn(bench, seed), everything(parts(bench)[0])[0]).distance


def neighbours(bench: Bench) -> str:
    prepare(bench, EQM)
    seen, val_data = (everything(part)[0] for part in parts(bench))
    real = nearest_distances(val_data[:COUNT], seen).distance
    every = seedwise(bench, distances, [None])[None]
    with drawing(bench.output / f"neighbours-{bench.scale}.png", panels=2) as (left, right):
        edges = torch.linspace(0, max(real.max(), *(d.max() for d in every)).item(), 50)
        left.hist(real, edges, density=True, color=GREY, alpha=0.6, label="validation images")
        left.hist(torch.cat(every), edges, density=True, color=BLUE, alpha=0.5, label="samples")
        left.set(xlabel="distance to the nearest training image", yticks=[], title="In pixels")
        left.legend(fontsize=7)
        samples = drawn(bench, 0)[:16]
        nearest = seen[nearest_distances(samples, seen).index]
        strips = [
            part[:, 0]
            for pair in zip(samples.split(8), nearest.split(8), strict=True)
            for part in pair
        ]
        right.imshow(
            torch.cat([torch.cat(list(x), 1) for x in strips]), cmap="gray", vmin=-1, vmax=1
        )
        size = samples.shape[-1]
        right.set_yticks([size * (k + 0.5) for k in range(4)], ["samples", "nearest"] * 2)
        right.set_xticks([])
        right.grid(visible=False)
    quantiles = torch.tensor(SHARES)
    bound = real.quantile(0.01)
    copies = tuple((d < bound).double().mean().item() for d in every)
    rows: list[dict[str, object]] = [
        {"images": name}
        | {
            f"quantile {share:g}": tuple(d.quantile(share).item() for d in those)
            for share in quantiles.tolist()
        }
        | more
        for name, those, more in (
            ("validation images", [real], {"closer than 99 % of validation": 0.01, "AUROC": 0.5}),
            (
                *("samples", every),
                {
                    "closer than 99 % of validation": copies,
                    "AUROC": tuple(auroc(real, d) for d in every),
                },
            ),
        )
    ]
    verdicts = [
        Verdict(
            "Fewer than 5 % of samples are closer to a training image than 99 % of validation images.",
            "pictures only",
            tuple(0.05 - share for share in copies),
        ),
    ]
    how = (
        f"{bench.basis} Distance to the nearest of {len(seen):,} training images, for {len(every[0])} samples a "
        f"seed and {len(real)} validation images; pixels lie in -1..1. AUROC is the probability that a sample is "
        "farther away than a validation image."
    )
    return conclude(bench, "neighbours", "Nearest neighbours", rows, verdicts, how=how)


if __name__ == "__main__":
    run(
        neighbours,
        {"EqM-XL/2": "eqm train imagenet256-xl-2"},
        [
            "eqm sample {folder} --count 500 --output {folder}/samples.npz",
            "# then nearest_distances to the latents",
        ],
    )
