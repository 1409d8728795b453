"""`eqm distill`: a folder that is sampled in few passes, or one sentence."""

import json

import pytest
import torch

from eqm.cli.main import main
from eqm.energy import DotEnergy
from eqm.files import lock_folder
from eqm.models import UNet, UNetConfig, save_pretrained

FEW = ["--samples", "32", "--descents", "16", "--batch-size", "16"]


def save(folder, *, classes=3, energy=False):
    network = UNet(UNetConfig(shape=(1, 8, 8), num_classes=classes, width=4, multipliers=(1,)))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    network.metadata = {
        "sampling": {"rule": "gradient-descent", "step_size": 0.1, "path_length": 0.8},
        "data": {"name": "mine", "classes": ["cat", "dog", "cow"][:classes]},
    }
    save_pretrained(DotEnergy(network) if energy else network, folder)
    return str(folder)


def test_a_student_is_sampled_by_what_it_stores(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, quick = save(tmp_path / "model"), str(tmp_path / "quick")
    asked = ["--guidance", "1.5", "--evaluations", "2", "--output", quick]
    assert main(["distill", model, *FEW, *asked]) == 0
    assert "try `eqm sample" in capsys.readouterr().out
    assert json.loads((tmp_path / "quick" / "config.json").read_text())["metadata"]["data"]
    assert main(["sample", quick, "--labels", "dog", "--output", "one.png"]) == 0
    assert "NFE 2" in capsys.readouterr().out
    assert main(["sample", quick, "--guidance", "2", "--output", "two.png"]) == 2
    assert "guidance 1.5 is folded into this model" in capsys.readouterr().err
    assert main(["distill", quick, *FEW, "--output", "again"]) == 2
    assert "is a student already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--evaluations", "8"], "evaluations must be fewer than the 8 of the model's own"),
        (["--evaluations", "-1"], "evaluations must"),
        (["--guidance", "nan"], "guidance must"),
        (["--guidance", "1"], "needs a guidance other than 1, or fewer evaluations"),
    ],
)
def test_one_sentence_says_what_cannot_be(tmp_path, capsys, options, sentence):
    model = save(tmp_path / "model")
    assert main(["distill", model, *FEW, *options, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_teacher_without_labels_with_an_energy_or_in_training(tmp_path, capsys):
    out = ["--output", str(tmp_path / "out")]
    unlabelled = save(tmp_path / "unlabelled", classes=0)
    assert main(["distill", unlabelled, *FEW, "--guidance", "2", *out]) == 2
    assert "needs a model with classes" in capsys.readouterr().err
    energy = save(tmp_path / "energy", energy=True)
    assert main(["distill", energy, *FEW, "--guidance", "2", *out]) == 2
    assert "learns an energy" in capsys.readouterr().err
    busy = save(tmp_path / "busy")
    lock = lock_folder(busy)
    assert main(["distill", busy, *FEW, "--guidance", "2", *out]) == 2
    assert "busy" in capsys.readouterr().err
    lock.close()
    assert not (tmp_path / "out").exists()
