import pytest
import torch
from torch import nn

import eqm
from eqm import registry
from eqm.features import Activations, from_module, open_features


def test_pixels_are_the_images_flattened() -> None:
    images = torch.rand(3, 2, 4, 5) * 2 - 1
    found = open_features("pixels")(images)
    assert found.vector.equal(images.flatten(1))
    assert found.spatial is found.probabilities is None


def test_any_module_makes_features() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Dropout(), nn.BatchNorm2d(3))
    images = torch.rand(4, 1, 6, 6)
    features = from_module(net, name="mine", size=48)
    found = features(images)
    assert found.vector.shape == (4, features.size)
    assert not found.vector.requires_grad
    assert found.vector.equal(features(images).vector)  # in evaluation mode
    whole = from_module(net, name="mine", read=lambda x: Activations(net(x).flatten(1), x))(images)
    assert whole.spatial is not None
    assert whole.spatial.equal(images)


def test_the_fingerprint_depends_on_weights_and_settings() -> None:
    torch.manual_seed(0)
    one, other = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 3, 3)
    base = from_module(one, name="a").fingerprint
    assert base == from_module(one, name="b").fingerprint
    assert base != from_module(other, name="a").fingerprint
    assert base != from_module(one, name="a", resize="to 8").fingerprint
    assert base != from_module(one, name="a", settings={"layer": 3}).fingerprint
    other.load_state_dict(one.state_dict())
    assert base == from_module(other, name="a").fingerprint


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(3, 4, 4), r"take pictures; got samples of shape \(4, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "floating-point"),
        (torch.full((1, 3, 4, 4), 255.0), "got 255 to 255"),
        (torch.full((1, 3, 4, 4), torch.nan), "in -1..1; got nan"),
    ],
)
def test_invalid_images_are_refused(images: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        open_features("pixels")(images)


@pytest.mark.parametrize("name", ["", "resnet", "pixels:3"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match="features must be one of classifier, .*pixels|takes no argument"
    ):
        open_features(name)


def test_features_of_your_own_that_return_something_else_are_refused():
    eqm.register("features", "test-nothing")(lambda: None)
    try:
        with pytest.raises(ValueError, match="the features test-nothing must be made as Features"):
            open_features("test-nothing")
    finally:
        registry._REGISTERED["features"].pop("test-nothing")
