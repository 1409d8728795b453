"""Tasks on signals, videos and points."""

from __future__ import annotations

import pytest
import torch

from eqm.tasks import EqmDetector, Inpaint, estimate_sigma, interpolate, restore, vary
from eqm.tasks.composition import halves


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Zeros:
    """The field of samples that are all zeros, c(gamma) = 1: its prediction is always 0."""

    num_classes = 0

    def __init__(self, *shape):
        self.shape = shape

    def __call__(self, x, labels=None):
        return 4 * x


@pytest.mark.parametrize(
    ("shape", "at", "found"),
    [
        ((2, 30), (slice(None), 11), (11,)),
        ((1, 6, 8, 8), (slice(None), 4, 2, 5), (4, 2, 5)),
        ((7,), (3,), (3,)),
    ],
)
def test_a_map_has_the_axes_of_time_and_space(shape, at, found):
    normal = 0.1 * noise(200, *shape)
    odd = normal[:2].clone()
    odd[1][at] += 5.0
    maps = EqmDetector(Zeros(*shape)).fit(normal).anomaly_map(odd)
    assert maps.shape == (2, *(shape[1:] or shape))
    place = torch.unravel_index(maps[1].argmax(), maps.shape[1:])
    assert all(abs(int(k) - n) <= 1 for k, n in zip(place, found, strict=True))
    assert maps[1].max() > 3 * maps[0].max()
    # neighbours in time are smoothed, values of a point are not
    beside = tuple(k + 1 for k in found)
    assert bool(maps[1][beside] > 3 * maps[0][beside]) == (len(shape) > 1)


def test_a_mask_may_differ_between_signals():
    signals = noise(2, 3, 10)
    mask = torch.ones(2, 1, 10)
    mask[0, 0, 4:] = 0
    mask[1, 0, :5] = 0
    kept = Inpaint(mask, 2)
    y = kept(signals)
    end = restore(Zeros(3, 10), y, kept, count=2, steps=4)
    assert end.x.shape == (4, 3, 10)
    torch.testing.assert_close(end.x[:2, :, :4], signals[[0, 0], :, :4])
    torch.testing.assert_close(end.x[2:, :, 5:], signals[[1, 1], :, 5:])
    frames = torch.tensor([1.0, 0, 1, 1]).view(4, 1, 1)
    videos = noise(2, 1, 4, 5, 5)
    assert (Inpaint(frames, 4)(videos)[:, :, 1] == 0).all()
    with pytest.raises(ValueError, match="mask must fit samples"):
        Inpaint(torch.ones(9), 2)(signals)


def test_noise_of_signals_and_videos_is_measured():
    line = torch.linspace(-1, 1, 20_000)
    torch.testing.assert_close(
        estimate_sigma(line + 0.3 * noise(2, 1, 20_000)), torch.full((2,), 0.3), rtol=0.03, atol=0
    )
    videos = 0.2 * noise(1, 1, 10, 50, 50)
    torch.testing.assert_close(estimate_sigma(videos), torch.tensor([0.2]), rtol=0.03, atol=0)
    with pytest.raises(ValueError, match="signals"):
        estimate_sigma(noise(3, 5))


@pytest.mark.parametrize("shape", [(2, 12), (1, 3, 4, 4), (5,)])
def test_variations_and_paths_have_any_shape(shape):
    x, field = noise(2, *shape), Zeros(*shape)
    assert vary(field, x, strength=0, count=2).x.equal(x.repeat_interleave(2, 0))
    assert vary(field, x, strength=0.5).x.norm() < x.norm()
    for through in ("noise", "landscape"):
        path = interpolate(field, x[0], x[1], count=4, through=through).x
        assert path.shape == (4, *shape)
        torch.testing.assert_close(path[[0, -1]], x)


def test_halves_are_of_time():
    assert halves((2, 5))["first"].tolist() == [1, 1, 1, 0, 0]
    last = halves((1, 4, 2, 3))["last"]
    assert last.shape == (4, 2, 3)
    assert last.mean((1, 2)).tolist() == [0, 0, 1, 1]
    assert halves((4,)) == {}
