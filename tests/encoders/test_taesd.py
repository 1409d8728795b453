import re
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from eqm.cli.main import main
from eqm.data import DataConfig, open_source
from eqm.encoders import about_encoder, encoder_of, open_encoder
from eqm.models.config import TransformerConfig
from eqm.recipes import RECIPES
from eqm.train import train

# The places of the layers in the published files: plain convolutions, those with a stride or after
# upsampling, blocks, and blocks at the lowest resolution.
ENCODER = {
    "conv": (0, 14),
    "stride": (2, 6, 10),
    "block": (1, 3, 4, 5, 7, 8, 9),
    "low": (11, 12, 13),
}
DECODER = {
    "conv": (1, 19),
    "stride": (7, 12, 17),
    "block": (8, 9, 10, 13, 14, 15, 18),
    "low": (3, 4, 5),
}


def random_tensors(places, inside, outside, width, pool, generator):
    tensors = {}

    def add(name, out, into, side, bias=True):
        bound = (into * side**2) ** -0.5
        shape = out, into, side, side
        tensors[f"{name}.weight"] = (torch.rand(shape, generator=generator) * 2 - 1) * bound * 1.5
        if bias:
            tensors[f"{name}.bias"] = (torch.rand(out, generator=generator) * 2 - 1) * bound

    first, last = places["conv"]
    add(first, width, inside, 3)
    add(last, outside, width, 3)
    for place in places["stride"]:
        add(place, width, width, 3, bias=False)
    for place in (*places["block"], *places["low"]):
        for layer in (0, 2, 4):
            add(f"{place}.conv.{layer}", width, width, 3)
        if pool and place in places["low"]:
            add(f"{place}.pool.0", 4 * width, width, 1, bias=False)
            add(f"{place}.pool.3", width, 4 * width, 1, bias=False)
            tensors[f"{place}.pool.1.weight"] = torch.rand(4 * width, generator=generator)
            tensors[f"{place}.pool.1.bias"] = torch.rand(4 * width, generator=generator)
    return tensors


