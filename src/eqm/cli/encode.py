"""`eqm encode`: the latents of a data set, computed once, before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from eqm.cli import options
from eqm.registry import register


@register("command", "encode")
def encode(
    path: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PICTURES")],
    vae: str,
    output: Path,
    size: int = 0,
    channels: int = 0,
    storage: Literal["float16", "float32"] = "float16",
    mirrored: bool = True,
    shard_size: int = 4096,
    batch_size: options.BatchSize = 32,
    device: options.Device = "auto",
    dry_run: bool = False,
    reading: options.ClassReadingOptions = options.AS_FOUND_WITH_CLASSES,
) -> None:
    """Encode pictures into latents to train on.

    Example: `eqm encode photos --vae stabilityai/sd-vae-ft-ema --size 256 --output latents`

    The same command again continues where it stopped. Under torchrun the processes share the work.

    Args:
        path: The pictures: a folder, an archive or a data set by name.
        vae: An AutoencoderKL, AutoencoderTiny or AutoencoderDC of diffusers: a folder, or a name on the Hugging
            Face Hub. Or one of the TAESD family: taesd:FOLDER, taesdxl:, taesd3:, taef1: or taef2:.
        output: Folder for the latents.
        size: Crop and resize pictures to squares of this side; 0 leaves them as they are.
        channels: Convert pictures to 1 (grey) or 3 (colour) channels; 0 leaves them as they are.
        storage: Type of the stored numbers. float16 needs half the space.
        mirrored: Whether to encode mirror images too, so that training can flip pictures.
        shard_size: Pictures in a file.
        dry_run: Only print what would be written.
    """
    import os
    from math import prod

    import torch
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from eqm.checks import check_count
    from eqm.cli.output import show_settings
    from eqm.data import DataConfig, open_latents, open_source
    from eqm.data import encode as run
    from eqm.data.latents import STORAGE
    from eqm.devices import pick_device
    from eqm.encoders import open_encoder
    from eqm.files import check_folder

    check_folder(output, "eqm latents")
    check_count(shard_size=shard_size, batch_size=batch_size)
    rank, world_size, local_rank = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    where = pick_device(device)
    if where.type == "cuda" and world_size > 1:
        where = torch.device("cuda", local_rank)
    source = open_source(reading.applied(DataConfig(path, size=size, channels=channels)))
    encoder = open_encoder(vae, device=where)
    if dry_run:
        shape = encoder.shape_of(source.shape)
        views = 2 if mirrored else 1
        numbers = (1 + encoder.posterior) * views * len(source) * prod(shape)
        megabytes = numbers * STORAGE[storage].itemsize / 1e6
        show_settings(
            {
                "images": f"{len(source):,} of {source.shape}, {source.num_classes} classes",
                "encoder": f"{encoder.name} ({encoder.fingerprint})",
                "latents": f"{shape}, {views} an image",
                "scale": encoder.scale,
                "shift": encoder.shift,
                "size": f"{megabytes:,.3f} MB in {-(-len(source) // shard_size):,} files",
                "output": output,
            }
        )
        return
    steps = run(
        source,
        encoder,
        output,
        storage=storage,
        mirrored=mirrored,
        shard_size=shard_size,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
    )
    columns = *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()
    complete = False
    with Progress(*columns, console=Console(stderr=True), disable=rank > 0) as bar:
        task = bar.add_task(
            "encode" if world_size == 1 else f"encode, 1 of {world_size}", total=None
        )
        for step in steps:
            bar.update(task, completed=step.images, total=step.total)
            complete = step.complete
    if complete:
        found = open_latents(output)
        mean, std = (
            [round(x, 3) for x in part] for part in (found.manifest.mean, found.manifest.std)
        )
        print(
            f"{len(found):,} latents {found.shape}, mean {mean}, standard deviation {std}: {output}"
        )
