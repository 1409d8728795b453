"""`eqm detect`: pictures that are unlike the training data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from eqm.cli import options
from eqm.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from eqm.cli.images import Given


@register("command", "detect-run")
@register("command", "detect")
def detect(
    model: options.Model,
    images: options.Pictures,
    normal: Annotated[
        tuple[str, ...],
        arg(
            metavar="PICTURES ...",
            help_behavior_hint="(default: the calibration stored with the model)",
        ),
    ] = (),
    score: Annotated[
        tuple[str, ...],
        arg(metavar="NAME ...", help_behavior_hint="(default: as stored, else combined)"),
    ] = (),
    fpr: Annotated[float | None, arg(help_behavior_hint="(default: as stored, else 0.05)")] = None,
    contamination: float = 0.0,
    output: Path | None = None,
    maps: Path | None = None,
    draw: Literal["all", "anomalous", "none"] = "all",
    save: bool = False,
    resize: options.Resize = False,
    reading: options.ReadingOptions = options.AS_FOUND,
    broken: options.Broken = "skip",
    vae: options.Vae = None,
    batch_size: options.BatchSize = 256,
    device: options.Device = "auto",
) -> int:
    """Find anomalous pictures: those unlike the training data.

    Example: `eqm detect run runs/screw new/ --output found`

    MODEL is a folder that `eqm detect fit` wrote from pictures of good parts, or any model. `eqm detect MODEL` is
    short for `eqm detect run MODEL`. `eqm detect eval` measures a detector on parts with known defects.

    A score says how unlike the training data a picture is. Scores of normal pictures calibrate the
    threshold. The models that come with eqm are calibrated; `--normal PICTURES --save` calibrates yours.
    Under torchrun each process reads and scores its share.

    Args:
        normal: Normal pictures to calibrate on, best 1,000 or more that the model was not trained on.
        score: "combined", or one or more scores, such as loss or energy; an unknown name lists all.
        contamination: The largest share of the normal pictures that may be anomalous, such as 0.1: the clear
            outliers among them are left out.
        fpr: False-positive rate: the share of normal pictures that may be called anomalous.
        output: A .csv or .json with score, p-value and verdict of every picture. With a folder of `eqm detect fit`
            also a new folder for both, overlays and masks.
        draw: Of which pictures overlays and masks are written into the folder --output.
        maps: Folder for heat maps of where each picture is anomalous. For signals and videos also the numbers,
            NAME.npy: (L,) along time, or (T, H, W) for each frame.
        save: Store the calibration in the folder of the model.
    """
    from eqm.cli.detect_parts import check_none, check_pixels, is_of_parts, run_parts

    if is_of_parts(model):
        others = {"normal": normal, "score": score, "contamination": contamination, "maps": maps}
        others |= {"save": save, "vae": vae}
        check_none(model, others)
        return run_parts(
            *(model, images),
            fpr=fpr,
            output=output,
            draw=draw,
            reading=reading,
            broken=broken,
            device=device,
        )
    check_pixels(model)
    import atexit
    from dataclasses import replace

    from eqm.cli.images import open_model, read_images
    from eqm.cli.output import check_output, file_names
    from eqm.cli.verdicts import print_rows, write_rows
    from eqm.files import check_folder, make_folder
    from eqm.tasks import EqmDetector
    from eqm.train import distributed

    if output is not None:
        check_output(output, (".csv", ".json"))
    if maps is not None:
        check_folder(maps, name="maps")
    if contamination and not normal:
        raise ValueError(
            f"--contamination is for the pictures of --normal; got {contamination} without: give both"
        )
    if save and not (normal and Path(model).is_dir()):
        raise ValueError(
            "--save stores the calibration by --normal in the folder of a model; "
            f"got {model} and {len(normal)} paths of normal pictures: give both"
        )
    place = distributed.join(device)
    atexit.register(distributed.leave)
    network, encoder = open_model(model, vae=vae, device=place, precision=None)
    shape = encoder.image_shape_of(network.config.shape)
    if maps is not None and len(shape) == 1:
        raise ValueError(
            "--maps is for pictures, signals and videos; this model has points: leave it out"
        )

    def read(paths: Sequence[str], *, shared: bool = False) -> tuple[Given, Tensor]:
        given = read_images(
            paths,
            shape,
            resize=resize,
            broken=broken,
            model=network,
            reading=reading,
            tiles=True,
            shared=shared,
        )
        return given, encoder.encode(given.images)[0]

    asked = score[0] if len(score) == 1 else score
    if normal:
        rate = 0.05 if fpr is None else fpr
        detector = EqmDetector(
            network,
            asked or "combined",
            rate,
            batch_size=batch_size,
            contamination=contamination,
        )
    else:
        detector = EqmDetector.load(model, network)
        if asked and asked != detector.score:
            raise ValueError(
                f"the calibration stored with {model} is for the score {detector.score}; got "
                f"{' and '.join(score)}: give normal pictures, --normal PICTURES"
            )
        rate = detector.fpr if fpr is None else fpr
        detector = replace(detector, fpr=rate, batch_size=batch_size)
    given, latents = read(images, shared=True)
    status = given.status
    for folder in filter(None, [output and output.parent, maps]):
        make_folder(folder)
    if normal:
        known, normal_latents = read(normal)
        detector.fit(normal_latents)
        status = max(status, known.status)
    # Before the work, as the calibration may be too small. Of several tiles any may be anomalous by chance.
    thresholds = {count: detector.threshold(detector.fpr / count) for count in {1, *given.counts}}
    if save and distributed.is_main():
        detector.save(model)
    scores = detector.score_samples(latents)
    p_values = detector.p_values_of(scores).split(given.counts)
    parts = zip(given.kept, given.names, scores.split(given.counts), p_values, strict=True)
    numbered: list[tuple[int, dict[str, Any]]] = [
        (
            number,
            {
                "image": name,
                "score": part.max().item(),
                "p_value": min(len(part) * p.min().item(), 1.0),
                "anomalous": part.max().item() > thresholds[len(part)],
                "unreadable": "",
            },
        )
        for number, name, part, p in parts
    ]
    nothing = dict.fromkeys(("score", "p_value", "anomalous"))
    unread = zip(given.missing, given.unreadable.items(), strict=True)
    numbered += [(k, {"image": name, **nothing, "unreadable": why}) for k, (name, why) in unread]
    numbered = sorted(
        distributed.gather(numbered), key=lambda row: (row[1]["unreadable"] != "", row[0])
    )
    rows = [row for _, row in numbered]
    if rows[0]["unreadable"]:
        raise ValueError(f"none of the {len(rows)} pictures can be read: replace them")
    if maps is not None:
        stems = file_names([row["image"] for row in rows if not row["unreadable"]])
        places = {number: stem for (number, _), stem in zip(numbered, stems, strict=False)}
        _draw(given, detector.anomaly_map(latents), [maps / f"{places[k]}.png" for k in given.kept])
        distributed.all_agree(True)  # the others may still draw when the first one is done
    if not distributed.is_main():
        return 0
    status = max(status, int(bool(rows[-1]["unreadable"])))
    print_rows(rows, f"{len(detector.calibration.scores):,} normal scores", detector.fpr)  # type: ignore[union-attr]
    if output is not None:
        about = {"model": model, "score": detector.score, "fpr": detector.fpr}
        write_rows(rows, about | {"threshold": thresholds[1]}, output)
        print(f"every picture: {output}")
    if maps is not None:
        print(f"heat maps: {maps}")
    return status


def _draw(given: Given, maps: Tensor, paths: Sequence[Path]) -> None:
    import torch
    from torch.nn.functional import interpolate

    from eqm.files import replacing
    from eqm.pictures import grid, heatmap

    if not paths:
        return
    if given.images.ndim != 4:
        _draw_samples(given.images, maps, paths)
        return
    size = given.images.shape[-2:]
    wide = interpolate(maps[:, None], size, mode="bilinear") if maps.shape[-2:] != size else maps
    wide = wide.view(-1, 1, *size)
    parts = zip(
        given.images.split(given.counts), wide.split(given.counts), given.sizes, strict=True
    )
    for file, (tiles, heat, sides) in zip(paths, parts, strict=True):
        picture, strength = (_joined(part, sides) for part in (tiles[:, :3], heat))
        colour = picture if picture.shape[1] == 3 else picture.mean(1, keepdim=True)
        shown = colour.expand(1, 3, *picture.shape[2:]), heatmap(picture, strength[:, 0])
        scale = max(1, 224 // min(picture.shape[2:]))
        with replacing(file) as path:
            grid(torch.cat(shown), columns=2, scale=scale).save(path, format="png")


def _draw_samples(samples: Tensor, maps: Tensor, paths: Sequence[Path]) -> None:
    """Draws the maps of signals and videos, and writes their numbers."""
    import numpy as np

    from eqm.drawings import marked
    from eqm.files import replacing
    from eqm.pictures import picture

    for sample, strength, file in zip(samples, maps, paths, strict=True):
        with replacing(file) as path:
            picture(marked(sample, strength)[0]).save(path, format="png")
        with replacing(file.with_suffix(".npy")) as path, path.open("wb") as opened:
            np.save(opened, strength.numpy())


def _joined(tiles: Tensor, sides: tuple[int, int]) -> Tensor:
    """The picture (1, C, H, W) of its tiles (T, C, S, S): their mean where they overlap.

    `sides` are the height and width of the picture in its file."""
    import torch

    from eqm.cli.images import tiles_of

    if len(tiles) == 1:
        return tiles
    scale = tiles.shape[-1] / min(sides)
    places = [(round(top * scale), round(left * scale)) for top, left in tiles_of(*sides)]
    height, width = (place + tiles.shape[-1] for place in places[-1])
    total, count = (torch.zeros(1, tiles.shape[1], height, width) for _ in range(2))
    for tile, (top, left) in zip(tiles, places, strict=True):
        at = ..., slice(top, top + tile.shape[1]), slice(left, left + tile.shape[2])
        total[at] += tile
        count[at] += 1
    return total / count
