import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from safetensors.torch import load_file

import eqm
from eqm.data import Images, digits
from eqm.features import accuracy, train_classifier
from eqm.gammas import Uniform
from eqm.models import MLPConfig, UNet, UNetConfig, save_pretrained
from eqm.recipes import RECIPES
from eqm.tasks import generate
from eqm.train import (
    Interrupted,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
    checkpoint,
    start,
    train,
)
from eqm.train.checkpoint import settings_of
from eqm.train.ema import update_average

FLOW = ObjectiveConfig(decay="constant", scale=1.0)
TINY = TrainConfig(
    model=UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2)),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup=200, ema_halflife=300, clip=1.0),
    images=1280,
    batch_size=32,
    checkpoint_every=320,
)


@pytest.fixture(scope="module")
def images():
    return digits()[torch.arange(0, 1797, 3)]


def last(run):
    *_, end = run
    return end


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("*.safetensors"))


def weights(folder: Path):
    written = load_file(folder / "model.safetensors")
    return load_file(newest(folder)) | {f"file.{name}": value for name, value in written.items()}


def assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("energy", ["implicit", "dot"])
def test_forty_steps_are_twenty_and_twenty_more_to_the_bit(images, tmp_path, energy):
    config = replace(TINY, objective=ObjectiveConfig(energy=energy))
    last(train(config, images, tmp_path / "whole"))
    last(train(replace(config, images=640), images, tmp_path / "parts"))
    torch.manual_seed(999)  # nothing of the run may hang on the global state
    end = last(train(config, images, tmp_path / "parts"))
    assert end.images == 1280
    assert_same_bits(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


def test_training_leaves_the_global_random_state_alone(images, tmp_path):
    before = torch.get_rng_state()
    last(train(replace(TINY, images=64), images, tmp_path))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_decides(images, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        last(train(replace(TINY, images=96, seed=seed), images, tmp_path / name))
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert_same_bits(a, b)
    assert not torch.equal(a["model.stem.weight"], c["model.stem.weight"])


def test_a_run_starts_from_trained_weights_and_the_norm_learns_from_them(images, tmp_path):
    config = replace(TINY, images=64)
    last(train(config, images, tmp_path / "implicit"))
    norm = replace(
        config, objective=ObjectiveConfig(energy="norm"), init_from=str(tmp_path / "implicit")
    )
    trained = eqm.from_pretrained(tmp_path / "implicit").state_dict()
    begun = start(norm, torch.device("cpu")).model.net.state_dict()
    assert_same_bits(begun, trained)
    assert last(train(norm, images, tmp_path / "norm")).gradient_norm > 0
    assert isinstance(eqm.from_pretrained(tmp_path / "norm"), eqm.NormEnergy)
    other = replace(norm, model=replace(TINY.model, width=8))
    with pytest.raises(ValueError, match="expected a trained"):
        next(train(other, images, tmp_path / "other"))
    with pytest.raises(ValueError, match="or set init_from to a trained model"):
        replace(norm, init_from="")


def test_the_loss_falls_and_the_saved_average_is_what_loads(images, tmp_path):
    losses = [step.loss.item() for step in train(TINY, images, tmp_path)]
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])
    model = eqm.from_pretrained(tmp_path)
    saved = weights(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(saved[f"average.{name}"], value)
    assert model.metadata["training"]["images_seen"] == 1280
    assert model.metadata["data"]["fingerprint"] == images.fingerprint
    assert model.metadata["sampling"]["step_size"] == TINY.sampling.step_size
    assert "classes" not in model.metadata["data"]  # they are numbers


def test_what_classes_are_called_is_kept_with_the_weights_and_may_change(images, tmp_path):
    names = [f"digit-{number}" for number in range(10)]
    short = replace(TINY, images=TINY.batch_size)
    last(train(short, images, tmp_path))
    named = replace(images, class_names=tuple(names))
    last(train(replace(short, images=2 * TINY.batch_size), named, tmp_path))
    model = eqm.from_pretrained(tmp_path)
    assert model.metadata["data"]["classes"] == names
    by_name = eqm.tasks.generate(model, ["DIGIT-3", "none", "7"]).x
    assert torch.equal(by_name, eqm.tasks.generate(model, torch.tensor([3, 10, 7])).x)
    with pytest.raises(ValueError, match="there is no class 'digit', only digit-0, digit-1"):
        eqm.tasks.generate(model, "digit", count=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": FLOW},
        {
            "model": replace(TINY.model, noise_conditioning=True),
            "objective": FLOW,
        },
        {"model": replace(TINY.model, noise_conditioning=True)},
        {"model": replace(TINY.model, num_classes=0)},
        {"model": MLPConfig(shape=(1, 8, 8), num_classes=10, width=16)},
        {"objective": ObjectiveConfig(energy="dot", decay="piecewise")},
        {"precision": "bfloat16"},
        # together they cannot be, and the less memory is what counts
        {
            "objective": ObjectiveConfig(energy="dot"),
            "compile": "on",
            "activation_checkpointing": True,
        },
    ],
)
def test_every_kind_of_run_trains_and_loads(images, tmp_path, changes):
    config = replace(TINY, images=64, **changes)
    assert last(train(config, images, tmp_path)).loss.isfinite()
    model = eqm.from_pretrained(tmp_path)
    gamma = [torch.full((2,), 0.5)] if config.model.noise_conditioning else []
    assert model(images.data[:2], None, *gamma).shape == (2, 1, 8, 8)


