import numpy as np
import pytest
import torch

from eqm.inspection.overlays import CONTOUR, STRIP, mask, overlay


def photograph(channels=3, height=60, width=90):
    return np.random.default_rng(0).integers(0, 256, (channels, height, width), np.uint8)


@pytest.mark.parametrize(("channels", "width"), [(1, 90), (3, 250)])
def test_a_good_part_stays_grey_at_its_own_pixels(channels, width):
    picture = photograph(channels, width=width)
    drawn = overlay(picture, torch.full((60, width), 1.5), threshold=4.0)
    assert drawn.size == (max(160, width), 60 + STRIP)
    pixels = np.asarray(drawn)[:60, :width].astype(int)
    assert (pixels == pixels[..., :1]).all()
    weights = [1] if channels == 1 else [0.299, 0.587, 0.114]
    assert np.abs(pixels[..., 0] - np.tensordot(weights, picture.astype(float), 1)).max() <= 0.51


def test_what_is_anomalous_is_coloured_and_has_a_line_around_it():
    heat = torch.ones(60, 90)
    heat[20:40, 30:50] = 30.0
    drawn = np.asarray(overlay(np.full((1, 60, 90), 100, np.uint8), heat, threshold=4.0))
    assert tuple(drawn[30, 40]) != (100, 100, 100)
    assert drawn[30, 40, 0] > drawn[30, 40, 2] + 80  # red
    assert tuple(drawn[19, 40]) == CONTOUR == tuple(drawn[40, 40])
    assert tuple(drawn[17, 40]) == (100, 100, 100) == tuple(drawn[5, 5])
    assert len(np.unique(drawn[60:, :, :].reshape(-1, 3), axis=0)) > 20  # the scale


@pytest.mark.parametrize("threshold", [0.4, 1.0, 1e6, float("inf")])
def test_every_threshold_has_a_scale(threshold):
    heat = torch.tensor([[0.0, 1.0], [1e9, float("inf")]])
    assert overlay(np.zeros((1, 2, 2), np.uint8), heat, threshold).size == (160, 2 + STRIP)


def test_a_mask_is_white_above_the_threshold_alone():
    drawn = mask(torch.tensor([[1.0, 4.0, 4.1]]), 4.0)
    assert (drawn.mode, np.asarray(drawn).tolist()) == ("L", [[0, 0, 255]])
