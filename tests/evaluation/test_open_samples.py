import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import eqm
import eqm.features
from eqm import registry
from eqm.cli.main import main
from eqm.data import DataConfig, digits
from eqm.data.array_files import read_npz
from eqm.encoders import Pixels
from eqm.evaluation import (
    Statistics,
    drawn,
    from_source,
    open_images,
    open_reference,
    open_samples,
    suitable_features,
)
from eqm.models import UNetConfig, build
from eqm.pictures import to_uint8
from eqm.sampling import Sampling


def images_of(samples, size=100):
    batches = list(samples.batches(size))
    order = torch.cat([batch.numbers for batch in batches]).argsort()
    labels = None if batches[0].labels is None else torch.cat([b.labels for b in batches])[order]
    return torch.cat([batch.images for batch in batches])[order], labels


def test_samples_of_a_model_equal_those_of_generate(model):
    network = eqm.from_pretrained(model)
    found, labels = images_of(open_samples(str(model), count=25, seed=3), size=7)
    torch.testing.assert_close(found, eqm.tasks.generate(network, count=25, seed=3).x)
    assert labels.tolist() == [k % 10 for k in range(25)]
    samples = open_samples(str(model), count=2, sampling={"guidance": 2.0, "rule": None})
    assert samples.sample_set.settings["guidance"] == 2
    assert samples.sample_set.settings["step_size"] == 0.1  # stored with the model
    assert samples.sample_set.settings["seeds"] == "0..1"


def test_the_protocol_names_the_settings_that_affect_samples(model):
    plain = Sampling("heun", 0.05, guidance=2.0)
    fitted = replace(plain, multistep_coefficients=((1, 0.1, 0, 0),))
    by_rule, by_fit = (
        drawn(
            eqm.from_pretrained(model), Pixels(), name="a model", count=4, sampling=s
        ).sample_set.settings
        for s in (plain, fitted)
    )
    assert by_rule["rule"] == "heun"
    assert "multistep_coefficients" not in by_rule
    assert by_fit["multistep_coefficients"] == fitted.multistep_coefficients
    assert "rule" not in by_fit
    assert by_fit["guidance"] == 2.0


def test_the_protocol_leaves_out_settings_without_effect():
    guided = Sampling("gradient-descent", 0.1, 0.9, 0.3, guidance=2.0, guidance_interval=(0.1, 0.2))
    ahead = replace(guided, rule="nesterov-lookahead", gradient_ratio=0.1, guidance=1.0)

    def settings(sampling, **config):
        network = build(UNetConfig(shape=(1, 8, 8), width=4, multipliers=(1, 2), **config))
        drawing = drawn(network, Pixels(), name="a model", count=4, sampling=sampling)
        return {
            k: v for k, v in drawing.sample_set.settings.items() if k not in ("seeds", "precision")
        }

    path = {"step_size": 0.1, "path_length": 0.3}
    interval = {"guidance": 2.0, "guidance_interval": (0.1, 0.2)}
    plain = {"rule": "gradient-descent", **path, "gradient_ratio": 0.0}
    assert settings(guided, num_classes=3) == plain | interval
    assert settings(guided) == plain  # there is no label to guide towards
    euler = {"rule": "euler, even in gamma", **path}
    assert settings(ahead, num_classes=3) == {
        "rule": "nesterov-lookahead",
        **path,
        "momentum": 0.9,
        "gradient_ratio": 0.1,
    }
    assert settings(guided, num_classes=3, noise_conditioning=True) == euler | interval
    assert settings(ahead, num_classes=3, noise_conditioning=True) == euler


def test_a_diverged_sample_is_an_error(model):
    network = eqm.from_pretrained(model)
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(torch.inf)
    samples = drawn(network, Pixels(), name="bad", count=4)
    with pytest.raises(ValueError, match=r"bad: sample 0 diverged.*smaller step size"):
        images_of(samples)