class Spy:
    """An objective that notes what it is called with."""

    distribution = Uniform()

    def __init__(self):
        self.noise, self.labels = [], []

    def loss_at(self, field, data, labels, *, noise, gamma):
        self.noise.append(noise)
        self.labels.append(labels)
        return field(data, labels).square().flatten(1).mean(1)


def test_every_step_draws_its_own_noise_and_drops_its_share_of_labels(
    images, tmp_path, monkeypatch
):
    spy = Spy()
    monkeypatch.setattr(TrainConfig, "make_objective", lambda config: spy)
    last(train(replace(TINY, images=3200, label_dropout=0.3), images, tmp_path))
    assert len(torch.cat(spy.noise).unique(dim=0)) == 3200
    dropped = (torch.cat(spy.labels) == 10).float().mean().item()
    assert dropped == pytest.approx(0.3, abs=0.03)


def test_the_average_moves_and_lags(images, tmp_path):
    end = last(train(TINY, images, tmp_path)).state
    fresh = start(TINY, torch.device("cpu")).average
    for name, weight in end.average.named_parameters():
        assert not torch.equal(weight, fresh.get_parameter(name))
        assert not torch.equal(weight, end.model.get_parameter(name))


def test_the_average_of_a_short_run_forgets_its_beginning():
    model, average = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    distance = (average.weight - model.weight).norm().item()
    for images in range(10, 2010, 10):
        update_average(average, model, images=images, batch=10, halflife=10**9)
    assert (average.weight - model.weight).norm().item() < 0.01 * distance


def one_step(config, images, tmp_path, name):
    """What one step moves the weights by."""
    state = last(train(replace(config, images=config.batch_size), images, tmp_path / name)).state
    fresh = start(config, torch.device("cpu")).model
    moved = zip(state.model.parameters(), fresh.parameters(), strict=True)
    return torch.cat([(a - b).detach().flatten() for a, b in moved])


def test_settings_of_the_optimizer_reach_it(images, tmp_path):
    plain = replace(TINY, optimizer=OptimizerConfig(learning_rate=1e-3))
    moved = one_step(plain, images, tmp_path, "plain")
    # the first step of Adam is the learning rate in every element with a gradient
    assert moved.abs().max().item() == pytest.approx(1e-3, rel=0.01)
    for name, changes, ratio in [
        ("warm", {"warmup": 320}, 0.1),
        ("decay", {"weight_decay": 0.5}, None),
        ("clip", {"clip": 1e-9}, None),
    ]:
        other = replace(plain, optimizer=replace(plain.optimizer, **changes))
        moved_otherwise = one_step(other, images, tmp_path, name)
        assert not torch.allclose(moved_otherwise, moved, rtol=1e-3)
        if ratio is not None:
            torch.testing.assert_close(moved_otherwise, ratio * moved, rtol=1e-2, atol=1e-7)
    rough = replace(plain, precision="bfloat16")
    assert not torch.equal(one_step(rough, images, tmp_path, "rough"), moved)


@pytest.mark.parametrize(
    ("settings", "decay"),
    [
        ({"decay": "truncated", "start": 0.6}, eqm.TruncatedDecay(0.6, 4.0)),
        ({"decay": "linear", "scale": 2.0}, eqm.LinearDecay(2.0)),
        ({"decay": "piecewise", "initial": 1.2}, eqm.PiecewiseDecay(0.8, 1.2, 4.0)),
        ({"decay": "constant", "scale": 1.0}, eqm.ConstantDecay()),
    ],
)
def test_the_objective_is_the_one_described(settings, decay):
    config = replace(TINY, objective=ObjectiveConfig(**settings))
    assert config.make_objective() == eqm.EquilibriumMatching(decay)


def test_the_recipe_learns_to_draw_digits(tmp_path):
    seen, val_data = digits().split(0.2)
    last(train(replace(RECIPES["digits"], images=38_400), seen, tmp_path))
    classifier = train_classifier(seen.data, seen.classes, num_classes=10)
    assert accuracy(classifier, val_data.data, val_data.classes) >= 0.97
    labels = torch.arange(200) % 10
    drawn = generate(eqm.from_pretrained(tmp_path), labels).x
    assert accuracy(classifier, drawn, labels) >= 0.85


