import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass, replace

import pytest
import torch

import eqm
from eqm import registry
from eqm.data import digits
from eqm.descent import Outcome, StepResult, integrate
from eqm.descent.stopping import Stop
from eqm.metrics import Moments
from eqm.models import UNet, UNetConfig
from eqm.models.inference import Frozen
from eqm.recipes import RECIPES
from eqm.sampling import Sampling, check_sampling, diagnose, prepare, starting_noise
from eqm.tasks import compose, denoise, draw, generate, matching_error, trajectory, tune
from eqm.tasks.tuning import _paths, _Trials
from eqm.train import ObjectiveConfig, TrainConfig

FIVE = Sampling("gradient-descent", step_size=0.02, path_length=0.1)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(UNetConfig(shape=(1, 4, 4), num_classes=3, width=4, multipliers=(1,)))
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    network.metadata = {"sampling": {"rule": "gradient-descent", "step_size": 0.02}}
    return network.eval()


def test_a_sample_depends_on_its_seed_and_label_alone(model):
    whole = generate(model, [0, 1, 2, 0, 1], seed=7, sampling=FIVE)
    pieces = generate(model, [0, 1, 2, 0, 1], seed=7, sampling=FIVE, batch_size=2)
    alone = generate(model, [2], seed=9, sampling=FIVE)
    torch.testing.assert_close(pieces.x, whole.x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone.x[0], whole.x[2], rtol=1e-5, atol=1e-5)
    assert len(pieces.outcome) == len(pieces.steps) == 5
    assert torch.equal(starting_noise((2,), seeds=[9])[0], starting_noise((2,), seeds=[7, 8, 9])[2])


def test_classes_take_turns_without_labels(model):
    assert len(generate(model, sampling=FIVE).x) == 3
    turns = generate(model, count=5, sampling=FIVE).x
    torch.testing.assert_close(turns, generate(model, [0, 1, 2, 0, 1], sampling=FIVE).x)
    torch.testing.assert_close(
        generate(model, 1, count=2, sampling=FIVE).x, generate(model, [1, 1], sampling=FIVE).x
    )


def test_the_settings_stored_with_the_model_are_the_default(model):
    stored = Sampling("gradient-descent", step_size=0.02)
    assert Sampling.of(model.metadata) == stored
    torch.testing.assert_close(generate(model).x, generate(model, sampling=stored).x)
    assert generate(model).steps.tolist() == [stored.max_steps] * 3


def test_settings_make_the_descent_they_describe():
    settings = Sampling("nesterov-lookahead", 0.01, 0.7, path_length=0.2, gradient_ratio=0.3)
    assert settings.make_rule() == eqm.NesterovLookahead(0.01, 0.7)
    assert settings.make_stop() == eqm.PathLength(0.2) | eqm.RelativeGradientNorm(0.3)
    assert FIVE.make_rule() == eqm.GradientDescent(0.02)
    assert FIVE.make_stop() == eqm.PathLength(0.1)
    assert Sampling(step_size=0.04, path_length=0.5).max_steps == 13


def test_guidance_reaches_the_baseline_and_denoising(model):
    config = replace(model.config, noise_conditioning=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = UNet(config)
        for weight in flow.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    plain, guided = (
        generate(flow, [0, 1], sampling=replace(FIVE, guidance=g)).x for g in (1.0, 2.0)
    )
    assert not torch.allclose(plain, guided)
    assert generate(flow, [0, 1, 2], sampling=FIVE, batch_size=2).steps.tolist() == [5, 5, 5]
    noisy, labels = starting_noise((1, 4, 4), seeds=[0, 1]), torch.tensor([0, 1])
    plain, guided = (
        denoise(model, noisy, labels, sampling=replace(FIVE, guidance=g)).x for g in (1.0, 2.0)
    )
    assert not torch.allclose(plain, guided)


def test_a_noise_conditioned_model_is_sampled_with_the_decay_of_its_training(model):
    flow = UNet(replace(model.config, noise_conditioning=True))
    for weight in flow.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(0))
    decay = eqm.TruncatedDecay(0.5, 2.0)
    settings = TrainConfig(objective=ObjectiveConfig(start=decay.start, scale=decay.scale))
    flow.metadata = {"training": settings.flat()}
    noise, labels = starting_noise((1, 4, 4), seeds=[0, 1]), torch.tensor([0, 1])
    expected = integrate(flow, noise, labels, steps=FIVE.max_steps, decay=decay).x
    torch.testing.assert_close(generate(flow, [0, 1], sampling=FIVE).x, expected)
    assert not torch.allclose(integrate(flow, noise, labels, steps=FIVE.max_steps).x, expected)


