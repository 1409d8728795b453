"""A seed gives the same batches for ever, and PyTorch's Dataset and DataLoader give and take sources."""

import hashlib
import io
import logging
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from eqm import registry
from eqm.data import (
    DataConfig,
    Images,
    as_dataset,
    as_source,
    batch_indices,
    batches,
    encode,
    open_source,
    split,
)
from eqm.encoders import Pixels
from eqm.randomness import SampleRandom

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


def tars(path):
    with tarfile.open(path / "a.tar", "w") as archive:
        for k in range(12):
            for suffix, body in (("ppm", picture(k)), ("cls", str(k % 2).encode())):
                member = tarfile.TarInfo(f"{k:02}.{suffix}")
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
    return path / "a.tar"


def parquet(path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": picture(k), "path": None} for k in range(12)]
    pq.write_table(
        pa.table({"image": images, "label": [k % 2 for k in range(12)]}), path / "a.parquet"
    )
    return path / "a.parquet"


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
        (lambda path: "moons", "d60d6b05 95b21db6 cb6562a2", "bfe53f24"),
        (lambda path: "checkerboard", "39ca9d18 d64fb95e bdd0b197", "77150ba6"),
        (folder, "67c4df32 c14f64ed 5481afa5", "30477edb"),
        (zipped, "f1f2040f 5a3f3a97 29e09577", "30477edb"),
        (arrays, "1e258fa9 90e9a8ea d09a84bb", "1e42b73a"),
        (latents, "ed32df44 2fe59c57 1a3cc719", "e6e76d3f"),
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


X, Y = torch.linspace(-1, 1, 24).reshape(6, 1, 2, 2), torch.tensor([0, 0, 1, 1, 2, 2])


class Squares(Dataset):
    """A map-style Dataset that says of what it was asked."""

    classes = ("a", "b", "c")

    def __init__(self, x=X, y=Y):
        self.x, self.y, self.asked = x, y, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        self.asked.append(row)
        return self.x[row], int(self.y[row])


def everything(source):
    rows = torch.arange(len(source))
    return source.batch(rows, SampleRandom(0, rows))


SOURCES = [folder, zipped, tars, parquet, arrays, latents]


@pytest.mark.parametrize(
    ("make", "context"),
    [*((make, "fork") for make in SOURCES), pytest.param(zipped, "spawn", marks=pytest.mark.slow)],
)
def test_every_source_works_in_worker_processes(tmp_path, make, context):
    source, _ = split(open_source(DataConfig(str(make(tmp_path)))), 0.25)
    expected = everything(source)  # starts the threads that a fork must not need
    loader = DataLoader(
        as_dataset(source), batch_size=4, num_workers=2, multiprocessing_context=context, timeout=60
    )
    samples, labels = map(torch.cat, zip(*loader, strict=True))
    assert torch.equal(samples, expected)
    assert torch.equal(labels, source.labels)


@pytest.mark.parametrize("make", SOURCES)
def test_every_source_pickles_without_its_pictures(tmp_path, make):
    source = open_source(DataConfig(str(make(tmp_path))))
    expected = everything(source)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint == source.fingerprint
    assert torch.equal(everything(copy), expected)


@pytest.mark.parametrize("name", ["digits", "moons", "checkerboard"])
def test_data_sets_with_a_name_are_datasets(name):
    source = open_source(DataConfig(name))
    item = as_dataset(source)[3]
    sample = item if source.labels is None else item[0]
    assert torch.equal(sample, everything(source)[3])
    assert source.labels is None or item[1] == source.labels[3]
    with pytest.raises(IndexError, match=f"has samples 0 to {len(source) - 1}"):
        as_dataset(source)[len(source)]


def test_a_dataset_mirrors_anew_each_time_by_torchs_seed():
    dataset = as_dataset(Images("x", X.repeat(20, 1, 1, 1), flip=True))
    rows = list(range(len(dataset)))
    torch.manual_seed(0)
    first, second = torch.stack(dataset.__getitems__(rows)), torch.stack(dataset.__getitems__(rows))
    torch.manual_seed(0)
    assert torch.equal(torch.stack(dataset.__getitems__(rows)), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        (X.double(), Y.int()),
        (X.numpy(), Y.numpy()),
        TensorDataset(X, Y),
        DataLoader(TensorDataset(X, Y), batch_size=2, shuffle=True),
        Squares(),
        DataLoader(Squares(), num_workers=2),
        list(zip(X, Y, strict=True)),
        Images("mine", X, Y, 3),
        DataLoader(as_dataset(Images("mine", X, Y, 3)), shuffle=True),
    ],
)
def test_data_become_a_source(data):
    source = as_source(data, name="mine")
    assert (source.name, len(source), source.shape, source.num_classes) == ("mine", 6, (1, 2, 2), 3)
    assert torch.equal(source.labels, Y)
    assert torch.equal(everything(source), X)
    assert as_source(data, name="mine").fingerprint == source.fingerprint