def test_recipes_suit_their_data():
    of_digits = [config for config in RECIPES.values() if config.data.path == "digits"]
    assert len(of_digits) == 3
    for config in of_digits:
        assert config.suited_to(digits()) == config


def test_a_network_is_suited_to_other_images():
    mine = Images("mine", torch.zeros(4, 3, 12, 8), torch.tensor([0, 1, 2, 3]), 4)
    assert TINY.suited_to(mine).model == replace(TINY.model, shape=(3, 12, 8), num_classes=4)
    unconditional = replace(TINY, model=replace(TINY.model, num_classes=0))
    assert unconditional.suited_to(mine).model.num_classes == 0


def test_another_run_in_the_folder_is_refused_by_what_differs(images, tmp_path):
    last(train(replace(TINY, images=64), images, tmp_path))
    before = newest(tmp_path).read_bytes()
    with pytest.raises(ValueError, match=r"other settings \(batch_size was 32 and is now 16\)"):
        last(train(replace(TINY, batch_size=16), images, tmp_path))
    with pytest.raises(ValueError, match=r"data.fingerprint was \w+ and is now \w+"):
        last(train(TINY, images[torch.arange(len(images)).flip(0)], tmp_path))
    assert newest(tmp_path).read_bytes() == before


def test_a_run_from_before_a_setting_existed_goes_on_with_its_default(
    images, tmp_path, monkeypatch
):
    older = ("model.stride", "label_dropout", "data.flip")

    def without(config, data):
        return {k: v for k, v in settings_of(config, data).items() if k not in older}

    with monkeypatch.context() as past:
        past.setattr(checkpoint, "settings_of", without)
        last(train(replace(TINY, images=64), images, tmp_path))
    header = newest(tmp_path).with_suffix(".json").read_text()
    assert "label_dropout" not in header
    with pytest.raises(ValueError, match=r"\(label_dropout was 0.1 and is now 0.5\)"):
        last(train(replace(TINY, images=96, label_dropout=0.5), images, tmp_path))
    assert [step.images for step in train(replace(TINY, images=96), images, tmp_path)] == [96]


def test_data_may_move_between_two_parts_of_a_run(images, tmp_path):
    last(train(replace(TINY, images=64), images, tmp_path))
    steps = train(replace(TINY, images=96), replace(images, name="elsewhere"), tmp_path)
    assert [step.images for step in steps] == [96]


def test_weights_that_burst_are_not_saved(images, tmp_path):
    last(train(replace(TINY, images=64), images, tmp_path))
    before = newest(tmp_path).read_bytes()
    run = train(TINY, images, tmp_path)
    step = next(run)
    with torch.no_grad():
        next(step.state.model.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="no longer finite after .* images: lower"):
        last(run)
    assert newest(tmp_path).read_bytes() == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(TINY, model=UNetConfig(shape=(1, 16, 16))), "the network is for"),
        (replace(TINY, model=replace(TINY.model, num_classes=7)), "for 7 classes"),
        (replace(TINY, device="warp"), 'device "warp" is not available'),
    ],
)
def test_a_run_that_cannot_be_is_named(images, tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        last(train(config, images, tmp_path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(TINY, images=0), "images must be at least 1"),
        (
            lambda: replace(TINY, label_dropout=1.0),
            "label_dropout must be a number from 0 to below 1",
        ),
        (lambda: OptimizerConfig(learning_rate=0), "learning_rate must be a number above 0"),
        (lambda: OptimizerConfig(learning_rate=1e300), "learning_rate must be .* up to 1,000"),
        (lambda: OptimizerConfig(eps=1e-50), "eps must be a number from 1e-30 to 1; got 1e-50"),
        (lambda: OptimizerConfig(clip=-1), "clip must be a finite number of at least 0"),
        (lambda: OptimizerConfig(betas=(0.9,)), "betas must be a list of 2 numbers"),
        (lambda: OptimizerConfig(name="sgd"), "name must be one of adamw, muon; got 'sgd'"),
        (lambda: replace(TINY, seed=2**63), "seed must be a whole number"),
        (lambda: replace(TINY, batch_size=10**12), "batch_size must be .* from 1 to 1,048,576"),
        (lambda: replace(TINY, threads=10**9), "threads must be .* from 0 to 1,024"),
        (
            lambda: replace(TINY, trackers=("wandb",) * 2),
            "trackers must be different .* wandb, wan",
        ),
        (
            lambda: ObjectiveConfig(decay_options=(("scale", 1.0), ("scale", 2.0))),
            "decay_options must name each setting once; got scale, scale",
        ),
        (lambda: ObjectiveConfig(start=1.5), "start"),
        (
            lambda: replace(
                TINY,
                model=replace(TINY.model, noise_conditioning=True),
                objective=replace(FLOW, energy="dot"),
            ),
            "noise_conditioning must be off",
        ),
        (
            lambda: replace(
                TINY,
                parallel="fsdp",
                objective=ObjectiveConfig(energy="dot", gradient="difference"),
            ),
            "objective.gradient difference needs parallel ddp; got fsdp",
        ),
    ],
)
def test_settings_without_meaning_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400, "1", None, True])
def test_every_number_of_the_settings_is_a_finite_number(value):
    """Also the ones that the chosen decay does not use."""
    for settings in (TINY, TINY.optimizer, TINY.objective):
        hints = get_type_hints(type(settings))
        numbers = [name for name, hint in hints.items() if hint in (int, float)]
        assert numbers
        for name in numbers:
            with pytest.raises(ValueError, match=rf"{name} must be a .*number"):
                replace(settings, **{name: value})
        for name in [name for name in numbers if hints[name] is int]:
            with pytest.raises(ValueError, match=rf"{name} must be a whole number"):
                replace(settings, **{name: 2.5})


