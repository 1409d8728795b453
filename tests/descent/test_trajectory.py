import pytest
import torch

import eqm
from eqm.descent import measure_trajectory, record_trajectory
from eqm.models import MLP, MLPConfig


def bowl(x, labels):
    return x


HALVE = eqm.GradientDescent(0.5)


def test_moments_are_the_steps_that_iterate_yields_and_ended_samples_stay():
    x = torch.tensor([[1.0], [8.0]])
    moved = record_trajectory(bowl, x, rule=HALVE, at=[0, 1, 3, 4], stop=eqm.GradientNorm(1.1))
    assert moved.x[..., 0].tolist() == [[1, 8], [0.5, 4], [0.5, 1], [0.5, 0.5]]
    assert moved.steps.tolist() == [[0, 0], [1, 1], [1, 3], [1, 4]]
    assert moved.path.tolist() == [[0, 0], [0.5, 0.5], [0.5, 1.5], [0.5, 2.0]]


def test_late_moments_are_not_reached_a_step_early():
    moved = record_trajectory(
        bowl, torch.ones(1, 1), rule=HALVE, at=[9_999, 10_000], max_steps=20_000
    )
    assert moved.steps.tolist() == [[9_999], [10_000]]


def test_moments_of_the_path_are_counted_for_each_sample():
    rule = eqm.BarzilaiBorwein(first_step=0.1, min_step=0.1, max_step=0.2)
    curvature = torch.tensor([10.0, 5.0])
    field = lambda x, labels: x * curvature[labels, None]  # noqa: E731
    moved = record_trajectory(
        field, torch.ones(2, 1), torch.tensor([0, 1]), rule=rule, at=[0.1, 0.3], by="path"
    )
    assert moved.steps.tolist() == [[1, 1], [3, 2]]


def test_work_is_the_change_of_the_energy():
    torch.manual_seed(0)
    net = MLP(MLPConfig(shape=(6,), width=16, depth=1)).double()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    energy = eqm.DotEnergy(net)
    x = torch.randn(5, 6, dtype=torch.float64)
    moved = record_trajectory(energy, x, rule=eqm.GradientDescent(0.005), at=range(101))
    seen = measure_trajectory(energy, moved)
    torch.testing.assert_close(seen.work, seen.energy - seen.energy[0], rtol=1e-3, atol=1e-4)
    assert (seen.work[-1] < 0).all()
    torch.testing.assert_close(seen.gradient_norm[0], energy(x).norm(dim=1).detach())
    assert measure_trajectory(bowl, moved).energy is None


@pytest.mark.parametrize("at", [[], [2, 1], [1, 1], [-1, 2]])
def test_moments_out_of_order_are_named(at):
    with pytest.raises(ValueError, match="at must be rising"):
        record_trajectory(bowl, torch.ones(1, 1), rule=HALVE, at=at)
