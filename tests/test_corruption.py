import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import eqm

DECAYS = [
    eqm.LinearDecay(2.0),
    eqm.TruncatedDecay(),
    eqm.PiecewiseDecay(0.6, 1.4, 3.0),
    eqm.PiecewiseDecay(0.8, 0.8),
]


@pytest.mark.parametrize("decay", DECAYS)
def test_decays_are_continuous_not_negative_and_zero_at_data(decay):
    gamma = torch.linspace(0, 1, 1001, dtype=torch.float64)
    values = decay(gamma)
    assert (values >= 0).all()
    assert values[-1] == 0
    assert values.diff().abs().max() < 0.03  # no jumps


@given(
    gamma=st.floats(0, 1),
    start=st.floats(0.05, 0.95),
    initial=st.floats(0.1, 3),
    scale=st.floats(0.1, 8),
)
def test_decays_follow_their_formulas(gamma, start, initial, scale):
    at = torch.tensor(gamma, dtype=torch.float64)
    tail = (1 - gamma) / (1 - start)
    expected = {
        eqm.LinearDecay(scale): scale * (1 - gamma),
        eqm.TruncatedDecay(start, scale): scale * (1 if gamma <= start else tail),
        eqm.PiecewiseDecay(start, initial, scale): scale
        * (initial - (initial - 1) / start * gamma if gamma <= start else tail),
        eqm.ConstantDecay(scale): scale,
    }
    for decay, value in expected.items():
        assert decay(at).item() == pytest.approx(value, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: eqm.LinearDecay(0),
        lambda: eqm.TruncatedDecay(1.0),
        lambda: eqm.TruncatedDecay(scale=-1),
        lambda: eqm.PiecewiseDecay(initial=0),
        lambda: eqm.ConstantDecay(float("nan")),
    ],
)
def test_decays_refuse_settings_out_of_range(make):
    with pytest.raises(ValueError, match="must"):
        make()


def test_corruption_runs_from_noise_to_data():
    data, noise = torch.randn(2, 3, 1, 4, 4)
    torch.testing.assert_close(eqm.corrupt(data, noise, torch.zeros(3)), noise)
    torch.testing.assert_close(eqm.corrupt(data, noise, torch.ones(3)), data)


def test_corruption_names_the_shape_it_expected():
    data = torch.zeros(8, 2)
    with pytest.raises(
        ValueError, match=r"gamma must have shape \(8,\).*\(8, 1\): pass gamma.flatten\(\)"
    ):
        eqm.corrupt(data, data, torch.zeros(8, 1))
    with pytest.raises(
        ValueError, match=r"gamma must be a tensor of shape \(8,\).*got 0.5: pass torch.full"
    ):
        eqm.corrupt(data, data, 0.5)
    with pytest.raises(ValueError, match="noise must have the shape of data"):
        eqm.corrupt(data, data[:1], torch.zeros(8))
