"""A step: the same whatever the micro-batch, and never a bad one."""

from dataclasses import replace

import pytest
import torch

from eqm.data import digits
from eqm.models import MLPConfig, TransformerConfig, UNetConfig, build
from eqm.objective import EquilibriumMatching
from eqm.randomness import SampleRandom
from eqm.train import (
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
    distributed,
    make_step,
    start,
    train,
)
from eqm.train.step import AGREE_WITHIN, compiles, step_unless

TINY = TrainConfig(
    model=UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2)),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup=64),
    images=160,
    batch_size=32,
    checkpoint_every=64,
)
NETWORKS = [
    TINY.model,
    MLPConfig(shape=(1, 8, 8), num_classes=10, width=8),
    TransformerConfig(shape=(1, 8, 8), num_classes=10, width=16, depth=2, heads=2),
]


@pytest.fixture(scope="module")
def images():
    return digits()[torch.arange(0, 1797, 9)]


def last(run):
    *_, end = run
    return end


def moved(state, config):
    """The way that all weights went, and their average after them."""
    fresh = start(replace(config, parallel="ddp"), torch.device("cpu"))
    pairs = [
        *zip(state.model.parameters(), fresh.model.parameters(), strict=True),
        *zip(state.average.parameters(), fresh.average.parameters(), strict=True),
    ]
    return torch.cat([(a - b).detach().flatten() for a, b in pairs])


def assert_same_to_rounding(ours, theirs):
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@pytest.mark.parametrize("network", NETWORKS, ids=lambda config: type(config).__name__)
@pytest.mark.parametrize("energy", ["implicit", "dot"])
def test_micro_batches_and_recomputing_change_nothing(images, tmp_path, network, energy):
    objective = ObjectiveConfig(energy=energy)
    config = replace(TINY, model=network, objective=objective, images=64)
    plain = moved(last(train(config, images, tmp_path / "plain")).state, config)
    other = replace(config, micro_batch=12, activation_checkpointing=True)
    ours = moved(last(train(other, images, tmp_path / "other")).state, config)
    assert distributed.blocks_of(build(network))
    assert_same_to_rounding(ours, plain)


@pytest.mark.slow
def test_a_compiled_network_that_recomputes_takes_the_same_step(images, tmp_path):
    config = replace(TINY, model=NETWORKS[2], images=64)
    ways = []
    for name, changes in (
        ("plain", {}),
        ("both", {"compile": "on", "activation_checkpointing": True}),
    ):
        ways.append(last(train(replace(config, **changes), images, tmp_path / name)))
    plain, both = (moved(way.state, config) for way in ways)
    assert_same_to_rounding(both, plain)


def running_out(monkeypatch, most):
    """Lets memory run out for more than so many images; gives the sizes that were tried."""
    at, tried = EquilibriumMatching.loss_at, []

    def scarce(self, field, data, *rest, **draws):
        tried.append(len(data))
        if len(data) > most:
            raise torch.OutOfMemoryError("out of memory")
        return at(self, field, data, *rest, **draws)

    monkeypatch.setattr(EquilibriumMatching, "loss_at", scarce)
    return tried


def test_memory_that_runs_out_halves_the_micro_batch(images, tmp_path, monkeypatch, caplog):
    plain = moved(last(train(TINY, images, tmp_path / "plain")).state, TINY)
    tried = running_out(monkeypatch, most=8)
    ours = moved(last(train(TINY, images, tmp_path / "scarce")).state, TINY)
    assert tried == [32, 16, *[8] * 4 * 5]
    assert "memory ran out at 16 images at once: trying 8" in caplog.text
    assert_same_to_rounding(ours, plain)


def test_memory_for_no_image_is_said(images, tmp_path, monkeypatch):
    running_out(monkeypatch, most=0)
    with pytest.raises(
        ValueError, match="too little memory for one image at a time: set activation_checkpointing"
    ):
        last(train(TINY, images, tmp_path))


def test_a_cut_model_does_not_wait_for_processes_that_cannot_answer(images, monkeypatch):
    """With FSDP the others hang in an exchange; the process without memory says so and leaves."""
    running_out(monkeypatch, most=8)
    config = replace(TINY, parallel="fsdp")
    state = start(config, torch.device("cpu"))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    waited = []

    def silence(holds, *, within):
        waited.append((holds, within))
        raise TimeoutError

    monkeypatch.setattr(distributed, "all_agree", silence)
    step = make_step(config, state, torch.device("cpu"))
    rows = torch.arange(32)
    with pytest.raises(
        ValueError, match="on one process alone: run .* with micro_batch 16 to resume"
    ):
        step(images.data[rows], images.classes[rows], SampleRandom(0, rows))
    assert waited == [(False, AGREE_WITHIN)]


