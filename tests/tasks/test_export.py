"""A graph gives what the network or the detector gives, without eqm."""

import json
import subprocess
import sys

import pytest
import torch

from eqm.cli.main import main
from eqm.energy import DotEnergy
from eqm.models import MLPConfig, UNet, UNetConfig, build, save_pretrained
from eqm.models.network import Network
from eqm.tasks import EqmDetector, export_detector, export_network, train_detector


def random_weights(network: Network) -> Network:
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=generator)
    return network.eval()


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(shape=(1, 8, 8), num_classes=3, width=8, multipliers=(1, 2)),
        MLPConfig(shape=(4,), num_classes=2, width=8, depth=1),
    ],
    ids=lambda config: f"{type(config).__name__}{len(config.shape)}",
)
def test_a_network_as_a_graph_is_the_network(config, tmp_path):
    network = random_weights(build(config))
    export_network(network, tmp_path / "net.pt2")
    graph = torch.export.load(tmp_path / "net.pt2").module()
    for count in (1, 5):
        x = torch.randn(count, *config.shape)
        given = (x, torch.arange(count) % config.num_classes) if config.num_classes else (x,)
        torch.testing.assert_close(graph(*given), network(*given), atol=1e-5, rtol=1e-5)


PROGRAM = """
import json, sys, torch
graph = torch.export.load("found.pt2").module()
about = json.load(open("found.json"))
pictures = torch.load("pictures.pt")
scores, maps = graph(pictures)
assert list(pictures.shape[1:]) == about["shape"]
verdicts = (scores > about["threshold"]).tolist()
print(json.dumps([scores.tolist(), verdicts, "eqm" in sys.modules]))
"""


@pytest.mark.parametrize("score", ["gaussian", "losses"])
def test_a_detector_scores_without_eqm(score, tmp_path):
    generator = torch.Generator().manual_seed(0)
    good = (0.3 * torch.randn(80, 1, 12, 12, generator=generator)).clamp(-1, 1)
    odd = torch.cat([good[:2], -torch.ones(1, 1, 12, 12)])
    if score == "gaussian":
        detector = train_detector(good, features="pixels", steps=5, fpr=0.2)
    else:
        network = random_weights(UNet(UNetConfig(shape=(1, 12, 12), width=8, multipliers=(1,))))
        detector = EqmDetector(network, score, fpr=0.2).fit(good)
    export_detector(detector, tmp_path / "found.pt2")
    torch.save(odd, tmp_path / "pictures.pt")
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    wanted = detector.score_samples(odd)
    scores, verdicts, imported = json.loads(said)
    torch.testing.assert_close(torch.tensor(scores).double(), wanted, atol=1e-4, rtol=1e-4)
    assert verdicts == detector.predict(odd).tolist()
    assert not imported


@pytest.mark.needs("onnx", "onnxscript", "onnxruntime")
def test_onnx_gives_the_same_numbers(tmp_path):
    import onnxruntime as runtime

    network = random_weights(
        UNet(UNetConfig(shape=(1, 8, 8), num_classes=3, width=8, multipliers=(1,)))
    )
    export_network(network, tmp_path / "net.onnx")
    x, labels = torch.randn(5, 1, 8, 8), torch.arange(5) % 3
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    (found,) = session.run(None, {"x": x.numpy(), "labels": labels.numpy()})
    torch.testing.assert_close(
        torch.from_numpy(found), network(x, labels).detach(), atol=1e-4, rtol=1e-4
    )


def test_what_no_graph_can_hold(tmp_path):
    network = random_weights(UNet(UNetConfig(shape=(1, 8, 8), width=8, multipliers=(1,))))
    good = (0.3 * torch.randn(60, 1, 8, 8)).clamp(-1, 1)
    with pytest.raises(ValueError, match=r"must end in \.pt2 or \.onnx; got net\.pth"):
        export_network(network, tmp_path / "net.pth")
    with pytest.raises(ValueError, match="is noise-conditioned or an explicit energy"):
        export_network(DotEnergy(network), tmp_path / "net.pt2")
    with pytest.raises(ValueError, match="this detector has combined"):
        export_detector(EqmDetector(network, fpr=0.2).fit(good), tmp_path / "d.pt2")
    with pytest.raises(ValueError, match="not calibrated"):
        export_detector(EqmDetector(network, "losses"), tmp_path / "d.pt2")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_either_part(tmp_path, capsys):
    network = random_weights(UNet(UNetConfig(shape=(1, 8, 8), width=8, multipliers=(1,))))
    folder = str(tmp_path / "model")
    save_pretrained(network, folder)
    good = (0.3 * torch.randn(60, 1, 8, 8)).clamp(-1, 1)
    assert main(["export", folder, "--output", str(tmp_path / "n.pt2")]) == 0
    assert main(["export", folder, "--part", "detector", "--output", str(tmp_path / "d.pt2")]) == 2
    assert "calibrate" in capsys.readouterr().err
    EqmDetector(network, "losses", fpr=0.2).fit(good).save(folder)
    assert main(["export", folder, "--part", "detector", "--output", str(tmp_path / "d.pt2")]) == 0
    assert json.loads((tmp_path / "d.json").read_text())["shape"] == [1, 8, 8]


def test_an_onnx_file_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"pip install 'eqm\[onnx\]'"):
        export_network(build(MLPConfig()), tmp_path / "net.onnx")
