import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed
from safetensors.torch import load_file, save_file
from torch import nn

import eqm
from eqm.cli.main import main
from eqm.data import digits
from eqm.models import UNetConfig
from eqm.train import OptimizerConfig, TrainConfig, train
from eqm.train.config import PAPER_EMA_HALFLIFE
from eqm.train.ema import (
    Averages,
    Snapshot,
    exponent,
    fit,
    fit_snapshots,
    reconstruct,
    snapshots,
    snapshots_due,
    update_average,
)
from eqm.train.optimizer import make_optimizer

WIDTHS = (0.05, 0.1)
BATCH, STEPS = 32, 640
TINY = TrainConfig(
    model=UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2)),
    optimizer=OptimizerConfig(learning_rate=3e-3, ema_sigma_rel=WIDTHS, ema_every=160),
    images=640,
    batch_size=32,
    checkpoint_every=320,
)


@pytest.fixture(scope="module")
def images():
    return digits()[torch.arange(0, 1797, 3)]


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    *_, _ = train(TINY, images, folder)
    return folder


class Weights(nn.Module):
    """A model of nothing but weights."""

    def __init__(self, value):
        super().__init__()
        self.w = nn.Parameter(value.clone())
        self.fixed = nn.Parameter(torch.zeros(3), requires_grad=False)


