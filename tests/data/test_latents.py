import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from eqm.data import Images, Subset, batches, check, check_latents, encode, is_latents, open_latents
from eqm.data.latents import digest
from eqm.encoders import Pixels
from eqm.randomness import SampleRandom


class Blurry:
    """An encoder in closed form: halves the pixels, and is the less sure the brighter they are."""

    name, fingerprint, scale, shift = "blurry", "b1", 0.5, 0.0

    def shape_of(self, image):
        return tuple(image)

    def encode(self, pixels):
        return pixels / 2, 0.125 + pixels.abs() / 16


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    data = torch.rand(23, 3, 4, 6, generator=generator) * 2 - 1
    return Images("noise", data, torch.arange(23) % 5, num_classes=5)


def run(*arguments, **settings):
    """The last step of encoding in small shards."""
    return list(encode(*arguments, shard_size=5, batch_size=2, **settings))[-1]


@pytest.fixture(scope="module")
def encoded(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    run(images, Blurry(), folder, storage="float32")
    return folder


@pytest.fixture
def copy(encoded, tmp_path):
    return shutil.copytree(encoded, tmp_path / "copy")


def draws(count, start=0):
    return SampleRandom(0, torch.arange(start, start + count))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_latents_are_posterior_samples_mirrored_at_random(images, encoded):
    latents, rows, by = open_latents(encoded), torch.tensor([22, 3, 3, 0, 11, 4, 5]), draws(7)
    mirrored = by.uniform("flip") >= 0.5
    assert mirrored.any()
    assert not mirrored.all()
    pixels = torch.where(
        mirrored[:, None, None, None], images.data[rows].flip(-1), images.data[rows]
    )
    mean, std = Blurry().encode(pixels)
    expected = mean + std * by.normal("posterior", (3, 4, 6))
    torch.testing.assert_close(latents.batch(rows, by), expected)
    assert not torch.equal(latents.batch(rows, by), latents.batch(rows, draws(7, start=7)))


def test_a_batch_does_not_depend_on_how_it_is_cut(encoded):
    latents, rows, by = open_latents(encoded), torch.tensor([22, 3, 0, 11]), draws(4)
    parts = [latents.batch(rows[part], by[part]) for part in (slice(0, 1), slice(1, 4))]
    assert torch.equal(torch.cat(parts), latents.batch(rows, by))


def test_latents_are_a_source(images, encoded):
    latents = open_latents(encoded)
    assert (len(latents), latents.name, latents.shape) == (23, "noise", (3, 4, 6))
    assert torch.equal(latents.labels, images.labels)
    assert latents.num_classes == 5
    assert latents.metadata["encoder"] == {
        "name": "blurry",
        "fingerprint": "b1",
        "scale": 0.5,
        "shift": 0.0,
    }
    batch = next(batches(latents, seed=0, position=0, batch_size=4, device=torch.device("cpu")))
    assert batch.data.shape == (4, 3, 4, 6)
    assert batch.labels.shape == (4,)


def test_a_subset_of_latents_keeps_their_encoder(encoded):
    latents, rows = open_latents(encoded), torch.tensor([3, 21, 7])
    part = Subset(latents, rows, torch.tensor([0, 1, 0]), 2, ("even", "odd"))
    assert (len(part), part.num_classes, part.class_names) == (3, 2, ("even", "odd"))
    assert part.metadata == latents.metadata
    assert torch.equal(
        part.batch(torch.tensor([2, 1]), draws(2)), latents.batch(rows[[2, 1]], draws(2))
    )
    parts = [
        latents,
        part,
        Subset(latents, rows, None, 0),
        Subset(latents, rows.flip(0), part.labels, 2),
    ]
    assert len({each.fingerprint for each in parts}) == 4


def test_without_flip_no_image_is_mirrored(encoded):
    latents = open_latents(encoded, flip=False)
    rows = torch.zeros(8, dtype=torch.long)
    noise = draws(8).normal("posterior", latents.shape)
    stored = latents.tensors[0]
    expected = stored["mean"][0, 0] + stored["std"][0, 0] * noise
    torch.testing.assert_close(latents.batch(rows, draws(8)), expected)


def test_statistics_are_those_of_posterior_samples(images, encoded):
    manifest = open_latents(encoded).manifest
    mean, std = (x.double() for x in Blurry().encode(images.data))
    expected = (mean.square() + std.square()).mean((0, 2, 3)) - mean.mean((0, 2, 3)).square()
    torch.testing.assert_close(torch.tensor(manifest.mean).double(), mean.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(manifest.std).double(), expected.sqrt())


def test_missing_labels_mirror_images_and_deviations_are_not_stored(images, tmp_path):
    bare = Images("bare", images.data)
    run(bare, Pixels(), tmp_path, mirrored=False)
    latents = open_latents(tmp_path)
    assert set(latents.tensors[0]) == {"mean"}
    assert latents.labels is None
    rows = torch.arange(23)
    assert torch.equal(latents.batch(rows, draws(23)), images.data.half().float())


def test_float16_takes_half_the_space_and_refuses_what_it_cannot_hold(images, encoded, tmp_path):
    run(images, Blurry(), tmp_path / "half")
    sizes = [
        sum(t.nbytes for s in open_latents(at).tensors for k, t in s.items() if k != "labels")
        for at in (encoded, tmp_path / "half")
    ]
    assert sizes[0] == 2 * sizes[1]

    class Huge(Blurry):
        def encode(self, pixels):
            return pixels * 1e6, pixels * 0

    with pytest.raises(ValueError, match="more than float16 can hold: use float32"):
        run(images, Huge(), tmp_path / "huge")

    class Torn(Blurry):
        def encode(self, pixels):
            return pixels * torch.nan, pixels * 0

    with pytest.raises(ValueError, match="latent of image 0 is not finite"):
        run(images, Torn(), tmp_path / "torn")


@pytest.mark.parametrize("taken", range(1, 16))
def test_interrupted_encoding_resumes_to_the_same_bytes(images, encoded, tmp_path, taken):
    settings = {"storage": "float32", "shard_size": 5, "batch_size": 2}
    steps = encode(images, Blurry(), tmp_path, **settings)
    for _ in range(taken):
        last = next(steps)
    steps.close()
    if not last.complete:
        with pytest.raises(ValueError, match="is not finished, . of 5 shards"):
            open_latents(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    run(images, Blurry(), tmp_path, storage="float32")
    assert contents(tmp_path) == contents(encoded)
    assert all(
        path.stat().st_mtime_ns == time for path, time in written.items()
    )  # kept, not redone


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_any_number_of_processes_writes_the_same_bytes(images, encoded, tmp_path, world_size):
    ranks = [
        run(images, Blurry(), tmp_path, storage="float32", rank=k, world_size=world_size)
        for k in reversed(range(world_size))
    ]
    assert [rank.complete for rank in ranks] == [False] * (world_size - 1) + [True]
    assert sum(rank.total for rank in ranks) == 23
    assert contents(tmp_path) == contents(encoded)


def test_a_folder_of_something_else_is_refused(images, copy):
    class Other(Blurry):
        name, fingerprint = "sharp", "b2"

    with pytest.raises(ValueError, match="holds latents of the encoder blurry, not of sharp"):
        run(images, Other(), copy, storage="float32")
    fewer = images[torch.arange(20)]
    with pytest.raises(ValueError, match="whose images are not those of noise: choose another"):
        run(fewer, Blurry(), copy, storage="float32")
    with pytest.raises(ValueError, match="storage was float32 and is now float16"):
        run(images, Blurry(), copy)
    renamed = replace(images, name="elsewhere")
    assert run(renamed, Blurry(), copy, storage="float32").complete


def test_a_missing_or_short_shard_is_found_and_encoded_again(images, encoded, copy):
    shard = copy / "latents-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"latents-00002.safetensors has [\d,]+ bytes instead of"):
        open_latents(copy)
    shard.unlink()
    with pytest.raises(ValueError, match="latents-00002.safetensors is missing"):
        open_latents(copy)
    run(images, Blurry(), copy, storage="float32")
    assert contents(copy) == contents(encoded)


def test_check_latents_finds_a_changed_byte(encoded, copy):
    assert check_latents(encoded).fingerprint == open_latents(encoded).fingerprint
    shard = copy / "latents-00003.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    open_latents(copy)
    with pytest.raises(ValueError, match="latents-00003.safetensors changed since"):
        check_latents(copy)
    with pytest.raises(ValueError, match="latents-00003.safetensors changed since"):
        check(str(copy))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, "must have version 1; got 2"),
        ({"format": "zip"}, "is not the manifest of latents"),
        ({"colour": "red"}, "manifest.json: colour is unknown.*: encode again"),
        ({"shards": [{"bites": 5}]}, "shards.bites is unknown .*: encode again"),
        ({"shape": None}, "shape must be a list of 3 whole numbers.*: encode again"),
        (
            {"shape": [5, 4, 6]},
            r"must hold mean of torch.float32 \(5, 2, 5, 4, 6\), as manifest.json says; it hold",
        ),
        ({"shard_size": 4}, "is damaged: encode again"),
    ],
)
def test_a_bad_manifest_is_refused_with_a_sentence(copy, change, sentence):
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=sentence):
        open_latents(copy)
    path.write_text("{")
    with pytest.raises(ValueError, match="must be JSON"):
        open_latents(copy)
    path.unlink()
    assert not is_latents(copy)
    with pytest.raises(ValueError, match="holds no latents: make them with eqm encode"):
        open_latents(copy)


def test_the_fingerprint_is_of_the_contents(images, encoded, tmp_path):
    other = replace(images, labels=images.labels.flip(0))
    run(other, Blurry(), tmp_path, storage="float32")
    prints = [open_latents(folder).fingerprint for folder in (encoded, tmp_path)]
    assert prints[0] != prints[1]
    with safe_open(encoded / "latents-00000.safetensors", "pt") as shard:
        record = json.loads(shard.metadata()["eqm"])
        assert record["sha256"] == digest({name: shard.get_tensor(name) for name in shard.keys()})  # noqa: SIM118


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_shards_are_mapped_not_read(copy):
    latents = open_latents(copy)
    maps = Path("/proc/self/maps").read_text()
    assert all(str(copy / file) in maps for file in latents.manifest.files)
