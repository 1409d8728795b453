"""Every kind of source can be pickled, and read in forked and spawned processes at once, with equal samples."""

import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from eqm.data import DataConfig, as_dataset, as_source, encode, open_source, split
from eqm.encoders import Pixels
from eqm.randomness import SampleRandom

COUNT = 12
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)


def encoded(k):
    file = io.BytesIO()
    Image.fromarray(PIXELS[k]).save(file, "PNG")
    return file.getvalue()


def name_of(k):
    return f"{'cat' if k < COUNT // 2 else 'dog'}/{k:02}.png"


def folder(path):
    for k in range(COUNT):
        (path / name_of(k)).parent.mkdir(exist_ok=True)
        (path / name_of(k)).write_bytes(encoded(k))
    return open_source(DataConfig(str(path)))


def zipped(path):
    with zipfile.ZipFile(path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(COUNT):
            archive.writestr(name_of(k), encoded(k))
    return open_source(DataConfig(str(path / "a.zip"), cache_mb=0))


def tars(path):
    with tarfile.open(path / "a.tar", "w") as archive:
        for k in range(COUNT):
            member = tarfile.TarInfo(name_of(k))
            member.size = len(encoded(k))
            archive.addfile(member, io.BytesIO(encoded(k)))
    return open_source(DataConfig(str(path / "a.tar"), cache_mb=0))


def parquet(path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    cells = [{"bytes": encoded(k), "path": None} for k in range(COUNT)]
    write_table(
        pa.table({"image": cells, "label": [k % 2 for k in range(COUNT)]}), path / "a.parquet"
    )
    return open_source(DataConfig(str(path / "a.parquet"), cache_mb=0))


def npy(path):
    np.save(path / "a.npy", PIXELS)
    return open_source(DataConfig(str(path / "a.npy"), layout="NHWC"))


def npz(path):
    np.savez(path / "a.npz", images=PIXELS, labels=np.arange(COUNT) % 3)
    return open_source(DataConfig(str(path / "a.npz"), layout="NHWC"))


def packed_npz(path):
    np.savez_compressed(path / "a.npz", images=PIXELS, labels=np.arange(COUNT) % 3)
    return open_source(DataConfig(str(path / "a.npz"), layout="NHWC"))


def idx(path):
    head = b"\0\0\x08\x03" + np.array([COUNT, 8, 8], ">u4").tobytes()
    (path / "a-images-idx3-ubyte").write_bytes(head + PIXELS[..., 0].tobytes())
    return open_source(DataConfig(str(path / "a-images-idx3-ubyte")))


def latents(path):
    for _ in encode(npz(path), Pixels(), path / "latents", shard_size=5):
        pass
    return open_source(DataConfig(str(path / "latents")))


def built_in(path):
    return open_source(DataConfig("digits"))


def points(path):
    return open_source(DataConfig("moons"))


def subset(path):
    return split(zipped(path), 0.5)[0]


def chosen(path):
    folder(path)
    return open_source(DataConfig(str(path), classes=("dog",)))


def dataset(path):
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    return as_source([(image, k % 2) for k, image in enumerate(images)])


KINDS = [
    folder,
    zipped,
    tars,
    parquet,
    npy,
    npz,
    packed_npz,
    idx,
    latents,
    built_in,
    points,
    subset,
    chosen,
    dataset,
]
ROWS = torch.arange(4)


def samples(source):
    return source.batch(ROWS, SampleRandom(0, ROWS))


@pytest.fixture(params=KINDS, ids=lambda make: make.__name__)
def source(request, tmp_path):
    return request.param(tmp_path)


def test_a_pickled_source_gives_the_same_samples(source):
    expected = samples(source)  # before, so that files are open and threads run
    again = pickle.loads(pickle.dumps(source))
    assert torch.equal(samples(again), expected)
    assert again.fingerprint == source.fingerprint


def test_forked_processes_and_this_one_read_at_once(source):
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    expected = samples(source)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                same = [torch.equal(samples(source), expected) for _ in range(20)]
                status = 0 if all(same) else 2
            finally:
                os._exit(status)
        children.append(child)
    assert all(torch.equal(samples(source), expected) for _ in range(20))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_spawned_workers_of_a_dataloader_read_every_sample_once(tmp_path):
    source = zipped(tmp_path)
    dataset = as_dataset(source)
    loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context="spawn")
    found = torch.cat([images for images, _ in loader])
    rows = torch.arange(COUNT)
    assert torch.equal(found, source.batch(rows, SampleRandom(0, rows)))
