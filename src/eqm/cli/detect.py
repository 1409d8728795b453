"""`eqm detect`: which pictures are unlike those that a model was trained on."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqm.cli.arguments import Model, Pictures

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 20
"""Lines of the table that are printed; a file has them all."""


def detect(
    model: Model,
    images: Pictures,
    normal: tuple[str, ...] = (),
    score: tuple[str, ...] = (),
    fpr: float | None = None,
    output: Path | None = None,
    maps: Path | None = None,
    save: bool = False,
    resize: bool = False,
    vae: str | None = None,
    batch_size: int = 256,
    device: str = "auto",
) -> None:
    """Tell anomalous pictures: `eqm detect fashion-mnist a.png b.png`.

    A score says how unlike the training pictures a picture is; what scores come to on normal pictures
    says which is too high. That calibration is stored with a model by `--normal PICTURES --save`; the
    models that come with eqm have one.

    Args:
        model: A trained model: its folder, its name on the hub, or one that comes with eqm (fashion-mnist,
            mnist-5k, openmoji-32).
        images: Files, folders, an .npz, a data set by name; `mnist-5k:0-99` takes some of what holds many.
        normal: Normal pictures to calibrate on, given likewise, best 1,000 or more that the model was not
            trained on; by default the calibration stored with the model.
        score: "combined", or one or several of energy, dot, gradient-norm, work, displacement, reconstruction,
            steps, loss, losses, residuals, complexity; by default combined, or as it is stored.
        fpr: Rate of false alarms: the share of normal pictures that may be called anomalous; by default
            0.05, or as it is stored.
        output: A .csv or .json with score, p-value and verdict of every picture.
        maps: Folder for heat maps, each picture beside where it is anomalous.
        keep: Store the calibration with the model, in its folder.
        resize: Crop and resize pictures that are not of the model's size.
        vae: What encodes latents: folder or name on the hub; by default, where training found it.
        batch_size: Pictures at a time.
        device: cpu, cuda, mps, ...; auto takes the fastest there is.
    """
    from dataclasses import replace

    from eqm.cli.images import open_model, read_images
    from eqm.cli.output import check_output
    from eqm.files import make_folder
    from eqm.tasks import EqmDetector

    if output is not None:
        check_output(output, (".csv", ".json"))
    if save and not (normal and Path(model).is_dir()):
        raise ValueError(
            "--save stores what --normal calibrates in the folder of a model: give both; "
            f"got {model} and {len(normal)} paths of normal pictures"
        )
    network, encoder = open_model(model, vae=vae, device=device)
    shape = encoder.image_shape_of(network.config.shape)

    def read(paths: Sequence[str]) -> tuple[Tensor, Tensor, list[str]]:
        pictures, names = read_images(paths, shape, resize=resize)
        return pictures, encoder.encode(pictures)[0], names

    asked = score[0] if len(score) == 1 else score
    if normal:
        rate = 0.05 if fpr is None else fpr
        detector = EqmDetector(network, asked or "combined", rate, batch_size=batch_size)
    else:
        detector = EqmDetector.load(model, network)
        if asked and asked != detector.score:
            raise ValueError(
                f"the calibration stored with {model} is of the score {detector.score}; for "
                f"{' and '.join(score)} give normal pictures, --normal PICTURES"
            )
        rate = detector.fpr if fpr is None else fpr
        detector = replace(detector, fpr=rate, batch_size=batch_size)
    pictures, latents, names = read(images)
    for folder in filter(None, [output and output.parent, maps]):
        make_folder(folder)
    if normal:
        detector.fit(read(normal)[1])
    threshold = detector.threshold()  # before the work, should the calibration be too small for it
    if save:
        detector.save(model)
    scores = detector.score_samples(latents)
    p_values = detector.p_values_of(scores).tolist()
    rows = [
        {"image": name, "score": value, "p_value": p, "anomalous": value > threshold}
        for name, value, p in zip(names, scores.tolist(), p_values, strict=True)
    ]
    _print(rows, f"{len(detector.calibration.scores):,} normal scores", detector.fpr)  # type: ignore[union-attr]
    if output is not None:
        about = {"model": model, "score": detector.score, "fpr": detector.fpr}
        _write(rows, about | {"threshold": threshold}, output)
        print(f"every picture: {output}")
    if maps is not None:
        _draw(pictures, detector.anomaly_map(latents), names, maps)
        print(f"heat maps: {maps}")


def _print(rows: list[dict[str, Any]], known: str, fpr: float) -> None:
    print("   score  p-value  picture")
    for row in rows[:SHOWN]:
        flag = "  anomalous" * row["anomalous"]
        print(f"{row['score']:8.4g}  {row['p_value']:7.4f}  {row['image']}{flag}")
    if len(rows) > SHOWN:
        print(f"     ... and {len(rows) - SHOWN:,} more: --output FILE.csv keeps all")
    count = sum(row["anomalous"] for row in rows)
    print(
        f"{count:,} of {len(rows):,} pictures are anomalous, at a rate of false alarms of {fpr:g} by "
        f"{known}"
    )


def _write(rows: list[dict[str, Any]], about: dict[str, Any], output: Path) -> None:
    from eqm.files import replacing

    with (
        replacing(output) as path,
        # names of pictures need not be UTF-8
        path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        if output.suffix == ".csv":
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
        else:
            finite = [math.isfinite(row["score"]) for row in rows]  # JSON knows no infinity
            listed = [r if f else r | {"score": "inf"} for r, f in zip(rows, finite, strict=True)]
            json.dump(about | {"images": listed}, file, indent=2, allow_nan=False)
            file.write("\n")


def _draw(pictures: Tensor, maps: Tensor, names: Sequence[str], folder: Path) -> None:
    import torch
    from torch.nn.functional import interpolate

    from eqm.cli.output import file_names
    from eqm.files import replacing
    from eqm.pictures import grid, heatmap

    size = pictures.shape[-2:]
    wide = interpolate(maps[:, None], size, mode="bilinear") if maps.shape[-2:] != size else maps
    for k, name in enumerate(file_names(names)):
        picture = pictures[k : k + 1, :3]
        colour = picture if picture.shape[1] == 3 else picture.mean(1, keepdim=True)
        pair = torch.cat([colour.expand(1, 3, *size), heatmap(picture, wide[k].view(1, *size))])
        with replacing(folder / f"{name}.png") as path:
            grid(pair, columns=2, scale=max(1, 224 // size[0])).save(path, format="png")
