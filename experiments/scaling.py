"""Network size and training length: EqM and noise-conditioned flow matching.

Several widths with the full training length, and several training lengths with the middle width. EqM is
sampled by the best sampler of the harness, flow matching by as many steps even in gamma.
"""

from itertools import pairwise
from statistics import fmean, stdev

from harness import EQM, FLOW, Bench, Settings, command, distances, run
from verdict import Verdict, best, conclude, margins

from eqm.plots import BLUE, RED, drawing
from eqm.recipes.latents import IMAGES

KINDS = {"EqM": EQM, "flow matching": FLOW}
EPOCHS = {  # the paper's, for XL/2: EqM, then flow matching
    140: (11.2, 14.1),
    200: (9.7, 12.2),
    400: (8.5, 10.1),
    800: (6.1, 8.8),
}
SIZES = {"S/2": (60.9, 64.7), "B/2": (34.5, 36.8), "L/2": (17.8, 22.3), "XL/2": (15.7, 18.2)}
PUBLISHED = {
    f"{kind} {size}": command(
        {**changes, "images": 80 * IMAGES}, f"imagenet256-{size.lower().replace('/', '-')}"
    )
    for size in SIZES
    for kind, changes in KINDS.items()
}


def scaling(bench: Bench) -> str:
    recipe = bench.at.recipe
    usual = recipe.model.width  # type: ignore[union-attr]
    widths, lengths = (usual // 2, usual, usual * 3 // 2), [recipe.images // k for k in (4, 2, 1)]
    points: dict[tuple[int, int], Settings] = {
        (width, images): {"model.width": width, "images": images}
        for width, images in (*((w, lengths[-1]) for w in widths), *((usual, n) for n in lengths))
    }
    variants = {
        f"{kind}, width {width}, {images:,} images": {**changes, **point}
        for (width, images), point in points.items()
        for kind, changes in KINDS.items()
    }
    found, samplers = distances(bench, variants)
    values = iter(found.values())
    ours, flow = {}, {}
    for point in points:
        ours[point], flow[point] = next(values), next(values)
    by_width = [(width, lengths[-1]) for width in widths]
    by_length = [(usual, images) for images in lengths]

    with drawing(bench.output / f"scaling-{bench.scale}.png", panels=4) as axes:
        for axis, places, coordinate, title in (
            (axes[0], by_width, 0, "Here, by width"),
            (axes[1], by_length, 1, "Here, by training images"),
        ):
            for name, color, of in (("EqM", BLUE, ours), ("flow matching", RED, flow)):
                axis.errorbar(
                    [place[coordinate] for place in places],
                    [fmean(of[place]) for place in places],
                    [stdev(of[place]) if bench.seeds > 1 else 0 for place in places],
                    fmt="o-",
                    color=color,
                    label=name,
                    capsize=3,
                )
            axis.set(title=title, ylabel="Frechet distance")
            axis.set_xticks([place[coordinate] for place in places])
            axis.set_ylim(bottom=0)
        for axis, paper, title in (
            (axes[2], SIZES, "The paper's FID, by size"),
            (axes[3], EPOCHS, "The paper's FID, by epochs"),
        ):
            names = list(map(str, paper))
            axis.plot(names, [us for us, _ in paper.values()], "o-", color=BLUE)
            axis.plot(names, [them for _, them in paper.values()], "o-", color=RED)
            axis.set(title=title)
            axis.set_ylim(bottom=0)
        axes[0].legend()

    def everywhere(places: list[tuple[int, int]]) -> tuple[float, ...]:
        return best(*(margins(flow[place], ours[place]) for place in places))

    verdicts = (
        Verdict(
            "EqM beats flow matching at every network size.",
            "; ".join(f"{size}: {us} against {them}" for size, (us, them) in SIZES.items()),
            everywhere(by_width),
        ),
        Verdict(
            "EqM beats flow matching at every training length.",
            "; ".join(f"{n} epochs: {us} against {them}" for n, (us, them) in EPOCHS.items()),
            everywhere(by_length),
        ),
        Verdict(
            "EqM improves with network size.",
            "60.9, 34.5, 17.8, 15.7 for S, B, L, XL",
            _falls([ours[place] for place in by_width]),
        ),
        Verdict(
            "EqM improves with training length.",
            "11.2, 9.7, 8.5, 6.1 for 140, 200, 400, 800 epochs",
            _falls([ours[place] for place in by_length]),
        ),
    )
    rows = [
        {"variant": name, "Frechet distance": list(found[name]), "sampler": str(samplers[name])}
        for name in variants
    ]
    return conclude(bench, "scaling", "Size and training length", rows, verdicts)


def _falls(series: list[tuple[float, ...]]) -> tuple[float, ...]:
    """The smallest decrease from one to the next, seed by seed."""
    return best(*(margins(a, b) for a, b in pairwise(series)))


if __name__ == "__main__":
    run(scaling, PUBLISHED)
