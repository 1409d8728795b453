from dataclasses import replace

import pytest
import torch

import eqm
from eqm.descent import descend
from eqm.models import UNet, UNetConfig
from eqm.sampling import Sampling
from eqm.tasks import generate, interpolate, vary
from eqm.tasks.interpolation import elastic_band

FIVE = Sampling("gradient-descent", step_size=0.02, path_length=0.1, guidance=1.5)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(UNetConfig(shape=(1, 4, 4), num_classes=3, width=4, multipliers=(1,)))
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    network.metadata = {}
    return network.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_variations_reach_from_the_image_itself_to_a_sample(model, images):
    still = vary(model, images, strength=0, count=2, sampling=FIVE)
    torch.testing.assert_close(still.x, images.repeat_interleave(2, dim=0))
    assert still.nfe.sum() == 0
    fitted = replace(FIVE, multistep_coefficients=((1, 0.02, 0, 0),) * 2)
    for sampling in (FIVE, replace(FIVE, gradient_ratio=0.999), fitted):
        fresh = vary(model, images, [0, 2], strength=1, count=2, seed=5, sampling=sampling)
        expected = generate(model, [0, 0, 2, 2], seed=5, sampling=sampling)
        torch.testing.assert_close(fresh.x, expected.x, rtol=1e-4, atol=1e-4)
        assert torch.equal(fresh.steps, expected.steps)
    assert vary(model, images, strength=0.25, sampling=FIVE).steps.tolist() == [3, 3]


def test_a_variation_depends_on_its_image_and_seed_alone(model, images):
    whole = vary(model, images, 1, count=3, sampling=FIVE)
    parts = vary(model, images, 1, count=3, sampling=FIVE, batch_size=2)
    torch.testing.assert_close(parts.x, whole.x, rtol=1e-4, atol=1e-4)
    alone = vary(model, images[1:], 1, seed=4, sampling=FIVE)
    torch.testing.assert_close(alone.x[0], whole.x[4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("through", ["noise", "landscape"])
def test_a_path_begins_and_ends_with_the_images_and_is_the_same_backwards(model, images, through):
    settings = {"through": through, "count": 5, "sampling": FIVE}
    there = interpolate(model, *images, (0, 2), **settings).x
    back = interpolate(model, *images.flip(0), (2, 0), **settings).x
    assert torch.equal(there[[0, -1]], images)
    torch.testing.assert_close(back.flip(0), there, rtol=1e-4, atol=1e-4)
    blend = torch.lerp(images[:1], images[1:], torch.linspace(0, 1, 5).view(-1, 1, 1, 1))
    assert not torch.allclose(there[1:-1], blend[1:-1], atol=1e-2)
    two = interpolate(model, *images, through=through, count=2, sampling=FIVE)
    assert torch.equal(two.x, images)


def test_the_labels_of_both_ends_share_what_is_between(model, images):
    middle = interpolate(model, *images, (0, 2), count=3, strength=0.5, sampling=FIVE).x[1]
    parts = [eqm.condition(model, label) for label in (0, 2, 3)]
    field = eqm.compose(parts, [0.75, 0.75, -0.5])
    noise = eqm.sampling.starting_noise((1, 4, 4), seeds=[0])
    start = 0.5 * images.mean(0) + 0.5 * noise
    by_hand = descend(field, start, rule=FIVE.make_rule(), max_steps=4)  # 0.1 * sqrt(0.5) / 0.02
    torch.testing.assert_close(middle, by_hand.x[0], rtol=1e-4, atol=1e-4)


def test_a_band_between_two_valleys_crosses_at_the_saddle_in_even_steps():
    def field(
        x, labels
    ):  # of (a^2 - 1)^2 / 4 + (b - 1 + a^2)^2: valleys (1, 0), (-1, 0), saddle (0, 1)
        a, b = x.unbind(1)
        off = b - 1 + a.square()
        return torch.stack([a * (a.square() - 1) + 4 * a * off, 2 * off], dim=1)

    line = torch.stack([torch.linspace(-1, 1, 9), torch.zeros(9)], dim=1)
    chain = descend(
        elastic_band(field), line[None], rule=eqm.GradientDescent(0.02), max_steps=500
    ).x[0]
    assert torch.equal(chain[[0, -1]], line[[0, -1]])
    torch.testing.assert_close(chain[4], torch.tensor([0.0, 1.0]), rtol=0, atol=0.02)
    steps = (chain[1:] - chain[:-1]).norm(dim=1)
    assert steps.max() / steps.min() < 1.02


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 1}, "count must be at least 2"),
        ({"strength": 1.5}, r"strength must lie in 0..1; got 1.5"),
        ({"through": "air"}, "through must be one of noise, landscape; got 'air'"),
        ({"labels": (0, 9)}, "labels must lie in 0..2"),
    ],
)
def test_paths_that_cannot_be_are_named(model, images, changes, message):
    with pytest.raises(ValueError, match=message):
        interpolate(model, *images, **changes, sampling=FIVE)


def test_images_that_do_not_fit_are_named(model, images):
    with pytest.raises(
        ValueError, match=r"shape \('B', 1, 4, 4\); got torch.float32 \(2, 1, 4, 3\)"
    ):
        vary(model, images[..., :3])
    with pytest.raises(ValueError, match="got torch.uint8"):
        vary(model, images.byte())
    with pytest.raises(ValueError, match="NaN"):
        vary(model, images * torch.nan)
    with pytest.raises(ValueError, match="strength must lie in"):
        vary(model, images, strength=-0.1)
    with pytest.raises(ValueError, match="count must be at least 1"):
        vary(model, images, count=0)
    flow = UNet(replace(model.config, noise_conditioning=True))
    with pytest.raises(ValueError, match="the model is noise-conditioned"):
        vary(flow, images)
