"""Samples of any kind as pictures."""

from __future__ import annotations

import torch

from eqm.drawings import drawn


def test_pictures_stay_and_frames_stand_side_by_side():
    pictures = torch.rand(2, 3, 4, 5) * 2 - 1
    assert drawn(pictures).equal(pictures)
    video = torch.rand(2, 3, 6, 4, 5)
    strip = drawn(video)
    assert strip.shape == (2, 3, 4, 30)
    assert strip[1, :, :, 10:15].equal(video[1, :, 2])


def test_curves_are_where_the_values_are_on_one_axis():
    signals = torch.zeros(2, 1, 128)
    signals[0, 0, 64:] = 1.0
    signals[1] = -0.5
    shown = drawn(signals)
    assert shown.shape == (2, 3, 64, 128)
    ink = 1 - shown[:, 0]  # blue and grey lines have little red
    ink[:, [0, -1]] = 0  # without the frame
    ink[:, :, [0, -1]] = 0
    height = ink[:, :, 10:118].argmax(1)  # row of the most ink in each column
    assert (height[0, -40:] < 6).all()  # 1 is at the top
    assert ((height[0, :40] - 32).abs() <= 1).all()  # 0 is in the middle
    assert ((height[1] - 47).abs() <= 1).all()  # -.5 is halfway down, on the axis of both


def test_points_in_the_plane_are_one_picture_and_others_are_curves():
    shown = drawn(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert shown.shape == (1, 3, 256, 256)
    dark = (shown[0, 0] < 0).nonzero().float()
    assert (dark[:, 0] + dark[:, 1] - 255).abs().max() < 12  # on the rising diagonal
    assert drawn(torch.randn(3, 5)).shape == (3, 3, 64, 96)
    assert drawn(torch.zeros(1, 2, 1)).isfinite().all()
