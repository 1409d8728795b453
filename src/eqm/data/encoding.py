"""Encoding images to latents, shard by shard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from safetensors.torch import save_file
from torch import Tensor

from eqm.checks import check_count
from eqm.data.latents import MANIFEST, STORAGE, Manifest, Shard, digest
from eqm.data.source import Source
from eqm.encoders import Encoder, about_encoder
from eqm.files import check_folder, make_folder, replacing
from eqm.memory import check_memory
from eqm.randomness import SampleRandom
from eqm.schema import Count, CountOrZero, Finite, NonNegative, parse_json
from eqm.tensor_files import open_tensors


@dataclass(frozen=True)
class EncodingProgress:
    """The progress of encoding."""

    images: int
    """Images of this process that are done, with those of an earlier run."""
    total: int
    """All images of this process."""
    complete: bool
    """Whether the shards of all processes, and then the manifest, are written."""


def encode(
    source: Source,
    encoder: Encoder,
    folder: Path | str,
    *,
    storage: Literal["float16", "float32"] = "float16",
    mirrored: bool = True,
    shard_size: int = 4096,
    batch_size: int = 32,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[EncodingProgress]:
    """Encodes `source` into `folder`, batch by batch; `open_latents` opens the result.

    For each image, and its mirror image if `mirrored`, it stores the mean and standard deviation of
    the posterior as `storage`, float16 or float32. Finished shards are kept, so the same call
    resumes. Of several processes each writes every `world_size`-th shard, and the one that writes
    the last shard writes the manifest. One shard at a time is in memory.

    Raises ValueError when `folder` holds other files, or latents of another encoder, source or setting,
    when the encoder cannot take the images, and for latents that `storage` cannot hold; OSError when
    `folder` cannot be written.
    """
    if storage not in STORAGE:
        raise ValueError(f"storage must be one of {', '.join(STORAGE)}; got {storage}")
    check_count(shard_size=shard_size, batch_size=batch_size)
    plan = Manifest(
        encoder=about_encoder(encoder),
        source={"name": source.name, "fingerprint": source.fingerprint},
        images=len(source),
        shape=encoder.shape_of(source.shape),
        num_classes=source.num_classes,
        class_names=tuple(getattr(source, "class_names", ())),
        views=2 if mirrored else 1,
        storage=storage,
        shard_size=shard_size,
    )
    check_folder(folder, "eqm latents", name="the folder for latents")
    shard = min(shard_size, plan.images) * plan.views * math.prod(plan.shape)
    check_memory(
        f"a shard of {min(shard_size, plan.images):,} images",
        2 * shard * STORAGE[storage].itemsize,
        "take a smaller shard_size",
    )
    folder = make_folder(folder)
    if (folder / MANIFEST).exists():
        _check_same(plan, Manifest.load(folder), folder)
    else:
        plan.save(folder)
    mine = [
        (folder / file, plan.rows(number))
        for number, file in list(enumerate(plan.files))[rank::world_size]
    ]

    def steps() -> Iterator[EncodingProgress]:
        total, done = sum(len(rows) for _, rows in mine), 0
        for path, rows in mine:
            if _record(path, rows) is None:
                for count in _write(source, encoder, plan, rows, path, batch_size):
                    yield EncodingProgress(done + count, total, False)
            done += len(rows)
        yield EncodingProgress(total, total, _finish(plan, folder))

    return steps()


def _write(
    source: Source, encoder: Encoder, plan: Manifest, rows: range, path: Path, batch_size: int
) -> Iterator[int]:
    """How many images of the shard of `rows` are encoded; the shard is written at the end."""
    shape = (len(rows), plan.views, *plan.shape)
    mean, std = (torch.empty(shape, dtype=STORAGE[plan.storage]) for _ in range(2))
    sums, squares = torch.zeros(2, plan.shape[0], dtype=torch.float64)
    batches = torch.tensor(rows).split(batch_size)

    def load(batch: Tensor) -> Tensor:
        return source.batch(batch, SampleRandom(0, batch))

    done = 0
    with ThreadPoolExecutor(1) as ahead:  # reads the next batch while this one is encoded
        loading = ahead.submit(load, batches[0])
        for number, batch in enumerate(batches, start=1):
            pixels = loading.result()
            if number < len(batches):
                loading = ahead.submit(load, batches[number])
            for view in range(plan.views):
                part = slice(done, done + len(batch)), view
                found = encoder.encode(pixels.flip(-1) if view else pixels)
                for kept, new in zip((mean, std), found, strict=True):
                    kept[part] = new
                    _check_finite(kept[part], new, batch, plan.storage)
                    squares += kept[part].double().square().sum((0, 2, 3))
                sums += mean[part].double().sum((0, 2, 3))
            done += len(batch)
            yield done
    tensors = {"mean": mean}
    if std.any():
        tensors["std"] = std
    if source.labels is not None:
        tensors["labels"] = source.labels[rows.start : rows.stop].clone()
    record = {
        "first": rows.start,
        "images": len(rows),
        "sha256": digest(tensors),
        "sums": sums.tolist(),
        "squares": squares.tolist(),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"eqm": json.dumps(record)})


def _finish(plan: Manifest, folder: Path) -> bool:
    """Whether all shards are there; if so, the manifest is completed."""
    records: list[_Record] = []
    shards: list[Shard] = []
    for number, file in enumerate(plan.files):
        record = _record(folder / file, plan.rows(number))
        if record is None:
            return False
        records.append(record)
        size = (folder / file).stat().st_size
        shards.append(Shard(record["images"], size, record["sha256"]))
    count = plan.images * plan.views * plan.shape[1] * plan.shape[2]
    mean, square = (
        torch.tensor([record[name] for record in records], dtype=torch.float64).sum(0) / count
        for name in ("sums", "squares")
    )
    std = (square - mean.square()).clamp(min=0).sqrt()
    means, stds = tuple(mean.tolist()), tuple(std.tolist())
    replace(plan, shards=tuple(shards), mean=means, std=stds).save(folder)
    return True


class _Record(TypedDict):
    """What a shard says about itself."""

    first: CountOrZero
    images: Count
    sha256: str
    sums: list[Finite]
    squares: list[NonNegative]


def _record(path: Path, rows: range) -> _Record | None:
    """The record in a shard, or None where it is missing, damaged or of other rows."""
    try:
        with open_tensors(path) as file:
            text = (file.metadata() or {}).get("eqm", "")
        record: _Record = parse_json(text, _Record, str(path))
    except ValueError:
        return None
    return record if (record["first"], record["images"]) == (rows.start, len(rows)) else None


def _check_finite(kept: Tensor, new: Tensor, rows: Tensor, storage: str) -> None:
    finite = kept.isfinite().flatten(1).all(1)
    if finite.all():
        return
    bad = rows[~finite][0].item()
    if new.isfinite().all():
        raise ValueError(
            f"the latent of image {bad} reaches {new.abs().max():g}, more than {storage} can hold: "
            "use float32"
        )
    raise ValueError(f"the latent of image {bad} is not finite: check that image")


def _check_same(plan: Manifest, found: Manifest, folder: Path) -> None:
    def essential(manifest: Manifest) -> dict[str, Any]:
        about = asdict(replace(manifest, shards=(), mean=(), std=()))
        for part in ("encoder", "source"):  # they may have moved
            about[part] = {key: value for key, value in about[part].items() if key != "name"}
        return about

    wanted, there = essential(plan), essential(found)
    for name, sentence in (
        ("encoder", f"the encoder {found.encoder['name']}, not of {plan.encoder['name']}"),
        ("source", f"{found.source['name']}, whose images are not those of {plan.source['name']}"),
    ):
        if wanted[name] != there[name]:
            raise ValueError(f"{folder} holds latents of {sentence}: choose another folder")
    if different := [name for name in wanted if wanted[name] != there[name]]:
        changes = "; ".join(
            f"{name} was {there[name]} and is now {wanted[name]}" for name in different
        )
        raise ValueError(
            f"{folder} holds latents with other settings ({changes}): choose another folder"
        )
