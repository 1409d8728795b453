import math

import pytest
import torch

import eqm
from eqm.descent import curl, dopri5, stability_limit, stiffness
from eqm.models import Transformer, TransformerConfig


def linear(matrix):
    return lambda x, labels: x @ matrix.mT


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2, math.pi / 2])
def test_curl_of_a_linear_field_is_exact(angle):
    matrix = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    ).double()
    found = curl(linear(matrix), torch.randn(3, 2).double())
    torch.testing.assert_close(found, torch.full((3,), abs(math.sin(angle))).double())


def test_curl_by_probes_estimates_that_of_all_directions():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(40, 40, generator=generator).double()
    exact = ((matrix - matrix.mT) / 2).norm() / matrix.norm()
    x = torch.zeros(1, 40).double()
    assert curl(linear(matrix), x, probes=40).item() == pytest.approx(exact.item())
    assert curl(linear(matrix), x, probes=30).item() == pytest.approx(exact.item(), rel=0.1)


def test_an_energy_has_no_curl_and_a_network_has():
    torch.manual_seed(0)
    net = Transformer(TransformerConfig(shape=(1, 4, 4), patch=2, width=16, depth=1, heads=2))
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    x = torch.randn(2, 1, 4, 4)
    assert curl(net, x, probes=4).min() > 0.3
    assert curl(eqm.DotEnergy(net), x, probes=4).max() < 1e-4
    assert curl(lambda x, labels: torch.ones_like(x), x).tolist() == [0, 0]
    assert curl(lambda x, labels: 0 * x, x).tolist() == [0, 0]
    bias = torch.ones(1, 1, 4, 4, requires_grad=True)
    assert curl(lambda x, labels: bias.expand_as(x), x).tolist() == [0, 0]


def test_a_sparse_gradient_is_refused():
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match="must return a dense tensor"):
        stiffness(lambda x, labels: x.to_sparse(), x)
    with pytest.raises(ValueError, match="must return a dense tensor"):
        eqm.descend(lambda x, labels: x.to_sparse(), x, rule=eqm.GradientDescent(0.1))


def test_curl_is_nan_where_the_field_is_not_finite():
    factor = torch.tensor([[1.0], [torch.nan]])
    found = curl(lambda x, labels: factor * x, torch.ones(2, 3))
    assert found[0] == 0
    assert found[1].isnan()


def test_the_exact_field_of_three_points_is_no_gradient():
    field = eqm.OptimalField(torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, -1.0]]))
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).double()
    found = curl(field, x)
    for point, share in zip(x[:5], found, strict=False):
        jacobian = torch.autograd.functional.jacobian(lambda z: field(z[None])[0], point)
        skew = (jacobian - jacobian.mT).norm() / 2
        assert share.item() == pytest.approx((skew / jacobian.norm()).item())
    assert 0.15 < found.median() < 0.2


def test_stiffness_is_the_largest_eigenvalue_of_each_sample():
    matrix = torch.diag(torch.tensor([1.0, -7.0, 20.0])).double()
    found = stiffness(linear(matrix), torch.randn(4, 3).double())
    assert found.tolist() == pytest.approx([20.0] * 4, rel=1e-4)
    datum = torch.randn(1, 64)
    assert stiffness(eqm.OptimalField(datum), datum).item() == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize(
    ("rule", "bound"),
    [
        (eqm.GradientDescent(0.3), 2.0),
        (eqm.NesterovLookahead(0.3, 0.3), 2 / 1.6),
        (eqm.Nesterov(0.3, 0.3), 2.6 / 1.6),
        (eqm.HeavyBall(0.3, 0.3), 2.6),
        (eqm.AdamsBashforth(0.3), 1.0),
        (eqm.AdamsBashforth(0.3, order=3), 6 / 11),
        (eqm.Heun(0.3), 2.0),
        (eqm.RungeKutta4(0.3), 2.785),
        (eqm.Adam(0.3), None),
        (eqm.Anderson(0.3), None),
        (eqm.BarzilaiBorwein(), None),
    ],
)
def test_stability_limits_are_those_of_theory(rule, bound):
    assert stability_limit(rule) == (
        None if bound is None else pytest.approx(bound, rel=0.01, abs=0.006)
    )


def test_dopri5_follows_the_flow():
    pytest.importorskip("torchdiffeq")
    matrix = torch.tensor([[1.0, 3.0], [-3.0, 0.5]]).double()
    start = torch.tensor([[1.0, -0.5], [torch.nan, 0.0], [0.3, 2.0]]).double()
    end = dopri5(linear(matrix), start, length=1.0, relative=1e-8, absolute=1e-10)
    exact = start @ torch.linalg.matrix_exp(-matrix).mT
    torch.testing.assert_close(end.x[[0, 2]], exact[[0, 2]], rtol=1e-6, atol=1e-8)
    assert end.outcome == ("converged", "diverged", "converged")
    assert end.nfe[1] == 0 < end.nfe[0] == end.nfe[2]
    with pytest.raises(ValueError, match="length must be a positive number"):
        dopri5(linear(matrix), start, length=0)
    with pytest.raises(ValueError, match="needs too small steps"):
        dopri5(lambda x, y: x * torch.nan, start[:1], length=1.0)
