"""Saved models: bit-exact, whole or unchanged, and explained where they cannot be read."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from eqm import energy
from eqm.models import (
    MLPConfig,
    TransformerConfig,
    UNetConfig,
    build,
    from_pretrained,
    pretrained,
    save_pretrained,
)

CONFIG = MLPConfig(shape=(2,), num_classes=3, width=4, depth=1)


def randomised(config=CONFIG):
    network = build(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        UNetConfig(num_classes=10, width=4, multipliers=(1, 2), heads=2),
        TransformerConfig(shape=(1, 4, 6), noise_conditioning=True, width=8, depth=1, heads=2),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_round_trip_is_bit_exact(tmp_path, config, dtype):
    network = randomised(config).to(dtype)
    save_pretrained(network, tmp_path / "a" / "b", metadata={"images": 7, "seed": None})
    again = from_pretrained(tmp_path / "a" / "b")
    assert (again.config, again.metadata) == (config, {"images": 7, "seed": None})
    assert not again.training
    before, after = dict(network.named_parameters()), dict(again.named_parameters())
    assert before.keys() == after.keys()
    for name, parameter in before.items():
        assert torch.equal(parameter, after[name])
        assert (parameter.dtype, parameter.requires_grad) == (dtype, after[name].requires_grad)
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "a" / "b").iterdir()}
    assert modes.keys() == {"model.safetensors", "config.json", "README.md"}
    assert len(set(modes.values())) == 1  # who may read the one may read the other


@pytest.mark.parametrize("kind", [energy.DotEnergy, energy.NormEnergy])
def test_an_energy_is_saved_as_its_network_and_comes_back(tmp_path, kind):
    network = randomised()
    save_pretrained(kind(network), tmp_path / "energy")
    save_pretrained(network, tmp_path / "implicit")
    again = from_pretrained(tmp_path / "energy")
    assert type(again) is kind
    assert again.metadata == {}
    x = torch.randn(3, 2)
    assert torch.equal(again.energy(x), kind(network).energy(x))
    weights = [tmp_path / name / "model.safetensors" for name in ("energy", "implicit")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_wrappers_leave_no_trace_in_the_names(tmp_path):
    class DataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    network = randomised()
    names = network.state_dict().keys()
    network.blocks[0] = torch.compile(network.blocks[0])
    wrapped = DataParallel(torch.compile(energy.DotEnergy(DataParallel(network))))
    save_pretrained(wrapped, tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == names


def test_an_interrupted_write_leaves_the_old_files(tmp_path, monkeypatch):
    save_pretrained(randomised(), tmp_path, metadata={"images": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def lose_power(tensors, path, metadata):
        path.write_bytes(b"half of the weights")
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "save_file", lose_power)
    with pytest.raises(KeyboardInterrupt):
        save_pretrained(randomised(), tmp_path, metadata={"images": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_cannot_be_saved_is_explained(tmp_path):
    with pytest.raises(ValueError, match="metadata must be what JSON can hold"):
        save_pretrained(randomised(), tmp_path, metadata={"tensor": torch.zeros(1)})
    with pytest.raises(ValueError, match="config of a registered network .*unet.*got dict"):
        build({"width": 3})
    assert not any(tmp_path.iterdir())


def change(**changes):
    def damage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def resave(edit):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"must hold config\.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json must be JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "the content must be an object"),
        (change(format="diffusers"), "not a model of eqm"),
        (change(version=2), "version 1; got 2: upgrade eqm"),
        (change(architecture="gan"), "network must be one of .*mlp, .*transformer, unet; got 'gan'"),
        (change(architecture="unnet"), "did you mean 'unet'"),
        (change(architecture=["gan"]), r"config.json: architecture must be text or none; got \['gan'\]"),
        (change(energy="mean"), "energy must be one of implicit, dot, norm; got 'mean'"),
        (change(metadata=3), "metadata must be an object; got 3"),
        (change(metadata={"data": ["a"]}), r"metadata.data must be an object; got \['a'\]"),
        (change(metadat={}), r"metadat is unknown \(did you mean 'metadata'\?\)"),
        (change(network=None), "network must be an object; got None"),
        (change(network={"wide": 3}), r"network.wide is unknown \(did you mean 'width'\?\): known are shape"),
        (change(network={"width": "3"}),
         "config.json: network.width must be a whole number from 1 to 65,536; got '3'$"),
        (change(network={"width": 16.5}), "network.width must be a whole number from 1 to 65,536; got 16.5$"),
        (change(network={"depth": True}), "network.depth must be a whole number from 1 to 512; got True$"),
        (change(network={"noise_conditioning": 1}), "network.noise_conditioning must be true or false; got 1$"),
        (change(network={"shape": [1, "8"]}), r"network.shape\[1\] must be a whole number from 1 to .*; got '8'$"),
        (change(network={"shape": None}), "network.shape must be a list of 1 to 8 whole numbers"),
        (change(architecture="transformer", network={"mlp_ratio": [4]}), r"network.mlp_ratio must be a number"),
        (change(network={"shape": [3], "num_classes": 3, "width": 65536, "depth": 1}), "fit here"),
        (change(network={"shape": [3], "num_classes": 3, "width": 4, "depth": 500}), "fit here"),
        (change(network={"shape": [2**20, 2**20]}), "shape must have at most"),
        (change(network={"shape": [10**25]}), "got a number of 26 digits"),
        (change(network={"shape": [3], "num_classes": 3, "width": 4, "depth": 1}),
         r"MLP; head\.bias has shape \(2,\) instead of \(3,\), .* and \d more|MLP; .*has shape"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"must hold model\.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_text("?"), "complete safetensors"),
        (truncate, "complete safetensors"),
        (resave(lambda tensors: tensors.pop("stem.bias")), "stem.bias is missing$"),
        (resave(lambda tensors: tensors.update({"stem.bias": tensors["stem.bias"].int()})),
         "stem.bias is of torch.int32, not floating point$"),
        (resave(lambda tensors: tensors.update(extra=torch.ones(1))), "extra is unexpected$"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_explained(tmp_path, damage, message):
    save_pretrained(randomised(), tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_explained(tmp_path):
    with pytest.raises(ValueError, match="expected a folder, a model that comes with eqm"):
        from_pretrained(tmp_path / "none")


def test_a_hub_name_is_downloaded(tmp_path, monkeypatch):
    import huggingface_hub

    network = randomised()
    save_pretrained(network, tmp_path)
    requests = []

    def snapshot_download(name, allow_patterns):
        requests.append((name, sorted(allow_patterns)))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert torch.equal(from_pretrained("owner/eqm-digits").head.weight, network.head.weight)
    assert requests == [("owner/eqm-digits", ["config.json", "model.safetensors"])]

    def offline(name, allow_patterns):
        raise ConnectionError("no network\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ValueError, match="the download of .* failed: no network$"):
        from_pretrained("owner/eqm-digits")


@pytest.mark.parametrize(
    ("name", "images_seen"),
    [("fashion-mnist", 1_050_112), ("mnist-5k", 400_000), ("openmoji-32", 2_500_096)],
)
def test_a_model_that_comes_with_the_package_draws_at_once(name, images_seen):
    model = from_pretrained(name)
    x = torch.zeros(2, *model.config.shape)  # float32, in whatever precision the file is
    assert model(x, torch.tensor([0, 9])).isfinite().all()
    assert model.metadata["sampling"]["guidance"] == 1.2
    assert model.metadata["training"]["images_seen"] == images_seen
    assert name in pretrained.bundled()