def test_folders_and_arrays_give_the_same_pictures(tmp_path):
    data, labels = digits().data[:6], digits().labels[:6]
    pixels = to_uint8(data)
    (tmp_path / "folder").mkdir()
    for k, image in enumerate(pixels):
        Image.fromarray(image[:, :, 0]).save(tmp_path / "folder" / f"{k}.png")
    np.savez(tmp_path / "adm.npz", arr_0=pixels, arr_1=labels.numpy())
    np.savez_compressed(tmp_path / "ours.npz", images=pixels)
    expected = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    for name in ("folder", "adm.npz", "ours.npz"):
        found, _ = images_of(open_samples(str(tmp_path / name)))
        torch.testing.assert_close(found, expected)
    assert images_of(open_samples(str(tmp_path / "adm.npz")))[1].equal(labels)
    assert isinstance(read_npz(tmp_path / "adm.npz")["arr_0"], np.memmap)
    some, _ = images_of(open_samples(str(tmp_path / "folder"), count=3))
    assert len(some) == 3
    bigger = open_images(str(tmp_path / "folder"), DataConfig(size=16, channels=3))
    assert bigger.shape == (3, 16, 16)


def test_every_array_of_an_npz_is_read_as_numpy_reads_it(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "scalar": np.array(3.0),
        "empty": np.zeros((0, 4)),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        found = read_npz(tmp_path / "x.npz")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: np.savez(path, faces=np.zeros(3)), "`images` or `arr_0`; it holds faces"),
        (
            lambda path: np.savez(path, mu=np.zeros(3), sigma=np.eye(2)),
            r"shapes \(D,\) and \(D, D\)",
        ),
        (
            lambda path: np.savez(path, mu=np.zeros(2), sigma=np.eye(2), mu_s=np.zeros(2)),
            "or neither",
        ),
        (lambda path: np.savez(path, arr_0=np.array([{}])), "got Python objects"),
        (lambda path: path.write_bytes(b"no zip"), "not a readable .npz"),
        (
            lambda path: np.savez(path, arr_0=np.full((4, 8, 8, 1), 300.0)),
            r"they lie in 300..300: set data.range",
        ),
        (lambda path: np.savez(path, arr_0=np.full((4, 8, 8, 1), np.nan)), "NaN or infinity"),
        (lambda path: None, "there is no .*x.npz: give a folder"),
    ],
)
def test_an_npz_that_cannot_be_used_is_refused(tmp_path, write, sentence):
    write(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=sentence):
        open_images(str(tmp_path / "x.npz"))


def test_the_reference_and_the_training_images_come_from_the_model(model):
    samples = open_samples(str(model), count=10)
    reference, learnt = open_reference(None, samples)
    assert (len(reference), len(learnt)) == (1797, 1438)
    assert open_reference(None, samples, training="none")[1] is None
    assert len(open_reference("digits", samples, training="digits")[1]) == 1797
    assert suitable_features(samples, reference)[0] == "classifier:digits"
    with pytest.raises(ValueError, match="is unknown: give --reference"):
        open_reference(None, from_source(digits()))


def test_data_that_only_the_model_names_are_not_opened(tmp_path, monkeypatch):
    np.save(tmp_path / "own.npy", np.zeros((10, 8, 8), np.uint8))
    path = str(tmp_path / "own.npy")
    metadata = {"training": {"data.path": path, "data.val_fraction": 0.2}}
    samples = SimpleNamespace(metadata=metadata, shape=(1, 8, 8))
    reference, learnt = open_reference(path, samples)
    assert (len(reference), len(learnt)) == (10, 8)
    assert open_reference("digits", samples)[1] is None
    module = import_module("eqm.evaluation.open_samples")
    monkeypatch.setattr(module, "open_source", lambda *_, **__: pytest.fail("opened"))
    for name in (path, "hf:owner/name", "../own.npy"):
        metadata["training"]["data.path"] = name
        with pytest.raises(ValueError, match="is not opened unasked: give --reference"):
            open_reference(None, samples)


def test_default_features_suit_the_images(tmp_path):
    torch.manual_seed(0)
    grey = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    for shape, name in [((1, 9, 9), "pixels"), ((3, 8, 8), "lite0"), ((1, 99, 99), "lite0")]:
        source = eqm.data.Images("mine", grey.new_zeros(2, *shape))
        assert suitable_features(from_source(source), source)[0] == name
    np.savez(tmp_path / "moments.npz", mu=np.zeros(2), sigma=np.eye(2))
    found = open_images(str(tmp_path / "moments.npz"))
    assert isinstance(found, Statistics)
    with pytest.raises(ValueError, match="moments does not say which features"):
        suitable_features(from_source(source), found)


