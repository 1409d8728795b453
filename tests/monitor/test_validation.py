from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import eqm
from eqm.data import Images, digits
from eqm.models import UNetConfig
from eqm.monitor.callbacks import BANDS, SAMPLES, Evaluation, ValidationLoss, loss_by_gamma
from eqm.train import ObjectiveConfig, TrainConfig, start

CPU = torch.device("cpu")
CONFIG = TrainConfig(model=UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2)))


@pytest.fixture(scope="module")
def val_data():
    return digits()[torch.arange(0, 1797, 6)]


def test_the_loss_of_a_known_field_is_its_closed_form():
    # Data are 0 and the field is 0, so the loss is c(gamma)^2 |noise|^2 with mean c(gamma)^2.
    zeros = Images("zeros", torch.zeros(SAMPLES, 1, 16, 16))
    losses = loss_by_gamma(
        lambda x, labels: torch.zeros_like(x), zeros, eqm.EquilibriumMatching(), device=CPU
    )
    gamma = (torch.arange(BANDS * 1000) + 0.5) / (BANDS * 1000)
    expected = eqm.TruncatedDecay()(gamma).square().view(BANDS, -1).mean(1)
    torch.testing.assert_close(losses, expected, rtol=0.1, atol=0)
    assert losses.mean() == pytest.approx(expected.mean().item(), rel=0.02)


def test_its_mean_estimates_the_training_loss(val_data):
    field = start(CONFIG, CPU).model
    losses = loss_by_gamma(field, val_data, CONFIG.make_objective(), device=CPU)
    many = torch.arange(40).repeat_interleave(len(val_data))
    with torch.no_grad():
        drawn = CONFIG.make_objective()(
            field,
            val_data.data.repeat(40, 1, 1, 1),
            val_data.labels.repeat(40),
            generator=torch.Generator().manual_seed(0),
        )
    error = (drawn.std() / len(many) ** 0.5 + drawn.std() / (SAMPLES * BANDS) ** 0.5).item()
    assert abs(losses.mean() - drawn.mean()) < 4 * error


def test_it_is_that_of_the_exact_energy_however_its_weights_are_trained(val_data):
    exact, difference = (
        replace(CONFIG, objective=ObjectiveConfig(energy="dot", gradient=gradient))
        for gradient in ("exact", "difference")
    )
    progress = SimpleNamespace(state=start(exact, CPU))
    seen = [ValidationLoss(config, val_data)(progress).numbers for config in (exact, difference)]
    assert seen[0] == seen[1]


def test_it_is_the_same_each_time_and_for_any_batch_size(val_data):
    field = start(CONFIG, CPU).model
    once, again, small = (
        loss_by_gamma(field, val_data, CONFIG.make_objective(), device=CPU, batch_size=size)
        for size in (256, 256, 37)
    )
    assert torch.equal(once, again)
    torch.testing.assert_close(small, once, rtol=1e-5, atol=0)


def test_no_more_images_are_held_at_once_than_in_training(val_data):
    state, sizes = start(CONFIG, CPU), []
    state.average.register_forward_pre_hook(lambda net, given: sizes.append(len(given[0])))
    ValidationLoss(replace(CONFIG, micro_batch=5), val_data)(SimpleNamespace(state=state))
    assert max(sizes) == 5


def test_the_averaged_weights_are_what_is_measured_and_kept(val_data):
    state = start(CONFIG, CPU)
    with torch.no_grad():
        next(state.model.parameters()).fill_(torch.nan)
    told = []
    callback = ValidationLoss(
        CONFIG, val_data, keep_best=lambda state, loss: told.append((state, loss))
    )
    numbers = callback(SimpleNamespace(state=state)).numbers
    bands = [v for k, v in numbers.items() if k.startswith("val_loss/")]
    assert len(bands) == BANDS
    assert numbers["val_loss"] == pytest.approx(sum(bands) / BANDS)
    assert told == [(state, numbers["val_loss"])]


def test_a_function_of_ones_own_is_asked_with_the_average():
    state = start(CONFIG, CPU)
    callback = Evaluation(lambda field: {"same": field is state.average})
    assert callback(SimpleNamespace(state=state)).numbers == {"same": 1.0}
