"""What a seed gives never changes: fingerprints, splits, the order, batches."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from eqm.data import (
    DataConfig,
    Images,
    batch_indices,
    batches,
    encode,
    open_source,
    split,
)
from eqm.encoders import Pixels

PIXELS = (np.arange(12 * 8 * 8 * 3) * 37 % 251).astype(np.uint8).reshape(12, 8, 8, 3)


def digest(*tensors):
    return hashlib.sha256(b"".join(x.contiguous().numpy().tobytes() for x in tensors)).hexdigest()[
        :8
    ]


def picture(k):
    file = io.BytesIO()
    Image.fromarray(PIXELS[k]).save(file, "PPM")  # the same bytes from every version of Pillow
    return file.getvalue()


def folder(path):
    for k in range(12):
        (path / "ab"[k % 2]).mkdir(exist_ok=True)
        (path / "ab"[k % 2] / f"{k}.ppm").write_bytes(picture(k))
    return path


def zipped(path):
    with zipfile.ZipFile(path / "a.zip", "w") as archive:
        for k in range(12):
            archive.writestr(f"{'ab'[k % 2]}/{k}.ppm", picture(k))
    return path / "a.zip"


def arrays(path):
    np.savez(path / "a.npz", images=PIXELS, labels=np.arange(12) % 2)
    return path / "a.npz"


def latents(path):
    data = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).contiguous()
    list(encode(Images("a", data, torch.arange(12) % 2, 2), Pixels(), path, shard_size=5))
    return path


@pytest.mark.parametrize(
    ("make", "prints", "batch"),
    [
        (lambda path: "digits", "8cbf3df3 f4558281 c121964a", "62cf90fb"),
        (lambda path: "points:moons", "d60d6b05 95b21db6 cb6562a2", "bfe53f24"),
        (lambda path: "points:checkerboard", "39ca9d18 d64fb95e bdd0b197", "77150ba6"),
        (folder, "67c4df32 c14f64ed 5481afa5", "30477edb"),
        (zipped, "f1f2040f 5a3f3a97 29e09577", "30477edb"),
        (arrays, "1e258fa9 90e9a8ea d09a84bb", "1e42b73a"),
        (latents, "ed32df44 7fffd65a a70048cc", "e6e76d3f"),
    ],
)
def test_a_source_and_its_batches(tmp_path, make, prints, batch):
    config = DataConfig(str(make(tmp_path)), flip=True)
    source = open_source(config)
    parts = split(source, 0.25, seed=3)
    assert " ".join(each.fingerprint[:8] for each in (source, *parts)) == prints
    stream = batches(source, seed=5, position=7, batch_size=6, device=torch.device("cpu"))
    found = next(stream)
    assert digest(found.data) == batch
    if found.labels is not None:
        rows = batch_indices(len(source), position=7, count=6, seed=5)
        assert torch.equal(found.labels, source.labels[rows])
    stream.close()


def test_the_order_of_training():
    order = batch_indices(5, position=3, count=9, seed=1)
    assert order.tolist() == [0, 3, 3, 2, 0, 1, 4, 4, 1]
