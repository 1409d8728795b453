"""Official weights: found in every container, read without running code, turned to our sign."""

import argparse
import os

import pytest
import torch
from safetensors.torch import save_file

from eqm.models import Transformer, TransformerConfig, official

CONFIG = TransformerConfig(
    shape=(3, 4, 4), num_classes=2, width=16, depth=2, heads=2, mlp_ratio=3.0, unused_outputs=True
)


@pytest.fixture
def weights():
    """A state dict with the official names whose zero-initialised layers are not zero."""
    torch.manual_seed(0)
    return {
        name: torch.randn_like(tensor) for name, tensor in Transformer(CONFIG).state_dict().items()
    }


def assert_owns(network, weights):
    for name, tensor in network.state_dict().items():
        sign = -1 if name.startswith("final_layer.linear") else 1
        assert torch.equal(tensor, sign * weights[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sizes_and_dtype_are_read_from_the_tensors(weights, dtype):
    weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    network = official.load(weights, num_heads=2)
    assert network.config == CONFIG
    assert not network.training
    assert network.pos_embed.dtype == dtype
    assert_owns(network, weights)


def test_the_given_tensors_are_copied(weights):
    before = {name: tensor.clone() for name, tensor in weights.items()}
    network = official.load(weights, num_heads=2)
    for parameter in network.parameters():
        parameter.data.zero_()
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("zip_format", [True, False])
def test_ema_of_an_official_checkpoint_is_chosen(weights, tmp_path, zip_format):
    checkpoint = {
        "model": {f"module._orig_mod.{name}": 0 * tensor for name, tensor in weights.items()},
        "ema": weights,
        "opt": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "args": argparse.Namespace(model="EqM-XL/2", ebm="none"),
    }
    path = tmp_path / "0080000.pt"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zip_format)
    assert_owns(official.load(path, num_heads=2), weights)
    del checkpoint["ema"]
    torch.save(checkpoint, path)
    assert not any(tensor.any() for tensor in official.load(path, num_heads=2).parameters())


def test_safetensors_are_read(weights, tmp_path):
    save_file(weights, tmp_path / "eqm.safetensors")
    assert_owns(official.load(str(tmp_path / "eqm.safetensors"), num_heads=2), weights)


class Malicious:
    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("code", [(os.mkdir, "{}"), (eval, "__import__('os').mkdir('{}')")])
def test_a_pickle_that_would_run_code_is_refused(weights, tmp_path, code):
    victim = tmp_path / "ran"
    function, argument = code
    malicious = Malicious(function, argument.format(victim))
    torch.save({"ema": weights, "args": malicious}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="refused, because loading it could run code"):
        official.load(tmp_path / "bad.pt", num_heads=2)
    assert not victim.exists()


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
@pytest.mark.parametrize("kept", [0, 9, 1000])
def test_a_damaged_file_is_explained(weights, tmp_path, name, kept):
    path = tmp_path / name
    (save_file if path.suffix == ".safetensors" else torch.save)(weights, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"{name} must be .* download it again"):
        official.load(path, num_heads=2)


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(ValueError, match=r"none\.pt does not exist"):
        official.load(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.zeros(2)}, "x_embedder.proj.weight.* is missing"),
        ({"epoch": 3}, "must hold a state dict, or a checkpoint"),
        ([1, 2], "must hold a state dict, or a checkpoint.*got list"),
    ],
)
def test_foreign_content_is_explained(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=message):
        official.load(tmp_path / "other.pt", num_heads=2)


def test_missing_tensors_are_named(weights):
    del weights["blocks.1.attn.qkv.bias"]
    with pytest.raises(ValueError, match=r"blocks\.1\.attn\.qkv\.bias is missing$"):
        official.load(weights, num_heads=2)


def test_heads_of_an_unknown_width_must_be_given(weights):
    with pytest.raises(ValueError, match="num_heads must be given for width 16"):
        official.load(weights)