def test_the_average_counts_half_after_its_halflife():
    model, average = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    start = average.weight.detach().clone()
    for step in range(1, 11):  # ten batches of 10 make one half-life of 100
        update_average(average, model, images=10_000 + 10 * step, batch=10, halflife=100)
    torch.testing.assert_close(average.weight, (start + model.weight) / 2)


def test_an_interrupt_in_the_process_saves_first(images, tmp_path):
    run = train(TINY, images, tmp_path)
    next(run)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"interrupted after 64 of 1,280 images, saved"):
        last(run)
    last(train(TINY, images, tmp_path))
    last(train(TINY, images, tmp_path / "whole"))
    assert_same_bits(weights(tmp_path), weights(tmp_path / "whole"))


def test_an_interrupt_does_not_wait_for_the_compiler(images, tmp_path, monkeypatch):
    def compiled(network):
        os.kill(os.getpid(), signal.SIGINT)
        return lambda *inputs: time.sleep(30)

    monkeypatch.setattr(UNet, "compiled", lambda net: lambda *inputs: compiled(net)(*inputs))
    since = time.monotonic()
    with pytest.raises(Interrupted, match="before the step was complete"):
        last(train(replace(TINY, compile="on"), images, tmp_path))
    assert time.monotonic() - since < 20


def test_two_processes_do_not_write_to_one_folder(images, tmp_path):
    holds = (
        "from eqm.files import lock_folder\n"
        f"file = lock_folder({str(tmp_path)!r}); print(1); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(
            ValueError, match="another process is writing to .*: wait until it ends"
        ):
            last(train(TINY, images, tmp_path))
        other.communicate(b"\n")
    last(train(TINY, images, tmp_path))


def test_two_runs_of_one_process_do_not_write_to_one_folder(images, tmp_path):
    run = train(TINY, images, tmp_path)
    refused = []

    def again():
        with pytest.raises(ValueError, match="this process is writing to .* already") as failure:
            train(TINY, images, tmp_path)
        refused.append(str(failure.value))

    again()  # before the first step
    next(run)
    again()
    thread = threading.Thread(target=again)
    thread.start()
    thread.join()
    assert len(refused) == 3
    with pytest.raises(ValueError, match="this process is writing to"):
        save_pretrained(start(TINY, torch.device("cpu")).average, tmp_path)
    run.close()
    end = last(train(TINY, images, tmp_path))
    assert end.images == TINY.images


def test_a_run_without_a_finite_step_is_refused(images, tmp_path):
    config = replace(TINY, objective=ObjectiveConfig(scale=1e30), images=320)
    with pytest.raises(ValueError, match="none of the 10 steps had a finite loss and gradient"):
        last(train(config, images, tmp_path))
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_command_goes_on_to_the_same_bits(tmp_path, number):
    command = [
        *(sys.executable, "-m", "eqm", "train", "digits", "--images", "24000"),
        *("--model.width", "4", "--model.multipliers", "1", "2", "--checkpoint-every", "3200"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(folder):
        with (tmp_path / "stderr").open("a") as stderr:
            return subprocess.Popen(
                [*command, "--output", str(tmp_path / folder)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    whole, torn = start("whole"), start("torn")
    while not (tmp_path / "torn" / "model.safetensors").exists():
        assert torn.poll() is None, (tmp_path / "stderr").read_text()
        time.sleep(0.02)
    torn.send_signal(number)
    status = torn.wait()
    message = (tmp_path / "stderr").read_text()
    if number == signal.SIGINT:
        assert status == 130
        assert "run the same command to resume" in message
        assert "Traceback" not in message
    assert start("torn").wait() == 0
    assert whole.wait() == 0
    assert_same_bits(weights(tmp_path / "torn"), weights(tmp_path / "whole"))