def test_guidance_is_that_of_the_field(model):
    guided = generate(model, [0, 1], sampling=replace(FIVE, guidance=2.0))
    by_hand = eqm.descend(
        eqm.guide(model, 2.0, 3),
        starting_noise((1, 4, 4), seeds=[0, 1]),
        torch.tensor([0, 1]),
        rule=eqm.GradientDescent(0.02),
        max_steps=5,
    )
    torch.testing.assert_close(guided.x, by_hand.x)
    assert guided.outcome == (Outcome.CONVERGED,) * 2


def test_a_model_of_another_dtype_is_sampled_in_it(model):
    with_double = UNet(model.config).double()
    assert generate(with_double, [0, 1], sampling=FIVE).x.dtype == torch.float64


def test_an_energy_is_sampled_like_a_network(model):
    energy = eqm.DotEnergy(model)
    assert generate(energy, [0, 1], sampling=FIVE).x.shape == (2, 1, 4, 4)


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        ([0, 4], None, r"labels must lie in 0..2, or be none for no class; got 4"),
        ([-1], None, "got -1"),
        ([0, 1], 3, r"one a sample \(3\)"),
        ([0.5], None, "whole numbers"),
        ([], None, "whole numbers"),
        (None, 0, "count must be at least 1"),
    ],
)
def test_impossible_labels_are_named(model, labels, count, message):
    with pytest.raises(ValueError, match=message):
        generate(model, labels, count=count, sampling=FIVE)


FITTED = Sampling(
    "gradient-descent", 0.02, path_length=0.1, multistep_coefficients=((1, 0.02, 0, 0),) * 2
)


def test_fitted_steps_are_taken_from_noise_and_nowhere_else(model):
    two = generate(model, [0, 1], sampling=FITTED)
    by_hand = generate(model, [0, 1], sampling=replace(FIVE, path_length=0.04))
    torch.testing.assert_close(two.x, by_hand.x)
    assert two.nfe.tolist() == [2, 2]
    assert two.outcome == (Outcome.CONVERGED,) * 2
    torch.testing.assert_close(trajectory(model, [0, 1], sampling=FITTED).x[-1], two.x)
    noisy = starting_noise((1, 4, 4), seeds=[0, 1])
    torch.testing.assert_close(
        denoise(model, noisy, sampling=FITTED).x, denoise(model, noisy, sampling=FIVE).x
    )
    torch.testing.assert_close(
        compose(model, "0 + 1", sampling=FITTED).x, compose(model, "0 + 1", sampling=FIVE).x
    )


def test_fitted_steps_hold_for_the_settings_they_were_fitted_with():
    assert Sampling.of({"sampling": json.loads(json.dumps(asdict(FITTED)))}) == FITTED
    assert FITTED.but(guidance=None, path_length=0.1) == FITTED
    assert FITTED.but(guidance=2.0) == replace(FIVE, guidance=2.0)
    assert FITTED.but(rule="gradient-descent") == FIVE
    for rows in ([[1, 2, 3]], 3, [[1, 2, 3, math.inf]], ["abcd"]):
        with pytest.raises(ValueError, match="^multistep_coefficients"):
            Sampling(multistep_coefficients=rows)


@pytest.mark.parametrize("seed", [2**63, -(2**64)])
def test_a_seed_of_too_many_bits_is_named(model, seed):
    with pytest.raises(ValueError, match=r"seed must lie in \[-2\^63, 2\^63\); got"):
        generate(model, [0], seed=seed, sampling=FIVE)


