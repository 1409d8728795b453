from dataclasses import replace

import pytest
import torch

from eqm.data import DataConfig, Images, open_source
from eqm.models import build
from eqm.recipes import RECIPES
from eqm.recipes.pixels import choose_network
from eqm.train import train

FOLDER = RECIPES["folder"]


def pictures(count=4, side=(64, 64)):
    return Images("mine", torch.zeros(count, 1, 1, 1).expand(count, 3, *side))


@pytest.mark.parametrize(
    ("count", "images", "why"),
    [
        (50, 100_000, "the least of this recipe (500 times 50 pictures would be 25,000)"),
        (1_000, 500_000, "500 times 1,000 pictures"),
        (4_000, 2_000_000, "500 times 4,000 pictures"),
        (
            10**6,
            2_000_000,
            "the most of this recipe (500 times 1,000,000 pictures would be 500,000,000)",
        ),
    ],
)
def test_few_pictures_are_seen_less_often_in_all(count, images, why):
    config, picks = choose_network(FOLDER, pictures(count, (1, 1)))
    assert config.images == images
    assert f"images {images:,}: {why};" in picks[0]
    asked = replace(FOLDER, images=2_000_000)
    assert choose_network(asked, pictures(count, (1, 1)))[0].images == 2_000_000


@pytest.mark.parametrize(
    ("side", "patch", "levels", "heads"),
    [
        ((32, 32), 1, (1, 2, 4), 4),
        ((64, 64), 1, (1, 2, 4), 4),
        ((28, 20), 1, (1, 2, 4), 4),
        ((30, 30), 1, (1, 2), 4),
        ((96, 128), 2, (1, 2, 4), 4),
        ((256, 256), 2, (1, 2, 4, 4), 4),
        ((2048, 2048), 2, (1, 2, 4, 4, 4, 4, 4), 4),
        ((101, 101), 1, (1,), 0),
    ],
)
def test_the_network_suits_the_size(side, patch, levels, heads):
    images = pictures(side=side)
    config, picks = choose_network(FOLDER, images)
    model = config.suited_to(images).model
    assert (model.patch, model.multipliers, model.heads) == (patch, levels, heads)
    assert any("learnt faster as latents" in pick for pick in picks) is (max(side) > 128)
    with torch.device("meta"):
        assert build(model)(torch.zeros(1, 3, *side)).shape == (1, 3, *side)


def test_a_network_that_was_asked_for_stays():
    asked = replace(FOLDER, model=replace(FOLDER.model, multipliers=(1, 2)))
    assert choose_network(asked, pictures(side=(256, 256)))[0].model == asked.model
    wide = replace(FOLDER, model=replace(FOLDER.model, width=64))
    suited = replace(wide.model, shape=(3, 96, 96), patch=2)
    assert choose_network(wide, pictures(side=(96, 96)))[0].model == suited


def test_other_recipes_keep_their_networks():
    for name, config in RECIPES.items():
        if len(config.model.shape) == 3 and name not in ("folder", "finetune"):
            assert choose_network(config, pictures(side=(96, 96))) == (config, []), name


def test_a_number_to_be_picked_is_no_number_to_train_for(tmp_path):
    with pytest.raises(ValueError, match="images must be at least 1; got -1, .* set a number"):
        train(FOLDER, pictures(), tmp_path)


@pytest.mark.parametrize("name", ["size", "channels"])
def test_what_is_to_be_picked_cannot_be_opened(name):
    with pytest.raises(ValueError, match=f"data.{name} -1, to choose what suits .* set a number"):
        open_source(DataConfig("digits", **{name: -1}))