def test_features_that_only_a_file_names_are_not_opened(tmp_path, monkeypatch):
    source = eqm.data.Images("mine", torch.zeros(4, 1, 99, 99))
    for name in ("classifier:/etc", "inception:../weights.pth", "dinov2:owner/name"):
        spec = SimpleNamespace(features=name)
        found = SimpleNamespace(spec=spec, sample_set=SimpleNamespace(name="moments"))
        statistics = object.__new__(Statistics)
        vars(statistics).update(vars(found))
        with pytest.raises(ValueError, match=f"holds features {name}, .* not opened unasked"):
            suitable_features(from_source(source), statistics)
    monkeypatch.setattr(eqm.features.Classifier, "load", lambda name: pytest.fail("opened"))
    samples = SimpleNamespace(
        metadata={"data": {"name": "/etc"}}, name=str(tmp_path), shape=(1, 8, 8)
    )
    assert suitable_features(samples)[0] == "pixels"


def test_sampling_settings_need_a_model():
    with pytest.raises(
        ValueError, match="digits is not a model, so nothing is sampled; got guidance, vae"
    ):
        open_samples("digits", sampling={"guidance": 1.0, "rule": None}, vae="some")


def test_the_command_prints_a_table_and_explains_errors(model, tmp_path, capsys):
    report = tmp_path / "report.md"
    arguments = ["eval", str(model), "--count", "30", "--output", str(report)]
    assert main([*arguments, "--metrics", "frechet", "kernel"]) == 0
    out, err = capsys.readouterr()
    assert "Frechet distance" in out
    assert "30 samples are too few" in out.replace("\n", " ")
    assert "features: classifier:digits" in err
    assert "| kernel distance |" in report.read_text()
    files = [str(tmp_path / name) for name in ("both.json", "both.png")]
    assert main([*arguments[:4], "--compare", str(model), "--seed", "7", "--output", *files]) == 0
    assert "B - A" in capsys.readouterr().out
    assert {one["better"] for one in json.loads(Path(files[0]).read_text())["differences"]} <= {
        *("", "cannot tell")
    }
    few = [*arguments[:4], "--metrics", "frechet", "--features", "pca:4"]
    assert main(few) == 0
    assert "pca:4" in capsys.readouterr().out
    for more, sentence in [
        (("--reference", str(tmp_path / "nothing")), "there is no"),
        (("--features", "nonsense"), "features must be"),
        (("--output", "report.txt"), ".json or .md"),
        (("--output", "/dev/null/x.md"), "choose another folder"),
        (("--save-reference", "/dev/null/x.safetensors"), "choose another folder"),
        (("--save-reference", "x.npz"), "takes a .safetensors"),
    ]:
        assert main(["eval", str(model), "--count", "30", *more]) == 2
        assert sentence in capsys.readouterr().err


def test_own_metrics_and_features_work_by_name(model, capsys):
    @eqm.register("metric", "test-mean")
    def mean(given):
        yield given.measured("test-mean", float(given.samples.moments.mean.mean()), better="lower")

    @eqm.register("features", "test-level")
    def level(argument):
        class Level(torch.nn.Module):
            def forward(self, x):
                return torch.full((len(x), 2), float(argument))

        return eqm.features.from_module(Level(), name=f"test-level:{argument}")

    own = ["--metrics", "test-mean", "--features", "test-level:7"]
    try:
        assert main(["eval", str(model), "--count", "20", *own]) == 0
    finally:
        del registry._REGISTERED["metric"]["test-mean"]
        del registry._REGISTERED["features"]["test-level"]
    row = next(line for line in capsys.readouterr().out.splitlines() if "test-mean" in line)
    assert row.split() == ["test-mean", "7", "7", "lower"]


@pytest.mark.slow
def test_several_processes_give_the_same_metrics_as_one(model, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "eqm", "eval", str(model), "--count", "101"]
    runs = []
    for name, ranks in (("one", 1), ("two", 2)):
        output = ["--output", str(tmp_path / f"{name}.json"), "--device", "cpu"]
        for rank in range(ranks):
            variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
            variables = {key: str(value) for key, value in variables.items()} if ranks > 1 else {}
            environment = (
                os.environ | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"} | variables
            )
            runs.append(subprocess.Popen([*command, *output], env=environment))
    assert [run.wait(timeout=120) for run in runs] == [0, 0, 0]
    one, two = (numbers_in(tmp_path / f"{name}.json") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert two[name] == pytest.approx(value, rel=1e-4), name


def numbers_in(path):
    return {one["name"]: one["value"] for one in json.loads(path.read_text())["measurements"]}
