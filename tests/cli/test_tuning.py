import json
from dataclasses import replace

import pytest
import torch

from eqm.cli.main import main
from eqm.models import UNet, UNetConfig, save_pretrained
from eqm.sampling import Sampling

FEW = ["--samples", "16", "--nfe", "4", "--references", "60"]


@pytest.fixture
def folder(tmp_path):
    network = UNet(UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1,)))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(0))
    network.metadata = {"training": {"data.path": "digits"}}
    save_pretrained(network, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("asked", "seen_by"),
    [
        ([], "classifier:digits"),
        (["--features", "random"], "random"),
        (["--features", "pca:5"], "pca:5"),
    ],
)
def test_settings_are_judged_by_features_and_stored_with_them(folder, capsys, asked, seen_by):
    assert main(["tune", str(folder), *FEW, *asked]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"features: {seen_by}\n")
    assert "fitted to 3 steps" in said
    metadata = json.loads((folder / "config.json").read_text())["metadata"]
    assert said.splitlines()[-1].startswith("stored in") == ("sampling" in metadata)
    if "sampling" in metadata:
        assert metadata["tuning"]["features"] == seen_by


def test_features_that_cannot_be_are_named_and_nothing_is_changed(folder, capsys):
    before = (folder / "config.json").read_bytes()
    assert main(["tune", str(folder), *FEW, "--features", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err
    assert main(["tune", str(folder), *FEW, "--references", "-3"]) == 2
    assert "references must be a whole number from 1 to" in capsys.readouterr().err
    assert main(["tune", str(folder), *FEW, "--seed", str(2**70)]) == 2
    assert "seed must be a whole number from -2^63 to 2^63 - 1" in capsys.readouterr().err
    assert (folder / "config.json").read_bytes() == before


def test_steps_are_fitted_to_the_rule_that_is_kept(folder, capsys):
    assert main(["tune", str(folder), *FEW, "--keep-rule", "--tolerance", "0.99"]) == 0
    said = capsys.readouterr().out
    assert (
        said.count("samples 16") == 1 + 2 * 2 + 2 + 2
    )  # itself, to two ways, confirmed, summed up
    stored = Sampling.of(json.loads((folder / "config.json").read_text())["metadata"])
    assert stored.multistep_coefficients
    assert replace(stored, multistep_coefficients=()) == Sampling()


def test_data_that_only_the_model_names_are_not_opened(folder, capsys):
    config = json.loads((folder / "config.json").read_text())
    config["metadata"].setdefault("training", {})["data.path"] = "hf:owner/name"
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["tune", str(folder), *FEW]) == 2
    assert "names the data hf:owner/name, which is not opened unasked" in capsys.readouterr().err
