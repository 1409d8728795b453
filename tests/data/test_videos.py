"""Arrays of videos and volumes: which axis is which, and which values are black and white."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eqm.data import DataConfig, open_source


@pytest.fixture
def source_of(tmp_path):
    def open_array(array, **options):
        np.save(tmp_path / "clips.npy", array)
        return open_source(DataConfig(str(tmp_path / "clips.npy"), **options))

    return open_array


CLIPS = np.arange(2 * 3 * 6 * 8 * 10, dtype=np.uint32).reshape(2, 3, 6, 8, 10) % 256
ORDERS = {"NCTHW": (0, 1, 2, 3, 4), "NTHWC": (0, 2, 3, 4, 1), "NTCHW": (0, 2, 1, 3, 4)}


@pytest.mark.parametrize("layout", ORDERS)
def test_the_channels_of_a_video_are_found_and_said(source_of, layout):
    source = source_of(CLIPS.astype(np.uint8).transpose(ORDERS[layout]))
    assert source.shape == (3, 6, 8, 10)
    expected = torch.from_numpy(CLIPS.astype(np.float32) / 127.5 - 1)
    torch.testing.assert_close(source.data, expected)
    assert f"{layout} (2 videos of 6 frames of 10x8 pixels and 3 channels)" in source.notes[0]


@pytest.mark.parametrize("shape", [(2, 3, 4, 8, 8), (2, 5, 6, 8, 8), (2, 1, 6, 8, 1)])
def test_axes_that_are_not_certain_are_asked_for(source_of, shape):
    clips = np.zeros(shape, np.uint8)
    with pytest.raises(
        ValueError, match="can be .* or .*: set data.layout to the order of its axes"
    ):
        source_of(clips)
    assert source_of(clips, layout="ntchw").shape == (shape[2], shape[1], *shape[3:])


def test_grey_videos_have_one_channel_and_floats_are_as_they_are_or_in_a_range(source_of):
    values = np.linspace(0, 4, 2 * 5 * 8 * 8, dtype=np.float32).reshape(2, 5, 8, 8)
    plain = source_of(values, layout="NTHW")
    assert plain.shape == (1, 5, 8, 8)
    assert plain.data.max() == 4
    assert "taken as they are: set data.range" in " ".join(plain.notes)
    ranged = source_of(values, layout="NTHW", range=(0.0, 4.0))
    assert "taken as they are" not in " ".join(ranged.notes)
    torch.testing.assert_close(ranged.data[:, 0], torch.from_numpy(values) / 2 - 1)


def test_bytes_have_black_and_white_already(source_of):
    with pytest.raises(ValueError, match="standardise is for numbers without black and white"):
        source_of(CLIPS.astype(np.uint8), standardise=True)