def test_data_without_labels_and_of_other_shapes_become_a_source():
    assert as_source(X).labels is None
    assert as_source(TensorDataset(X)).num_classes == 0
    assert as_source(list(X)).labels is None
    bytes_ = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    assert everything(as_source(bytes_)).flatten().tolist() == [-1, 1]
    for shape in ((5,), (2, 7), (3, 4, 4, 4)):
        x = 9 * torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
        assert torch.equal(everything(as_source(x)), x)


def test_a_dataset_is_read_on_demand_and_targets_save_a_pass():
    dataset = Squares(X.repeat(50, 1, 1, 1), Y.repeat(50))
    source = as_source(dataset)
    assert source.class_names == ("a", "b", "c")
    assert set(dataset.asked) == set(range(300))  # for the labels
    dataset.targets, dataset.asked = Y.repeat(50).tolist(), []
    source = as_source(dataset)
    assert len(dataset.asked) < 20
    dataset.asked.clear()
    source.batch(torch.tensor([7, 200]), SampleRandom(0, torch.arange(2)))
    assert dataset.asked == [7, 200]


def test_the_workers_of_a_dataloader_load_the_same_batches():
    given = {"seed": 3, "position": 2, "batch_size": 4, "device": torch.device("cpu")}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    data = Subset(TensorDataset(X, Y), range(6))
    streams = [batches(as_source(DataLoader(data, num_workers=n)), **given) for n in (0, 2)]
    for _ in range(5):
        alone, workers = map(next, streams)
        assert torch.equal(alone.data, workers.data)
        assert torch.equal(alone.labels, workers.labels)
        assert torch.equal(alone.random.positions, workers.random.positions)
    assert torch.equal(torch.get_rng_state(), state)


class Stream(IterableDataset):
    def __iter__(self):
        yield X[0]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            3 * X,
            r"they lie in -3..3: set data.range to both, or rescale to bytes 0..255",
        ),
        (X * torch.nan, "6 of 6 samples hold NaN"),
        (torch.full((4, 3), torch.inf), "4 of 4 samples hold NaN or infinity"),
        (torch.zeros(6, 28, 28, 1), r"got \(6, 28, 28, 1\): pass x.permute\(0, 3, 1, 2\)"),
        (torch.zeros(6), r"must be float32 of shape \(N, ...\)"),
        (torch.zeros(6, 2).long(), r"must be float32 of shape .*; got torch.int64"),
        ((X, Y + 0.5), "labels must be whole numbers"),
        ((X, Y[:4]), r"6 samples need as many labels; got labels of shape \(4,\)"),
        ((X, Y - 1), "labels must lie in"),
        (Stream(), "got an IterableDataset: .* a stream cannot be trained on"),
        (DataLoader(Stream()), "got an IterableDataset"),
        ("digits", "data must be a tensor"),
        ([], "the Dataset is empty"),
        ([{"image": X[0]}], r"\(tensor, label\) pairs; got dict: add a transform"),
        ([X[0], X[1, :, :1]], r"one shape; got \(1, 2, 2\) and \(1, 1, 2\)"),
        (
            DataLoader(TensorDataset(X), sampler=WeightedRandomSampler([1.0] * 6, 6)),
            "no sampler, batch_sampler or collate_fn .* pass its Dataset",
        ),
        (DataLoader(TensorDataset(X), collate_fn=list), "pass its Dataset"),
    ],
)
def test_unusable_data_are_refused_with_a_sentence(data, sentence):
    with pytest.raises(ValueError, match=sentence):
        as_source(data)


def test_a_bad_sample_met_later_is_refused_too():
    x = X.repeat(5, 1, 1, 1)
    x[19] = 7
    source = as_source(Squares(x, Y.repeat(5)))
    with pytest.raises(ValueError, match=r"must lie in -1..1; got"):
        everything(source)


def test_floats_in_0_to_1_and_whole_numbers_are_brought_to_black_and_white_once(caplog):
    caplog.set_level(logging.INFO)
    whole = (X * 127.5 + 127.5).round()
    for given in (X / 2 + 0.5, list(X / 2 + 0.5), whole, whole.long(), whole.numpy().astype(">i4")):
        caplog.clear()
        source = as_source(given, name="mine")
        torch.testing.assert_close(everything(source), X, atol=0.005, rtol=0)
        assert len(caplog.messages) == 1
        assert "as white" in caplog.text


def test_a_source_of_ones_own_may_be_anything_that_is_data(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", {k: {**v} for k, v in _registered().items()})
    registry.register("source", "mine")(lambda config: (X, Y))
    source = open_source(DataConfig("mine", classes=("2",)))
    assert (source.name, len(source), source.num_classes) == ("mine", 2, 1)
    assert torch.equal(everything(source), X[4:])


def _registered():
    registry.names("source")  # loads those of eqm
    return registry._REGISTERED