def test_a_model_without_classes_takes_no_labels():
    network = UNet(UNetConfig(shape=(1, 4, 4), width=4, multipliers=(1,)))
    assert len(generate(network, count=2, sampling=FIVE).x) == 2
    with pytest.raises(ValueError, match="without classes"):
        generate(network, [0], sampling=FIVE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size": 0}, "step_size must be a finite number above 0; got 0"),
        ({"path_length": -1}, "path_length must be a finite number above 0; got -1"),
        ({"guidance": -1}, "guidance must be a finite number of at least 0; got -1"),
        ({"momentum": 5}, "momentum must be a number from 0 to below 1; got 5"),
        ({"gradient_ratio": 1.5}, "gradient_ratio must be a number from 0 to below 1"),
        ({"rule": 3}, "rule must be text; got 3"),
        (
            {"rule_options": (("reach", "far"),)},
            r"rule_options\[0\]\[1\] must be a finite number; got 'far'",
        ),
        ({"step_size": "big"}, "step_size must be a finite number above 0; got 'big'"),
        ({"step_size": 1e-320}, "a path takes at most 1e.09 steps; got path_length 0.5 in steps"),
    ],
)
def test_impossible_sampling_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)
    with pytest.raises(ValueError, match="the model's sampling.colour is unknown"):
        Sampling.of({"sampling": {"colour": 3}})


@pytest.fixture
def own_parts(monkeypatch):
    for kind in ("rule", "stop"):
        monkeypatch.setitem(registry._REGISTERED, kind, registry._REGISTERED[kind].copy())

    @eqm.register("rule", "test-jump")
    @dataclass(frozen=True)
    class Jump:
        step_size: float
        reach: float = 1.0

        def init(self, x):
            return ()

        def step(self, gradient_of, x, state, steps):
            gradient = gradient_of(x)
            end = x - self.reach * self.step_size * gradient
            return StepResult(end, gradient, self.step_size, state)

    @eqm.register("stop", "test-few")
    @dataclass(frozen=True)
    class Few(Stop):
        steps: int

        def __call__(self, step, state):
            return step.steps >= self.steps, state


def test_a_rule_and_a_stop_of_ones_own_are_stored_loaded_and_used(model, own_parts, tmp_path):
    own = Sampling(
        "test-jump",
        0.02,
        path_length=0.1,
        stop="test-few",
        rule_options=(("reach", 2.0),),
        stop_options=(("steps", 3),),
    )
    network = UNet(model.config)
    network.load_state_dict(model.state_dict())
    network.metadata = {"sampling": asdict(own)}
    eqm.save_pretrained(network, tmp_path / "own")
    loaded = eqm.from_pretrained(tmp_path / "own")
    assert Sampling.of(loaded.metadata) == own
    by_hand = generate(model, [0, 1], sampling=Sampling("gradient-descent", 0.04, path_length=0.12))
    end = generate(loaded, [0, 1])
    assert torch.equal(end.x, by_hand.x)
    assert end.steps.tolist() == [3, 3]
    reference = 0.3 * starting_noise((1, 4, 4), seeds=range(1000, 1020))
    found = tune(loaded, reference, samples=8, nfe=4, keep_rule=True)
    assert {trial.sampling.rule for trial in found.trials} == {"test-jump"}
    assert own.but(rule="heun").rule_options == ()
    assert own.but(rule="heun").stop_options == own.stop_options


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "nesterov-lookahed"}, "the rule must be .*did you mean 'nesterov-lookahead'"),
        ({"stop": "stagnatoin"}, "the stop must be .*did you mean 'stagnation'"),
        ({"rule_options": (("reach", 1.0),)}, "takes step_size, momentum; got the option 'reach'"),
    ],
)
def test_a_rule_or_stop_that_is_not_there_is_named(model, settings, message):
    with pytest.raises(ValueError, match=message):
        generate(model, [0], sampling=Sampling(**settings))


@pytest.fixture(scope="module")
def oracle():
    return eqm.OptimalField(digits().data[:100].double())


def test_the_matching_error_is_least_on_the_data_and_one_image_has_one_score(oracle):
    data = digits().data.double()
    normal = matching_error(oracle, data[:20], draws=4)
    assert normal.max() < matching_error(oracle, -data[:20], draws=4).min()
    assert not torch.allclose(normal, matching_error(oracle, data[:20], draws=1))
    assert normal.dtype == torch.float64
    one_by_one = [matching_error(oracle, data[i : i + 1], draws=4) for i in range(20)]
    torch.testing.assert_close(torch.cat(one_by_one), normal)


def test_settings_that_came_back_from_json_are_the_same():
    stored = Sampling("heun", 0.05, guidance=2.0, guidance_interval=(0.1, 0.3))
    assert Sampling.of({"sampling": json.loads(json.dumps(asdict(stored)))}) == stored
    assert stored.make_rule() == eqm.Heun(0.05)
    for interval in ([0.3, 0.1], [0.1], "ab", [0.1, math.inf]):
        with pytest.raises(ValueError, match="^guidance_interval"):
            Sampling(guidance_interval=interval)


