"""The MLP as a field on vectors and on what can be flattened."""

import pytest
import torch

from eqm.models import MLP, MLPConfig


@pytest.mark.parametrize("shape", [(2,), (1,), (3, 2, 2)])
def test_fresh_mlp_keeps_the_shape_and_is_zero(shape):
    x = torch.randn(4, *shape)
    gradient = MLP(MLPConfig(shape=shape, width=8))(x)
    assert gradient.shape == x.shape
    assert not gradient.any()


def test_labels_and_noise_level_change_the_field():
    network = MLP(MLPConfig(num_classes=3, noise_conditioning=True, width=8))
    torch.nn.init.normal_(network.head.weight)
    x, labels, gamma = torch.randn(2, 2), torch.tensor([0, 2]), torch.tensor([0.1, 0.9])
    field = network(x, labels, gamma)
    assert not torch.allclose(field, network(x, labels.flip(0), gamma))
    assert not torch.allclose(field, network(x, labels, gamma.flip(0)))


def test_mlp_can_be_differentiated_twice():
    network = MLP(MLPConfig(width=4, depth=1)).double()
    torch.nn.init.normal_(network.head.weight)
    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(network, x)


def test_a_skip_adds_the_sample_times_a_number_of_its_own():
    network = MLP(MLPConfig(shape=(3, 4, 4), width=8, depth=1, skip=True))
    x = torch.randn(5, 3, 4, 4)
    assert not network(x).any()
    torch.nn.init.normal_(network.skip.weight)  # the head is still zero
    factors = network(x) / x
    torch.testing.assert_close(factors, factors[:, :1, :1, :1].expand_as(x))
    assert factors[:, 0, 0, 0].unique().numel() == 5