def walk():
    """Weights after each step, (STEPS, 5): a random walk on top of waves, float64."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(STEPS, 5, generator=generator, dtype=torch.float64)
    times = torch.linspace(0, 12, STEPS, dtype=torch.float64)[:, None]
    return 0.05 * steps.cumsum(0) + torch.sin(times * torch.arange(1, 6))


def tracked(path, widths, *, every=0, folder=None):
    """Averages of `path` after all its steps; snapshots on the way, if there is a folder."""
    model = Weights(torch.full((5,), 1e3, dtype=torch.float64))
    averages = Averages(model, widths)
    for step, value in enumerate(path, 1):
        model.w.data.copy_(value)
        averages.update(model, images=step * BATCH, batch=BATCH)
        if folder and step % every == 0:
            averages.save(folder, images=step * BATCH)
    return averages


def profile(sigma_rel, steps):
    """What each step counts, by the integral of the profile over its batch."""
    edges = np.linspace(0, 1, steps + 1) ** (exponent(sigma_rel) + 1)
    return torch.from_numpy(np.diff(edges))


def test_the_papers_average_keeps_its_decay_from_the_first_batch():
    assert pytest.approx(0.9999, abs=1e-15) == 0.5 ** (256 / PAPER_EMA_HALFLIFE)
    model, average = Weights(torch.ones(4)), Weights(torch.zeros(4))
    settings = {"halflife": PAPER_EMA_HALFLIFE, "ramp": 0.0}
    for step in range(1, 101):
        update_average(average, model, images=256 * step, batch=256, **settings)
    torch.testing.assert_close(average.w.data, torch.full((4,), 1 - 0.9999**100))


@pytest.mark.parametrize(
    ("images", "halflife", "ramp", "expected"),
    [
        (100, 1000.0, 0.1, 0.5),  # the half-life is 10 images, one batch
        (100, 1000.0, 0.2, 0.5**0.5),
        (100, 5.0, 0.1, 0.25),  # the half-life that was asked for is shorter
        (100, 10.0, 0.0, 0.5),
        (4, 1000.0, 0.1, 0.5**10),  # at least one image
    ],
)
def test_the_half_life_grows_with_the_images_seen(images, halflife, ramp, expected):
    model, average = Weights(torch.zeros(4)), Weights(torch.ones(4))
    update_average(average, model, images=images, batch=10, halflife=halflife, ramp=ramp)
    torch.testing.assert_close(average.w.data, torch.full((4,), expected))


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.15, 0.25, 0.288])
def test_the_exponent_gives_the_relative_width(sigma_rel):
    gamma = exponent(sigma_rel)
    assert gamma >= 0
    # the mean and the mean square of tau under (gamma + 1) tau^gamma on [0, 1]
    mean, square = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    assert math.sqrt(square - mean**2) == pytest.approx(sigma_rel, rel=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.0, 0.29, -0.1, 1e-5, 1e-320, math.nan])
def test_a_width_that_no_average_has_is_named(sigma_rel):
    with pytest.raises(ValueError, match=r"sigma_rel must lie between 0.0001 and 0.289; got"):
        exponent(sigma_rel)


def test_an_average_weighs_each_step_by_the_integral_of_its_profile():
    path = walk()
    for sigma_rel, tensors in tracked(path, WIDTHS).tensors.items():
        expected = profile(sigma_rel, STEPS) @ path
        torch.testing.assert_close(tensors["w"], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("images", [STEPS * BATCH, STEPS * BATCH // 2])
@pytest.mark.parametrize("sigma_rel", [0.04, 0.08, 0.12, 0.2])
def test_a_reconstruction_is_off_by_no_more_than_its_residual_says(tmp_path, sigma_rel, images):
    path = walk()
    tracked(path, WIDTHS, every=20, folder=tmp_path)
    steps = images // BATCH
    expected = tracked(path[:steps], [sigma_rel]).tensors[sigma_rel]["w"]
    found = snapshots(tmp_path)
    assert len(found) == 2 * STEPS // 20
    error = reconstruct(found, sigma_rel, images=images)["w"].double() - expected
    residual = fit_snapshots(found, sigma_rel, images=images).residual
    assert residual < 0.03  # of 32 snapshots of each, or half as many
    # Cauchy and Schwarz: the error is the integral of the path times what the profiles differ by,
    # which adds up to 0, so that the path may be taken from anywhere, such as from its mean.
    gamma = exponent(sigma_rel)
    length = (gamma + 1) / math.sqrt((2 * gamma + 1) * images)
    spread = (path - path.mean(0)).square().sum(0).mul(BATCH).sqrt()
    assert (error.abs() <= residual * length * spread + 1e-6).all()


@pytest.mark.parametrize("sigma_rel", [0.08, 0.2])
def test_twice_as_many_snapshots_leave_a_quarter_of_the_residual(sigma_rel):
    few, many = (
        fit([(k, s) for k in range(1, n + 1) for s in WIDTHS], (n, sigma_rel)).residual
        for n in (32, 64)
    )
    assert many == pytest.approx(few / 4, rel=0.1)


def test_the_fit_is_the_least_of_its_neighbours():
    profiles, wanted = [(0.5, 0.05), (0.5, 0.1), (1.0, 0.05), (1.0, 0.1)], (1.0, 0.14)
    times = np.linspace(0, 1, 200_001)[1:]

    def values(profile):
        end, gamma = profile[0], exponent(profile[1])
        return np.where(times <= end, (gamma + 1) * (times / end) ** gamma / end, 0)

    def residual(coefficients):
        found = sum(x * values(p) for x, p in zip(coefficients, profiles, strict=True))
        squares = [np.square(f).mean() for f in (found - values(wanted), values(wanted))]
        return math.sqrt(squares[0] / squares[1])

    best = fit(profiles, wanted)
    assert sum(best.coefficients) == pytest.approx(1, abs=1e-12)
    assert best.residual == pytest.approx(residual(best.coefficients), rel=1e-3)
    for i in range(4):
        for j in range(4):
            moved = np.array(best.coefficients)
            moved[i] += 0.01
            moved[j] -= 0.01
            assert i == j or residual(moved) > best.residual


def test_what_was_tracked_comes_back_to_the_bit(tmp_path):
    averages = tracked(walk().float(), WIDTHS, every=64, folder=tmp_path)
    ours = reconstruct(snapshots(tmp_path), 0.1)
    assert torch.equal(ours["w"], averages.tensors[0.1]["w"].float())


@pytest.mark.parametrize(
    ("every", "before", "after", "due"),
    [
        (100, 90, 100, True),
        (100, 100, 132, False),
        (100, 180, 212, True),
        (100, 490, 500, True),  # the end
        (1000, 468, 501, True),  # the end
        (0, 30, 31, True),  # a sixteenth of 500 is 31
        (0, 31, 61, False),
    ],
)
def test_snapshots_are_due_at_multiples_and_at_the_end(every, before, after, due):
    settings = OptimizerConfig(ema_sigma_rel=(0.1,), ema_every=every)
    assert bool(snapshots_due(settings, before=before, after=after, total=500)) is due
    nothing = replace(settings, ema_sigma_rel=())
    assert not snapshots_due(nothing, before=before, after=after, total=500)


def test_a_resumed_run_keeps_the_same_averages(images, run, tmp_path):
    *_, _ = train(replace(TINY, images=320), images, tmp_path)
    *_, _ = train(TINY, images, tmp_path)
    whole, parts = snapshots(run), snapshots(tmp_path)
    assert [s.images for s in whole] == [160, 160, 320, 320, 480, 480, 640, 640]
    for ours, theirs in zip(whole, parts, strict=True):
        a, b = load_file(ours.path), load_file(theirs.path)
        assert all(torch.equal(a[name], b[name]) for name in a | b)


def test_the_command_writes_a_model_of_the_average(run, tmp_path, capsys):
    arguments = ["ema", str(run), "--sigma-rel", "0.08", "--output", str(tmp_path / "model")]
    assert main(arguments) == 0
    assert "from 8 snapshots" in capsys.readouterr().out
    model = eqm.from_pretrained(tmp_path / "model")
    expected = reconstruct(snapshots(run), 0.08)
    assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters())
    assert model.metadata["average"]["images"] == 640
    assert model.metadata["sampling"] == eqm.from_pretrained(run).metadata["sampling"]


def test_what_cannot_be_reconstructed_is_named(run, tmp_path, capsys):
    command = ["ema", str(run), "--output", str(tmp_path / "model"), "--sigma-rel"]
    assert main([*command, "0.4"]) == 2
    assert "sigma_rel must lie between 0.0001 and 0.289; got 0.4" in capsys.readouterr().err
    assert main([*command, "0.1", "--images", "9"]) == 2
    assert "images must lie in 160..640, the snapshots; got 9" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    assert main(["ema", str(tmp_path / "other"), *command[2:], "0.1"]) == 2
    assert "holds no snapshots of averages: train with" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    weights = (run / "model.safetensors").read_bytes()
    assert main(["ema", str(run), "--output", str(run), "--sigma-rel", "0.1"]) == 2
    assert "output must not change what is read" in capsys.readouterr().err
    assert (run / "model.safetensors").read_bytes() == weights


def test_a_damaged_or_foreign_snapshot_is_named(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "1-0.1.safetensors")
    found = [Snapshot(tmp_path / "1-0.1.safetensors", 1, 0.1)]
    (tmp_path / "2-0.1.safetensors").write_bytes(b"foreign")
    with pytest.raises(
        ValueError, match=r"2-0.1.safetensors must be a complete safetensors file.*: move it away"
    ):
        reconstruct([*found, Snapshot(tmp_path / "2-0.1.safetensors", 2, 0.1)], 0.12)
    save_file({"b": torch.zeros(2)}, tmp_path / "3-0.1.safetensors")
    with pytest.raises(ValueError, match=r"3-0.1.safetensors has other tensors than"):
        reconstruct([*found, Snapshot(tmp_path / "3-0.1.safetensors", 3, 0.1)], 0.12)


@pytest.fixture
def mesh(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh

    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_sharded_weights_are_stepped_and_averaged_like_whole_ones(mesh, tmp_path, name):
    from torch.distributed.fsdp import fully_shard

    config = TINY.model
    settings = replace(TINY.optimizer, name=name, weight_decay=0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole, sharded = eqm.models.build(config), eqm.models.build(config)
    sharded.load_state_dict(whole.state_dict())
    fully_shard(sharded, mesh=mesh)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for model, folder in ((whole, "whole"), (sharded, "sharded")):
        optimizer = make_optimizer(model, settings, torch.device("cpu"))
        averages = Averages(model, WIDTHS)
        for step in range(1, 4):
            (model(x, torch.arange(4)) - x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            averages.update(model, images=4 * step, batch=4)
        averages.save(tmp_path / folder, images=12)
    for ours, theirs in zip(
        snapshots(tmp_path / "whole"), snapshots(tmp_path / "sharded"), strict=True
    ):
        a, b = load_file(ours.path), load_file(theirs.path)
        assert a.keys() == b.keys()
        for tensor in a:
            torch.testing.assert_close(a[tensor], b[tensor], rtol=1e-5, atol=1e-6)
