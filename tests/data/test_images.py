import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eqm.data import DataConfig, Images, batch_indices, digits, open_source


def open_images(path):
    return open_source(DataConfig(path))


DATA = torch.zeros(6, 1, 4, 4)
LABELS = torch.tensor([0, 0, 0, 1, 1, 1])


def test_the_digits_are_what_scikit_learn_carries():
    images = digits()
    assert len(images) == 1797
    assert images.shape == (1, 8, 8)
    assert images.num_classes == 10
    assert images.data.min() == -1
    assert images.data.max() == 1


def test_a_split_is_disjoint_complete_and_even_among_classes():
    images = digits()
    seen, val_data = images.split(0.2)
    assert len(seen) + len(val_data) == len(images)
    shares = val_data.classes.bincount() / images.classes.bincount()
    assert ((shares - 0.2).abs() < 0.01).all()
    both = torch.cat([seen.data, val_data.data]).flatten(1)
    assert torch.equal(both.sum(0), images.data.flatten(1).sum(0))


def test_the_seed_decides_the_split_and_the_order():
    images = digits()
    assert images.split(0.2)[1].fingerprint == images.split(0.2, seed=0)[1].fingerprint
    assert images.split(0.2)[1].fingerprint != images.split(0.2, seed=1)[1].fingerprint
    first, second = batch_indices(50, position=0, count=100, seed=3).split(50)
    assert not torch.equal(first, second)  # every epoch has its own order
    assert not torch.equal(first, batch_indices(50, position=0, count=50, seed=4))


def test_other_data_have_another_fingerprint():
    assert digits().fingerprint == digits().fingerprint
    changed = digits()
    changed.data[17, 0, 3, 3] += 0.01
    assert changed.fingerprint != digits().fingerprint
    assert (
        Images("a", DATA, LABELS, 2).fingerprint != Images("a", DATA, LABELS.flip(0), 2).fingerprint
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Images("x", DATA[0]), r"shape \(N, C, H, W\)"),
        (lambda: Images("x", DATA[:0]), "N > 0"),
        (lambda: Images("x", DATA * torch.nan), "6 of 6 samples hold NaN or infinity"),
        (lambda: Images("x", DATA + 3), r"must lie in -1..1; got 3..3"),
        (lambda: Images("x", DATA, LABELS[:2], 2), r"labels must be int64 of shape \(6,\)"),
        (lambda: Images("x", DATA, LABELS.float(), 2), "labels must be int64"),
        (lambda: Images("x", DATA.double()), "images must be float32 or uint8"),
        (lambda: Images("x", DATA, None, 7), "7 classes need labels"),
        (lambda: Images("x", DATA, LABELS, 1), r"labels must lie in 0..0; got 0..1"),
        (lambda: Images("x", DATA, LABELS - 1, 2), r"labels must lie in 0..1; got -1..0"),
        (lambda: Images("x", DATA).classes, "no labels"),
        (lambda: Images("x", DATA).split(0.0), "leaves one part of 6 samples empty"),
    ],
)
def test_bad_data_are_refused_with_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5, 8, 6), (1, 8, 6)), ((5, 8, 6, 3), (3, 8, 6)), ((5, 3, 8, 6), (3, 8, 6))],
)
def test_an_npz_opens_whatever_the_place_of_its_channels(tmp_path, shape, expected):
    arrays = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "my.npz", images=arrays, labels=[0, 2, 1, 0, 2])
    images = open_images(str(tmp_path / "my.npz"))
    assert (images.name, images.shape, images.num_classes) == ("my", expected, 3)
    assert images.data.dtype == torch.uint8
    back = images.data
    if expected[0] == 3 and shape[-1] == 3:
        back = back.permute(0, 2, 3, 1)
    assert np.array_equal(back.numpy().reshape(shape), arrays)


def test_the_npz_of_eqm_sample_can_be_data(tmp_path):
    pixels = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    np.savez(tmp_path / "samples.npz", arr_0=pixels, arr_1=[0, 1])
    images = open_images(str(tmp_path / "samples.npz"))
    assert np.array_equal(images.data[:, 0].numpy(), pixels[..., 0])
    assert images.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"pictures": np.zeros((2, 4, 4))},
            "must hold an array `images` or `arr_0`; it holds pictures",
        ),
        (
            {"images": np.full((2, 4, 4), -5, np.int64)},
            r"which values of these integers are black and white; they lie in -5..-5: set data.range",
        ),
        ({"images": np.zeros((2, 4, 4)), "labels": [0.5, 1]}, "labels must be whole numbers"),
        ({"images": np.full((2, 4, 4), 300.0)}, r"they lie in 300..300: set data.range .* 0 65535"),
    ],
)
def test_an_npz_of_something_else_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "my.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        open_images(str(tmp_path / "my.npz"))


def test_a_path_without_data_is_refused(tmp_path):
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    for source, message in [
        (
            "mist-5k",
            r"the source must be one of checkerboard, .*; got 'mist-5k' \(did you mean 'mnist-5k'",
        ),
        (str(tmp_path / "none.npz"), "there is no"),
        (str(tmp_path / "torn.npz"), "not a readable .npz"),
    ]:
        with pytest.raises(ValueError, match=message):
            open_images(source)


@given(length=st.integers(1, 20), cuts=st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_the_stream_of_epochs_does_not_depend_on_how_it_is_cut(length, cuts):
    whole = batch_indices(length, position=0, count=sum(cuts), seed=3)
    position, parts = 0, []
    for count in cuts:
        parts.append(batch_indices(length, position=position, count=count, seed=3))
        position += count
    assert torch.equal(torch.cat(parts), whole)
    for epoch in whole.split(length):
        assert len(epoch.unique()) == len(epoch)
