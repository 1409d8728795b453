"""The U-Net as a field: any channels and sizes, conditions that act, smooth to second order."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from eqm.models import UNet, UNetConfig

TINY = UNetConfig(
    shape=(3, 4, 8),
    num_classes=4,
    noise_conditioning=True,
    width=4,
    multipliers=(1, 2, 2),
    heads=2,
    positions=True,
)


def randomised(config: UNetConfig) -> UNet:
    """A float64 network whose zero-initialised layers are not zero."""
    torch.manual_seed(0)
    network = UNet(config).double()
    for parameter in network.parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape))
    return network


def inputs(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(count, *TINY.shape, dtype=torch.float64)
    return x, torch.arange(count) % TINY.num_classes, torch.rand(count, dtype=torch.float64)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        UNetConfig(shape=(1, 3, 5), multipliers=(1,), width=6, blocks=2),
        UNetConfig(shape=(5, 12, 4), multipliers=(1, 3), width=5),
        UNetConfig(shape=(2, 4, 12), patch=2, multipliers=(1, 2), width=4),
    ],
)
def test_fresh_unet_keeps_the_shape_and_is_zero(config):
    x = torch.randn(2, *config.shape)
    gamma = torch.rand(2) if config.noise_conditioning else None
    gradient = UNet(config)(x, None, gamma)
    assert gradient.shape == x.shape
    assert not gradient.any()


def test_with_positions_alone_it_tells_places_far_from_the_border_apart():
    for positions in (False, True):
        config = UNetConfig(shape=(1, 16, 16), width=4, multipliers=(1,), positions=positions)
        middle = randomised(config)(torch.zeros(1, *config.shape, dtype=torch.float64))
        middle = middle[0, 0, 7:9, 7:9]
        assert (middle.std() > 1e-3) == positions


def test_labels_and_noise_level_change_the_field():
    network = randomised(TINY)
    x, labels, gamma = inputs(2)
    field = network(x, labels, gamma)
    assert not torch.allclose(field, network(x, None, gamma))
    assert not torch.allclose(field, network(x, labels, gamma / 2))
    null = torch.full((2,), TINY.num_classes)
    torch.testing.assert_close(network(x, None, gamma), network(x, null, gamma))


def test_a_sample_depends_on_nothing_else_in_its_batch():
    network = randomised(TINY)
    batch = inputs(5)
    rows = [3, 0]
    torch.testing.assert_close(network(*(v[rows] for v in batch)), network(*batch)[rows])


def test_every_parameter_learns():
    network = randomised(TINY)
    network(*inputs(4)).square().sum().backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


def test_unet_can_be_differentiated_twice():
    config = UNetConfig(shape=(1, 2, 2), width=2, multipliers=(1, 2), heads=2)
    x = torch.randn(1, *config.shape, dtype=torch.float64, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(randomised(config), x)


def test_another_dtype_and_labels_that_are_no_tensor_are_named():
    network = UNet(UNetConfig(shape=(1, 4, 4), num_classes=3, width=8, multipliers=(1,)))
    with pytest.raises(
        ValueError, match=r"must be of the network's dtype, torch.float32; got .*64"
    ):
        network(torch.zeros(1, 1, 4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="labels must be a tensor; got a list"):
        network(torch.zeros(1, 1, 4, 4), [1])
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.zeros(1, 1, 4, 4, dtype=torch.bfloat16)).isfinite().all()


def test_compiled_in_bfloat16_every_weight_gets_its_gradient(generator):
    network = UNet(UNetConfig(shape=(1, 16, 16), width=8, multipliers=(1, 2), heads=0))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    x = torch.randn(8, 1, 16, 16, generator=generator)
    gradients = []
    for field in (network, network.compiled()):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = (field(x).float() * x).mean()
        loss.backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    plain, compiled = gradients
    for name, gradient in plain.items():
        assert (compiled[name] - gradient).norm() < 0.1 * gradient.norm(), name