def poison(monkeypatch, bad):
    """Makes the loss of the calls in `bad` (counted from 1) infinite or NaN."""
    at, calls = EquilibriumMatching.loss_at, []

    def poisoned(self, field, data, *rest, noise, gamma):
        calls.append(noise.sum().item())
        loss = at(self, field, data, *rest, noise=noise, gamma=gamma)
        return loss * torch.tensor(float("nan") if bad(len(calls)) else 1.0)

    monkeypatch.setattr(EquilibriumMatching, "loss_at", poisoned)
    return calls


def test_a_step_that_is_not_finite_is_skipped_and_counted(images, tmp_path, monkeypatch):
    poison(monkeypatch, lambda call: call == 3)
    weights, skipped = [], []
    for step in train(TINY, images, tmp_path):
        weights.append(torch.cat([p.detach().flatten() for p in step.state.model.parameters()]))
        skipped.append(step.skipped.item())
    assert skipped == [0, 0, 1, 1, 1]
    assert torch.equal(weights[2], weights[1])
    assert not torch.equal(weights[3], weights[2])
    assert all(w.isfinite().all() for w in weights)
    again = last(train(replace(TINY, images=192), images, tmp_path))
    assert again.skipped.item() == 1


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD])
def test_any_optimizer_leaves_a_bad_step_out(make):
    weight = torch.nn.Parameter(torch.ones(3))
    fused = {"fused": True} if make is torch.optim.AdamW else {}
    optimizer = make([weight], lr=0.1, **fused)
    weight.grad = torch.full((3,), torch.nan)
    step_unless(torch.ones(()), optimizer)
    assert torch.equal(weight, torch.ones(3))
    weight.grad = torch.ones(3)
    step_unless(torch.zeros(()), optimizer)
    assert (weight < 1).all()


def test_bad_steps_in_a_row_go_back_to_the_checkpoint_with_other_draws(
    images, tmp_path, monkeypatch, caplog
):
    config = replace(TINY, images=320, max_bad_steps=2)
    calls = poison(monkeypatch, lambda call: call in (3, 4))
    steps = list(train(config, images, tmp_path))
    assert [step.images for step in steps] == [32, 64, 96, *range(96, 321, 32)]
    assert "going back to image 64, with other random numbers" in caplog.text
    assert calls[4] != calls[2]  # image 65 again
    assert steps[-1].state.rollbacks == 1
    assert steps[-1].skipped.item() == 0  # as of the checkpoint


@pytest.mark.parametrize(
    ("good", "clip", "advice"),
    [
        (0, 0.0, "lower optimizer.learning_rate or set optimizer.clip 1"),
        (2, 1.0, "lower optimizer.learning_rate"),
    ],
)
def test_a_run_that_stays_bad_gives_up(images, tmp_path, monkeypatch, good, clip, advice):
    """From a checkpoint as from the first image on; it does not advise what is set already."""
    optimizer = replace(TINY.optimizer, clip=clip)
    config = replace(TINY, images=3200, max_bad_steps=2, optimizer=optimizer)
    calls = poison(monkeypatch, lambda call: call > good)
    with pytest.raises(
        ValueError, match=f"3 tries with other random numbers: {advice}, in another .* if any"
    ):
        last(train(config, images, tmp_path))
    assert len(calls) == good + 4 * 2


def test_progress_says_what_a_step_was(images, tmp_path):
    steps = list(train(TINY, images, tmp_path))
    assert [step.learning_rate for step in steps[:3]] == [1.5e-3, 3e-3, 3e-3]
    assert all(step.gradient_norm.item() > 0 and step.waited >= 0 for step in steps)


@pytest.mark.parametrize(
    ("mode", "images", "device", "expected"),
    [
        ("on", 1, "cpu", True),
        ("off", 10**12, "cuda", False),
        ("auto", 1, "cuda", True),
        ("auto", 10**12, "mps", False),
        ("auto", 100_000, "cpu", False),
        ("auto", 10**9, "cpu", True),
    ],
)
def test_auto_compiles_on_cuda_and_for_long_runs_on_a_cpu(mode, images, device, expected):
    assert compiles(replace(TINY, compile=mode, images=images), torch.device(device)) is expected
