"""`eqm demo`: everything at once, on handwritten digits."""

from __future__ import annotations

from pathlib import Path


def demo(
    output: Path = Path("eqm-demo"), images: int = 200_000, seed: int = 0, dry_run: bool = False
) -> None:
    """Train a landscape on handwritten digits, put it to every use, and report.

    Args:
        output: Folder for the report, the pictures and the weights.
        images: Training images each of the two models sees, repeats counted.
        seed: Of the weights, the order of the data and the noise.
        dry_run: Only print what would be done.
    """
    from dataclasses import replace

    from eqm.cli.show import show_settings
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
    print(f"The report is {output / 'report.html'}; sample on with: eqm sample {output / 'model'}")
