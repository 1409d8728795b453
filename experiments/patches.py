"""Patch size of the transformer.

The same small transformer with several patch sizes. Smaller patches mean more tokens, and more compute with
the same weights.
"""

from harness import Bench, distances, run
from verdict import Verdict, compare, margins

from eqm.models import TransformerConfig

PAPER = {"patch 2": 32.85, "patch 4": 57.54}
PUBLISHED = {f"patch {patch}": f"eqm train imagenet256-b-{patch}" for patch in (2, 4, 8)}


def patches(bench: Bench) -> str:
    images = bench.at.recipe.model
    sizes = (1, 2, 4) if images.shape[-1] < 16 else (2, 4, 7)
    variants = {
        f"patch {patch}": {
            "model": TransformerConfig(
                shape=images.shape,  # type: ignore[arg-type]
                num_classes=images.num_classes,
                patch=patch,
                width=64,
                depth=4,
                heads=4,
            ),
            "optimizer.learning_rate": 1e-3,
        }
        for patch in sizes
    }
    found = distances(bench, variants)
    small, middle, large = found[0].values()
    verdicts = tuple(
        Verdict(
            f"Patches of {a} beat patches of {b}.",
            "32.85 (B/2) against 57.54 (B/4)",
            margins(worse, better),
        )
        for a, b, worse, better in (
            (*sizes[:2], middle, small),
            (*sizes[1:], large, middle),
        )
    )
    return compare(bench, "patches", "Patch size of the transformer", found, PAPER, verdicts)


if __name__ == "__main__":
    run(patches, PUBLISHED)
