"""Samples of small networks trained on faces, with and without position maps.

    python benchmarks/positions.py --sheet docs/assets/positions.png

The recipe `folder` trains on the first 100 pictures of scikit-image's `lfw_subset`, aligned faces, once with
a learned position map at each level and once without. Measured are the training loss in the last tenth of
the run, and the Frechet distance between samples and faces in 16 principal components of the faces.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import tyro
from PIL import Image
from scorers import everything, faces
from timing import record

from eqm import from_pretrained
from eqm.data import Source, open_source
from eqm.features import fit_pca
from eqm.metrics import Moments, frechet_distance
from eqm.pictures import grid
from eqm.recipes import RECIPES
from eqm.recipes.pixels import choose_data, choose_network
from eqm.tasks import generate
from eqm.train import TrainConfig, train


def main(
    images: int = 20_000, count: int = 200, sheet: Path | None = None, quick: bool = False
) -> None:
    """Prints the table and writes it to results/positions.md.

    Args:
        images: Images per run.
        count: Samples of each network.
        sheet: Write a picture of the first faces and samples to this file.
        quick: Only check that it runs, with few images; write nothing.
    """
    images, count = (640, 20) if quick else (images, count)
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as place,
        record("positions", "Position maps", keep=not quick),
    ):
        folder = Path(place)
        config, source = recipe_for(written(folder / "faces"))
        real = everything(source)
        features = fit_pca([real], 16)
        reference = Moments.of(features(real).vector)
        shown = [real[:10]]
        print(f"Recipe folder, {len(real)} faces of {tuple(real.shape[1:])}, {images:,} images.\n")
        print("| position maps | training loss | Frechet distance |\n|---|---|---|", flush=True)
        for positions in (True, False):
            model = replace(config.model, positions=positions)  # type: ignore[arg-type]
            run, end = replace(config, model=model, images=images), folder / str(positions)
            losses = [step.loss for step in train(run, source, end)]
            loss = torch.stack(losses[-len(losses) // 10 :]).mean()
            drawn = generate(from_pretrained(end), count=count).x.clamp(-1, 1)
            distance = frechet_distance(Moments.of(features(drawn).vector), reference)
            shown.append(drawn[:10])
            print(f"| {'yes' if positions else 'no'} | {loss:.4f} | {distance:.2f} |", flush=True)
        if sheet is not None:
            grid(torch.cat(shown), columns=10, scale=2).save(sheet)


def written(folder: Path) -> Path:
    """Writes each face as a picture; returns the folder."""
    folder.mkdir()
    for number, face in enumerate(faces()):
        Image.fromarray((face * 255).round().astype("uint8")).save(folder / f"{number:03}.png")
    return folder


def recipe_for(folder: Path) -> tuple[TrainConfig, Source]:
    """The recipe `folder`, fitted to these pictures, and the pictures."""
    recipe = RECIPES["folder"]
    config, _ = choose_data(replace(recipe, data=replace(recipe.data, path=str(folder))))
    source = open_source(config.data)
    config, _ = choose_network(replace(config, eval_every=0, threads=1), source)
    return config.suited_to(source), source


if __name__ == "__main__":
    tyro.cli(main)