def test_a_trajectory_starts_at_the_noise_and_ends_where_generate_does(model):
    moved = trajectory(model, [0, 1], seed=3, sampling=FIVE, moments=50)
    assert moved.steps[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(moved.x[0], starting_noise((1, 4, 4), seeds=[3, 4]))
    torch.testing.assert_close(moved.x[-1], generate(model, [0, 1], seed=3, sampling=FIVE).x)


def test_what_was_drawn_before_a_failure_is_kept(model):
    settings, calls = replace(FIVE, path_length=0.04), []

    def fail(*_):
        calls.append(0)
        if len(calls) > 3:
            raise RuntimeError("no memory")

    hook, kept = model.register_forward_pre_hook(fail), []
    try:
        with pytest.raises(RuntimeError, match="no memory"):
            for end in draw(model, [0, 1, 2], sampling=settings, batch_size=1):
                kept.append(end.index)
    finally:
        hook.remove()
    assert kept == [0]


class Bowl(torch.nn.Module):
    """A network whose landscape is a bowl of curvature 20 around the middle of its data."""

    config = UNetConfig(shape=(1, 4, 4))

    def __init__(self, centre=0.0, curvature=20.0):
        super().__init__()
        self.centre = torch.nn.Parameter(torch.tensor(centre))
        self.curvature, self.metadata = curvature, {}

    def forward(self, x, labels=None, gamma=None):
        return self.curvature * (x - self.centre)


class Bowls(Bowl):
    """A bowl for each of two classes, and one for all."""

    config = replace(Bowl.config, num_classes=2)

    def forward(self, x, labels=None, gamma=None):
        return self.curvature * (x - labels.view(-1, 1, 1, 1))


class Level(Bowl):
    """The bowl, but nowhere steeper than 4."""

    def forward(self, x, labels=None, gamma=None):
        return 4 * (5 * (x - self.centre)).tanh()


def test_diagnose_names_the_largest_stable_step():
    steep = Sampling("gradient-descent", step_size=0.12, path_length=2.4)
    descent = generate(Bowl(), count=3, sampling=steep)
    (said,) = diagnose(Bowl(), descent, sampling=steep)
    assert "the largest stable step is about 0.1 (stiffness 20); step_size is 0.12" in said
    far = replace(steep, step_size=1e10, path_length=1e12)
    assert "diverged" in diagnose(Bowl(), generate(Bowl(), count=3, sampling=far), sampling=far)[0]
    # one that levels out far from the data only swings there, however long the steps
    level = Level()
    for wide in (
        replace(steep, step_size=0.3, gradient_ratio=0.1),
        replace(steep, step_size=10, path_length=100),
    ):
        (said,) = diagnose(level, generate(level, count=3, sampling=wide), sampling=wide)
        assert "hardly fell: the largest stable step is about 0.1 (stiffness 20)" in said
    good = replace(steep, step_size=0.02)
    assert diagnose(Bowl(), generate(Bowl(), count=3, sampling=good), sampling=good) == []
    unmet = replace(good, step_size=0.001, path_length=0.01, gradient_ratio=0.1)
    (said,) = diagnose(Bowl(), generate(Bowl(), count=3, sampling=unmet), sampling=unmet)
    assert "no sample met gradient_ratio 0.1 within path_length 0.01" in said
    broken = Bowl(math.nan)
    (said,) = diagnose(broken, generate(broken, count=2, sampling=good), sampling=good)
    assert "NaN or infinity for plain noise" in said
    wild = replace(good, guidance=1e38)
    labels = torch.tensor([0, 1])
    descent = generate(Bowls(), labels, sampling=wild)
    (said,) = diagnose(Bowls(), descent, labels, sampling=wild)
    assert "guidance 1e+38 is too large" in said


def test_settings_that_do_not_suit_an_objective_are_named():
    usual, plain = eqm.TruncatedDecay(), eqm.TruncatedDecay(scale=1.0)
    assert check_sampling(Sampling(), usual) == []
    assert check_sampling(Sampling(step_size=0.08, path_length=2), plain) == []
    (said,) = check_sampling(
        Sampling(), plain
    )  # gamma is the path while c is 1; to .999 .8 + .2 ln 200
    assert "end at gamma 0.5, before the data" in said
    assert "needs a sampling.path_length of 1.9" in said
    (said,) = check_sampling(Sampling(step_size=1e-5, path_length=1e-5), usual)
    assert "end at gamma 0, before the data" in said
    (said,) = check_sampling(Sampling("gradient-descent", step_size=0.11, path_length=2), usual)
    assert "the largest stable sampling.step_size for this objective is 0.1; got 0.11" in said
    assert check_sampling(Sampling(path_length=1.0), eqm.ConstantDecay(1.0)) == []


def test_the_settings_of_every_recipe_suit_its_objective():
    for config in RECIPES.values():
        assert check_sampling(config.sampling, config.make_objective().decay) == [], config.name


def test_diagnose_names_no_step_size_for_fitted_steps():
    steep = Sampling("gradient-descent", 0.12, path_length=2.4)
    short, far = (
        replace(steep, multistep_coefficients=((1, size, 0, 0),)) for size in (0.01, -1e38)
    )
    descent = generate(Bowl(), count=3, sampling=short)
    assert diagnose(Bowl(), descent, sampling=short) == []
    diverged = generate(Bowl(), count=3, sampling=far)
    (said,) = diagnose(Bowl(), diverged, sampling=far)
    assert said == "3 of 3 samples diverged: its fitted steps do not suit it, run eqm tune"


def test_tuning_finds_the_path_that_keeps_the_spread_of_the_data():
    model = Bowl(curvature=4.0)
    model.metadata = {"sampling": {"rule": "gradient-descent", "step_size": 0.05}}
    reference = 0.3 * starting_noise((1, 4, 4), seeds=range(1000, 1300))  # e^{-4 s} = 0.3: s = 0.3
    found = tune(model, reference, samples=64, nfe=12)
    assert found.improved
    assert found.after.distance < 0.2 * found.before.distance
    assert 0.25 < found.sampling.path_length < 0.35
    model.metadata = {"sampling": asdict(found.sampling)}
    again = tune(model, reference, samples=64, nfe=12)
    if not again.improved:
        assert again.sampling == found.sampling
    assert again.after.distance < 1.2 * found.after.distance
    with pytest.raises(ValueError, match="at least 8 samples"):
        tune(model, reference[:3])
    with pytest.raises(ValueError, match="the model's shape"):
        tune(model, reference[..., :2])


@pytest.mark.parametrize("nfe", [1, 2, 3, 7])
def test_tuning_stays_within_its_nfe(nfe):
    model = Bowl(curvature=4.0)
    reference = 0.3 * starting_noise((1, 4, 4), seeds=range(1000, 1020))
    found = tune(model, reference, samples=8, nfe=nfe)
    for trial in found.trials[:-2]:  # the last are the stored settings and the best
        cost = 2 if trial.sampling.rule == "heun" else 1
        assert (
            max(trial.sampling.max_steps * cost, len(trial.sampling.multistep_coefficients)) <= nfe
        )


def test_tuning_makes_as_many_steps_as_it_may():
    small = Sampling("gradient-descent", step_size=1e-3, path_length=2)
    nothing = Moments.of(torch.zeros(2, 1))
    trials = _Trials(Bowl(curvature=1.0), (1, 4, 4), None, torch.flatten, nothing, 8, 8)
    x = _paths(trials, small, [1000, 1200], 0)
    torch.testing.assert_close(x[1], x[0] * (1 - 1e-3) ** 200)


WORKER = """
import sys, torch
from torch import distributed
from eqm.models import UNet, UNetConfig
from eqm.models.inference import Frozen
from eqm.sampling import Sampling
from eqm.tasks import generate
torch.set_num_threads(1)
distributed.init_process_group("gloo")
torch.manual_seed(0)
network = UNet(UNetConfig(shape=(1, 4, 4), num_classes=3, width=4, multipliers=(1,)))
for weight in network.parameters():
    torch.nn.init.normal_(weight, std=0.3)
settings = Sampling("gradient-descent", step_size=0.02, path_length=0.1)
end = generate(network, [0, 1, 2, 0, 1], seed=7, sampling=settings, batch_size=2)
if distributed.get_rank() == 0:
    torch.save({"x": end.x, "steps": end.steps}, sys.argv[1])
else:
    assert len(end.x) == 2, len(end.x)
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_samples_are_the_same_from_two_processes(model, tmp_path):
    script, out = tmp_path / "worker.py", tmp_path / "out.pt"
    script.write_text(WORKER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = [
        subprocess.Popen(
            [sys.executable, script, out],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    whole = generate(model, [0, 1, 2, 0, 1], seed=7, sampling=FIVE)
    both = torch.load(out)
    torch.testing.assert_close(both["x"], whole.x, rtol=1e-5, atol=1e-5)
    assert both["steps"].tolist() == whole.steps.tolist()


def test_a_model_of_fixed_shapes_sees_one_batch_size_with_guidance_in_an_interval(model):
    # each size that a compiled network has not seen is compiled anew, for minutes
    seen = set()

    class Fixed(Frozen):
        def forward(self, x, labels=None, gamma=None):
            seen.add(len(x))
            return super().forward(x, labels, gamma)

    fast = Fixed(model, bfloat16=False, compiled=False, dtype=torch.float32)
    settings = replace(FIVE, guidance=2.0, guidance_interval=(0.02, 0.06), gradient_ratio=0.999)
    plain = generate(fast, count=9, batch_size=4, sampling=settings)
    assert len(seen) > 1
    seen.clear()
    fast.fixed_shapes = True
    torch.testing.assert_close(
        generate(fast, count=9, batch_size=4, sampling=settings).x, plain.x, rtol=1e-5, atol=1e-5
    )
    assert seen == {8}


def test_any_function_is_a_model():
    point = torch.tensor([1.0, -1.0])
    sampling = Sampling("gradient-descent", step_size=0.1, path_length=20.0)
    end = generate(lambda x, labels: x - point, shape=(2,), count=3, seed=4, sampling=sampling)
    torch.testing.assert_close(end.x, point.expand(3, 2))
    start = prepare(lambda x, labels: x, shape=(2,), count=3, seed=4)
    assert torch.equal(start.noise, starting_noise((2,), seeds=[4, 5, 6]))
    to_label = generate(
        lambda x, labels: x - labels[:, None], [3, 7], shape=(2,), sampling=sampling
    )
    torch.testing.assert_close(to_label.x, torch.tensor([[3.0, 3.0], [7.0, 7.0]]))
    layer = torch.nn.Linear(2, 2, bias=False).double()
    torch.nn.init.eye_(layer.weight)

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, labels):
            return self.layer(x)

    end = generate(Plain(), shape=(2,), sampling=sampling)
    assert end.x.dtype == torch.float64
    torch.testing.assert_close(end.x, torch.zeros(1, 2, dtype=torch.float64), rtol=0, atol=1e-6)
    oracle = eqm.OptimalField(point[None])  # which says its shape
    torch.testing.assert_close(generate(oracle, count=2).x, point.expand(2, 2), rtol=0, atol=0.1)


def test_a_function_must_be_given_a_shape(model):
    with pytest.raises(ValueError, match=r"does not say the shape .* pass it, such as shape"):
        generate(lambda x, labels: x)
    with pytest.raises(
        ValueError, match=r"shape must be that of the model, \(1, 4, 4\); got \(2,\)"
    ):
        generate(model, shape=(2,))
    with pytest.raises(ValueError, match="guidance and composition need the null label"):
        generate(lambda x, labels: x, [1], shape=(2,), sampling=replace(FIVE, guidance=2.0))
    with pytest.raises(ValueError, match="no class names: give a number instead of 'cat'"):
        generate(lambda x, labels: x, "cat", shape=(2,))


@pytest.mark.parametrize(
    "use",
    [
        lambda model, x: denoise(model, x, sampling=FIVE),
        lambda model, x: eqm.tasks.vary(model, x, sampling=FIVE),
        lambda model, x: eqm.tasks.interpolate(model, x[0], x[1], sampling=FIVE),
        lambda model, x: eqm.tasks.EqmDetector(model, "loss").score_samples(x),
    ],
)
def test_images_that_seem_to_lie_in_0_to_1_are_warned_of(model, caplog, use):
    images = torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images[:2, 0, 0, 0] = 0
    use(model, images)
    assert "but black is -1 here: if 0 is black in yours, pass 2 * images - 1" in caplog.text
    caplog.clear()
    use(model, 2 * images - 1)
    use(model, images[5:] / 2 + 0.3)  # a few bright ones
    assert not caplog.text
