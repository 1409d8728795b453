"""Networks of signals, videos and volumes: those of pictures are the oracle."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from eqm.models import TransformerConfig, UNetConfig, build
from eqm.models.axes import from_channels, position_table, repeated, to_channels
from eqm.tasks import generate


def randomised(config):
    torch.manual_seed(0)
    net = build(config)
    for weight in net.parameters():  # many begin at zero
        weight.data = torch.randn(weight.shape) * 0.2
    return net.eval()


def carried(net, like, axis):
    """The weights of `net` for a network without one axis, of which its samples have one place."""
    weights = {}
    for (name, weight), other in zip(
        net.state_dict().items(), like.state_dict().values(), strict=True
    ):
        if weight.ndim > other.ndim:
            axis_of = (
                axis if "positions" in name else axis + 1
            )  # (C, *sides) and (out, in, *kernel)
            # Zeros are padded around the one place, so only the middle of a kernel sees it.
            weight = weight.select(axis_of, weight.shape[axis_of] // 2)
        weights[name] = weight
    return weights


UNETS = [
    ((3, 1, 8, 12), (3, 8, 12), {"stride": (1, 2, 2), "patch": (1, 2, 2)}, {"patch": 2}, 1),
    ((2, 1, 16), (2, 16), {"stride": (1, 2), "patch": (1, 2)}, {"patch": 2}, 1),
    ((2, 12, 1), (2, 12), {"stride": (3, 1)}, {"stride": 3}, 2),
    ((2, 1, 16), (2, 16), {"stride": (1, 2), "kernel": (1, 5)}, {"kernel": 5}, 1),
]


@pytest.mark.parametrize(("large", "small", "options", "fewer", "axis"), UNETS)
def test_a_unet_with_an_axis_of_one_place_is_that_without_the_axis(
    large, small, options, fewer, axis
):
    sizes = {"num_classes": 3, "width": 8, "multipliers": (1, 2), "heads": 2, "positions": True}
    net = randomised(UNetConfig(shape=large, **sizes, **options))
    other = build(UNetConfig(shape=small, **sizes, **fewer)).eval()
    other.load_state_dict(carried(net, other, axis))
    x, labels = torch.randn(2, *large), torch.tensor([0, 3])
    gradient = net(x, labels)
    assert gradient.abs().max() > 0.1
    torch.testing.assert_close(
        gradient.squeeze(1 + axis), other(x.squeeze(1 + axis), labels), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("large", "small", "patch", "fewer"),
    [((3, 1, 4, 6), (3, 4, 6), (1, 2, 3), (2, 3)), ((2, 1, 8), (2, 8), (1, 4), 4)],
)
def test_a_transformer_with_an_axis_of_one_place_is_that_without_the_axis(
    large, small, patch, fewer
):
    sizes = {"num_classes": 3, "width": 24, "depth": 2, "heads": 2}
    net = randomised(TransformerConfig(shape=large, patch=patch, **sizes))
    other = build(TransformerConfig(shape=small, patch=fewer, **sizes)).eval()
    other.load_state_dict(carried(net, other, 1))
    x, labels = torch.randn(2, *large), torch.tensor([0, 3])
    gradient = net(x, labels)
    assert gradient.abs().max() > 0.1
    torch.testing.assert_close(
        gradient.squeeze(2), other(x.squeeze(2), labels), atol=1e-4, rtol=1e-4
    )


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3),
    st.integers(1, 3),
)
def test_patches_become_channels_and_back(sizes, channels):
    patch = tuple(size for size, _ in sizes)
    x = torch.arange(2 * channels * torch.tensor(sizes).prod(), dtype=torch.float32)
    x = x.view(2, channels, *(size * count for size, count in sizes))
    packed = to_channels(x, patch)
    assert packed.shape[2:] == tuple(count for _, count in sizes)
    # The first place holds the first patch, its axes in order.
    corner = x[(slice(None), slice(None), *map(slice, patch))].flatten(1)
    assert packed[(slice(None), slice(None), *[0] * len(patch))].equal(corner)
    assert from_channels(packed, patch).equal(x)


def test_patches_of_pictures_are_those_of_torch():
    x = torch.randn(2, 3, 4, 6)
    # the same patches, in the general way
    general = to_channels(x[:, :, None], (1, 2, 2))
    assert general[:, :, 0].equal(F.pixel_unshuffle(x, 2))
    assert from_channels(general, (1, 2, 2))[:, :, 0].equal(x)


@pytest.mark.parametrize("times", [(2,), (3,), (2, 2), (1, 2), (1, 2, 2), (2, 1, 3)])
def test_repeating_is_that_of_torch(times):
    x = torch.randn(2, 3, 4, 5, 6)[(..., *[0] * (3 - len(times)))]
    assert repeated(x, times).equal(F.interpolate(x, scale_factor=tuple(map(float, times))))


def test_each_place_has_a_position_of_its_own():
    for sides in [(7,), (3, 4), (2, 3, 4)]:
        table = position_table(sides, 24)[0]
        assert table.shape == (torch.tensor(sides).prod(), 24)
        assert len(table.unique(dim=0)) == len(table)
        # Sines and cosines of equal angles: each place is as long.
        torch.testing.assert_close(table.norm(dim=1), torch.full((len(table),), 12.0**0.5))


@pytest.mark.parametrize("shape", [(2, 16), (1, 4, 8, 8)])
@pytest.mark.parametrize("kind", [UNetConfig, TransformerConfig])
def test_signals_and_videos_are_sampled(shape, kind):
    sizes = {"multipliers": (1, 2)} if kind is UNetConfig else {"depth": 1, "width": 24, "heads": 2}
    net = build(kind(shape=shape, num_classes=2, **sizes))
    assert generate(net, [0, 1, 1]).x.shape == (3, *shape)
