"""`eqm demo`: everything at once, on handwritten digits."""

from __future__ import annotations

from pathlib import Path

from eqm.registry import register
from eqm.schema import Count, Seed


@register("command", "demo")
def demo(
    output: Path = Path("eqm-demo"), images: Count = 200_000, seed: Seed = 0, dry_run: bool = False
) -> None:
    """Train on handwritten digits and write a report of every use, in about two minutes.

    Example: `eqm demo`, then open eqm-demo/report.html

    Args:
        output: Folder for the report, the pictures and the weights.
        images: Training images for each of the two models, repeats counted.
        seed: Seed of the weights, the order of the data and the noise.
        dry_run: Only print the settings.
    """
    from dataclasses import replace

    from eqm.cli.output import show_settings
    from eqm.recipes import RECIPES

    config = replace(RECIPES["digits"], images=images, seed=seed)
    if dry_run:
        show_settings({**config.flat(), "output": output})
        return
    try:
        from eqm.demo.run import run
    except ImportError as error:
        raise ValueError(f"the demo needs {error.name}: pip install 'eqm[demo]'") from error

    run(output, images=images, seed=seed, say=lambda stage: print(f"==> {stage}", flush=True))
    print(
        f"The report is {output / 'report.html'}. Draw more digits: eqm sample {output / 'model'}"
    )
