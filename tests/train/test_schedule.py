import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqm.train import OptimizerConfig
from eqm.train.optimizer import learning_rate_at


@pytest.mark.parametrize(
    ("schedule", "cooldown", "images", "factor"),
    [
        ("constant", 1.0, 123, 1),
        ("constant", 1.0, 5000, 1),
        ("cosine", 1.0, 250, (1 + math.sqrt(0.5)) / 2),
        ("cosine", 1.0, 500, 0.5),
        ("cosine", 0.5, 500, 1),
        ("cosine", 0.5, 750, 0.5),
        ("linear", 1.0, 250, 0.75),
        ("linear", 0.2, 800, 1),
        ("linear", 0.2, 950, 0.25),
        ("sqrt", 0.2, 800, 1),
        ("sqrt", 0.2, 850, 0.5),  # a quarter into the cooldown
        ("sqrt", 1.0, 1000, 0),
        ("linear", 0.2, 1001, 0),  # the last whole batch may go beyond
        ("inverse-sqrt", 1.0, 100, 1),
        ("inverse-sqrt", 1.0, 900, 1 / 3),
        ("inverse-sqrt", 1.0, 10_000, 0.1),
    ],
)
def test_the_learning_rate_is_its_closed_form(schedule, cooldown, images, factor):
    settings = OptimizerConfig(learning_rate=0.2, schedule=schedule, cooldown=cooldown, hold=100)
    rate = learning_rate_at(settings, images=images, total=1000)
    assert rate == pytest.approx(0.2 * factor, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "sqrt", "inverse-sqrt"])
def test_the_warm_up_is_a_line_from_zero_on_top(schedule):
    cold = OptimizerConfig(schedule=schedule, hold=100)
    warm = OptimizerConfig(schedule=schedule, hold=100, warmup=400)
    for images in (1, 100, 400, 900):
        rates = [learning_rate_at(s, images=images, total=1000) for s in (warm, cold)]
        assert rates[0] == pytest.approx(min(1, images / 400) * rates[1], rel=1e-12)


@given(
    st.sampled_from(["cosine", "linear", "sqrt", "inverse-sqrt"]),
    st.floats(0.05, 1),
    st.integers(1, 2000),
    st.integers(0, 2000),
)
def test_without_a_warm_up_the_learning_rate_never_rises(schedule, cooldown, images, more):
    settings = OptimizerConfig(schedule=schedule, cooldown=cooldown, hold=200)
    early, late = (
        learning_rate_at(settings, images=n, total=1500) for n in (images, images + more)
    )
    assert 0 <= late <= early <= settings.learning_rate


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cooldown": 0.0}, "optimizer.cooldown must be a number above 0"),
        ({"betas": (0.9, 1.0)}, r"optimizer.betas\[1\] must be a number from 0 to below 1"),
        ({"momentum": 1.0}, "optimizer.momentum must be a number from 0 to below 1"),
        ({"hold": -1}, "optimizer.hold must be a whole number from 0 to"),
        ({"eps": 0.0}, "optimizer.eps must be a number from 1e-30 to 1; got 0.0"),
        (
            {"ema_sigma_rel": (0.05, 0.3)},
            "optimizer.ema_sigma_rel must lie between 0.0001 and 0.289",
        ),
        ({"ema_sigma_rel": (0.1, 0.1)}, "optimizer.ema_sigma_rel must be different"),
    ],
)
def test_settings_without_meaning_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**changes)
