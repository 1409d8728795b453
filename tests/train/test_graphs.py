"""Steps recorded as a CUDA graph: the same weights, also after going back, and never a bad one."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from eqm.models import UNetConfig
from eqm.randomness import SampleRandom
from eqm.train import OptimizerConfig, TrainConfig, make_step, start
from eqm.train.graphs import Recorded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
CONFIG = TrainConfig(
    model=UNetConfig(shape=(1, 8, 8), num_classes=10, width=16, multipliers=(1, 2)),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup=64, clip=1.0),
    batch_size=32,
    compile="on",
)


def run(config, seeds):
    """The state after a step of each seed, and the losses."""
    device = torch.device("cuda")
    state = start(config, device)
    step = make_step(config, state, device)
    data = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(32, device=device) % 10
    losses = []
    for number, seed in enumerate(seeds):
        positions = torch.arange(32 * number, 32 * number + 32, device=device)
        losses.append(step(data, labels, SampleRandom(seed, positions)).loss)
    return state, torch.stack(losses)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("energy", ["implicit", "dot"])
def test_recorded_steps_take_the_weights_where_plain_ones_do(monkeypatch, name, energy):
    config = replace(
        CONFIG,
        optimizer=replace(CONFIG.optimizer, name=name),
        objective=replace(CONFIG.objective, energy=energy),
    )
    seeds = [0] * 9 + [1] * 6  # the second after going back, say
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(1), replay(graph))
    )
    recorded, losses = run(config, seeds)
    assert len(replays) == 6 + 3
    monkeypatch.setattr(Recorded, "_fits", lambda _: False)
    plain, expected = run(config, seeds)
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-4)
    began = start(config, torch.device("cuda"))
    for ours, theirs in ((recorded.model, plain.model), (recorded.average, plain.average)):
        pairs = list(
            zip(ours.parameters(), theirs.parameters(), began.model.parameters(), strict=True)
        )
        away = torch.cat([(a - b).flatten() for a, b, _ in pairs]).norm()
        moved = torch.cat([(b - c).flatten() for _, b, c in pairs]).norm()
        assert moved > 0
        assert away < 0.02 * moved


def test_an_optimizer_that_is_loaded_is_the_one_that_steps():
    state, _ = run(CONFIG, [0] * 6)
    device = torch.device("cuda")
    step = make_step(CONFIG, state, device)
    data, labels = torch.randn(32, 1, 8, 8, device=device), torch.zeros(32, device=device).long()
    draws = SampleRandom(0, torch.arange(32, device=device))
    for _ in range(6):
        step(data, labels, draws)
    state.optimizer.load_state_dict(deepcopy(state.optimizer.state_dict()))
    counts = [kept["step"] for kept in state.optimizer.state.values()]
    before = counts[0].item()
    for _ in range(6):
        step(data, labels, draws)
    assert counts[0].item() == before + 6


def test_a_recorded_step_without_finite_loss_changes_nothing():
    state, _ = run(CONFIG, [0] * 6)
    before = [weight.clone() for weight in state.model.parameters()]
    device = torch.device("cuda")
    step = make_step(CONFIG, state, device)
    labels = torch.zeros(32, dtype=torch.long, device=device)
    data = torch.full((32, 1, 8, 8), torch.nan, device=device)
    for _ in range(6):
        step(data, labels, SampleRandom(0, torch.arange(32, device=device)))
    assert state.skipped == 6
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


def test_a_step_that_cannot_be_recorded_goes_on_as_it_is(caplog):
    device = torch.device("cuda")
    weight = torch.zeros((), device=device, requires_grad=True)
    optimizer = torch.optim.AdamW([weight])

    def update(data, labels, draws, rate):
        return (torch.tensor(data.sum().item()),)  # waits for the device, which a graph cannot

    recorded = Recorded(update, optimizer, device)
    data, draws = torch.ones(4, device=device), SampleRandom(0, torch.arange(4, device=device))
    results = [recorded(data, None, draws, 0.1)[0].item() for _ in range(6)]
    assert results == [4.0] * 6
    assert "cannot be recorded" in caplog.text
    assert not optimizer.param_groups[0]["capturable"]