def save(folder, channels=4, width=8, pool=False, seed=0, dtype=torch.float16, prefix=""):
    """A random autoencoder, in a folder."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(exist_ok=True)
    for name, places, inside, outside in (
        ("encoder", ENCODER, 3, channels),
        ("decoder", DECODER, channels, 3),
    ):
        tensors = random_tensors(places, inside, outside, width, pool, generator)
        stored = {key: tensor.to(dtype) for key, tensor in tensors.items()}
        save_file(stored, folder / f"{prefix}{name}.safetensors")
    return folder


class Described:
    """The published description, computed with functions of torch on the tensors of the files."""

    def __init__(self, folder):
        self.halves = {
            half: {k: v.float() for k, v in load_file(folder / f"{half}.safetensors").items()}
            for half in ("encoder", "decoder")
        }

    def conv(self, half, name, x, **more):
        weights = self.halves[half]
        kernel = weights[f"{name}.weight"]
        return F.conv2d(
            x, kernel, weights.get(f"{name}.bias"), padding=kernel.shape[-1] // 2, **more
        )

    def block(self, half, place, x):
        if f"{place}.pool.0.weight" in self.halves[half]:
            wide = self.conv(half, f"{place}.pool.0", x)
            groups = wide.unflatten(1, (4, -1))
            mean = groups.mean((2, 3, 4), keepdim=True)
            variance = groups.var((2, 3, 4), correction=0, keepdim=True)
            wide = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
            gain, bias = (self.halves[half][f"{place}.pool.1.{k}"] for k in ("weight", "bias"))
            wide = wide * gain[:, None, None] + bias[:, None, None]
            x = x + self.conv(half, f"{place}.pool.3", wide.clamp(min=0))
        found = x
        for layer in (0, 2, 4):
            found = self.conv(half, f"{place}.conv.{layer}", found)
            found = found.clamp(min=0) if layer < 4 else found
        return (found + x).clamp(min=0)

    def encode(self, pixels):
        x = self.conv("encoder", 0, (pixels + 1) / 2)
        x = self.block("encoder", 1, x)
        for place in (2, 6, 10):
            x = self.conv("encoder", place, x, stride=2)
            for inner in range(place + 1, place + 4):
                x = self.block("encoder", inner, x)
        return self.conv("encoder", 14, x)

    def decode(self, latents):
        x = self.conv("decoder", 1, torch.tanh(latents / 3) * 3).clamp(min=0)
        for place in (3, 8, 13):
            for inner in range(place, place + 3):
                x = self.block("decoder", inner, x)
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = self.conv("decoder", place + 4, x)
        return (self.conv("decoder", 19, self.block("decoder", 18, x)) * 2 - 1).clamp(-1, 1)


@pytest.fixture
def pixels(generator):
    return torch.rand(2, 3, 16, 24, generator=generator) * 2 - 1


@pytest.mark.parametrize(
    ("kind", "channels", "pool"),
    [("taesd", 4, False), ("taesd3", 16, False), ("taef1", 16, False), ("taef2", 32, True)],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_it_computes_what_the_description_says(tmp_path, pixels, kind, channels, pool, dtype):
    folder = save(tmp_path / "vae", channels, pool=pool, dtype=dtype)
    encoder, described = open_encoder(f"{kind}:{folder}"), Described(folder)
    assert encoder.shape_of((3, 16, 24)) == (channels, 2, 3)
    assert encoder.image_shape_of((channels, 2, 3)) == (3, 16, 24)
    assert (encoder.scale, encoder.shift, encoder.posterior) == (1, 0, False)
    mean, std = encoder.encode(pixels)
    torch.testing.assert_close(mean, described.encode(pixels))
    assert mean.std() > 0.01
    assert not std.any()
    latents = mean * 20  # so that the bound of 3 matters
    torch.testing.assert_close(encoder.decode(latents), described.decode(latents))
    assert encoder.decode(latents).std() > 0.01


def test_files_may_have_the_kind_in_their_names(tmp_path):
    plain = open_encoder(f"taesd:{save(tmp_path / 'plain')}")
    both = save(tmp_path / "both", prefix="taesd_")
    save(both, channels=16, prefix="taesd3_")
    assert open_encoder(f"taesd:{both}").fingerprint == plain.fingerprint
    assert open_encoder(f"taesd3:{both}").shape_of((3, 8, 8)) == (16, 1, 1)


def test_the_fingerprint_is_of_weights_and_layers_not_of_names(tmp_path):
    first = open_encoder(f"taesd:{save(tmp_path / 'first')}")
    moved = shutil.copytree(tmp_path / "first", tmp_path / "moved")
    assert open_encoder(f"taef1:{moved}").fingerprint == first.fingerprint
    other = open_encoder(f"taesd:{save(tmp_path / 'other', seed=1)}")
    assert other.fingerprint != first.fingerprint
    metadata = {"data": {"encoder": about_encoder(first)}}
    assert encoder_of(metadata, outside=True).fingerprint == first.fingerprint
    with pytest.raises(ValueError, match="pass --vae"):
        encoder_of(metadata)
    with pytest.raises(ValueError, match="pass the first"):
        encoder_of(metadata, other.name)


def without(file):
    return lambda folder: (folder / f"{file}.safetensors").unlink()


def changed(half, **tensors):
    """Replaces tensors of a file, or removes those that are None."""

    def apply(folder):
        path = folder / f"{half}.safetensors"
        stored = load_file(path) | {name.replace("_", "."): x for name, x in tensors.items()}
        save_file({name: x for name, x in stored.items() if x is not None}, path)

    return apply


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("decoder"), "must hold decoder.safetensors"),
        (without("encoder"), "must hold encoder.safetensors"),
        (lambda folder: (folder / "encoder.safetensors").write_bytes(b"x" * 99), "is damaged"),
        (shutil.rmtree, "taef2:FOLDER"),
        (changed("encoder", **{"0_weight": None}), "the kernels 0.weight and 14.weight"),
        (changed("encoder", **{"11_pool_0_weight": None}), r"of shape \(32, 8, 1, 1\); got none"),
        (changed("encoder", **{"9_bias": torch.ones(1)}), r"9.bias of shape none; got \(1,\)"),
        (changed("decoder", **{"7_weight": torch.ones(8, 8)}), r"\(8, 8, 3, 3\); got \(8, 8\)"),
        (changed("encoder", **{"14_weight": torch.ones(5, 8, 3, 3)}), r"\(5,\); got \(32,\)"),
        (changed("encoder", **{"0_weight": torch.ones(9**5, 1, 1, 1)}), r"\(59049,\); got \(8,\)"),
        (changed("decoder", **{"19_bias": torch.full((3,), torch.nan)}), "19.bias has others"),
    ],
)
def test_a_folder_that_is_not_whole_is_a_sentence(tmp_path, change, sentence):
    folder = save(tmp_path / "vae", 32, pool=True)
    change(folder)
    with pytest.raises(ValueError, match=sentence) as caught:
        open_encoder(f"taef2:{folder}")
    assert "\n" not in str(caught.value)


def test_a_kind_without_a_folder_is_a_sentence():
    for name in ("taef2", "taef2:", "taef2:/nowhere"):
        with pytest.raises(ValueError, match="must be given as taef2:FOLDER"):
            open_encoder(name)


def run(command):
    return main(command.split())


def test_pictures_are_encoded_learnt_drawn_decoded_and_evaluated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "vae", 32, pool=True)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        folder = tmp_path / "photos" / f"class{number % 2}"
        folder.mkdir(exist_ok=True, parents=True)
        Image.fromarray(picture).save(folder / f"{number}.png")
    encode = "encode photos --vae taef2:vae --output latents"
    assert run(f"{encode} --dry-run") == 0
    computed = re.search(r"([\d.]+) MB in 1 files", capsys.readouterr().out)[1]
    assert run(encode) == 0
    size = (tmp_path / "latents" / "latents-00000.safetensors").stat().st_size
    assert size == pytest.approx(float(computed) * 1e6, rel=0.1)
    assert size == pytest.approx(12 * 2 * 32 * 4 * 4 * 2, rel=0.1)  # mirrored, float16
    network = TransformerConfig(shape=(32, 4, 4), num_classes=2, width=16, depth=1, heads=2)
    data = DataConfig("latents")
    config = replace(
        RECIPES["digits"], model=network, images=8, batch_size=4, data=data, device="cpu"
    )
    assert sum(1 for _ in train(config, open_source(data), "run")) == 2
    sample = "sample run --count 4 --guidance 1.5 --output new.npz --vae taef2:"
    assert run(f"{sample}vae") == 0
    assert np.load("new.npz")["arr_0"].shape == (4, 32, 32, 3)
    assert run("eval run --vae taef2:vae --reference photos --count 4 --features pca:4") == 0
    assert run(f"{sample}nowhere") == 2
    assert "must be given as taef2:FOLDER" in capsys.readouterr().err


def test_the_published_autoencoder_gives_photographs_back(shared_data):
    folder, photos = shared_data("taef2"), shared_data("imagenette128-val.zip")
    with zipfile.ZipFile(photos) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg"))]
        pictures = []
        for name in names[::500]:
            with archive.open(name) as file:
                pictures.append(np.asarray(Image.open(file).convert("RGB")))
    pixels = torch.from_numpy(np.stack(pictures)).movedim(3, 1) / 127.5 - 1
    encoder = open_encoder(f"taef2:{folder}")
    latents, _ = encoder.encode(pixels)
    assert latents.shape == (len(pixels), 32, 16, 16)
    assert 0.7 < latents.std() < 1.1
    error = ((encoder.decode(latents) - pixels) / 2).square().flatten(1).mean(1)
    assert (-10 * error.log10()).mean() > 26  # decibels
