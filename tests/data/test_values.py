"""Axes, ranges and labels of arrays are found where they are certain, and refused where they are not."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eqm.data import DataConfig, as_source, open_source
from eqm.data.arrays import from_array
from eqm.data.axes import find_layout
from eqm.data.values import Wanted
from eqm.randomness import SampleRandom

ALL = DataConfig()
LAYOUTS = ("NCHW", "NHWC", "HWCN", "NHW", "HWN", "HWC", "CHW", "HW")


def pixels(*shape, top=255):
    return np.random.default_rng(0).integers(0, top + 1, shape).astype(np.uint8)


def everything(source):
    rows = torch.arange(len(source))
    return source.batch(rows, SampleRandom(0, rows)).numpy()


def as_bytes(source):
    return ((everything(source) + 1) * 127.5).round().astype(np.uint8)


def turned(images, layout):
    """The pictures (N, C, H, W) with their axes in another order."""
    dropped = tuple(k for k, letter in enumerate("NCHW") if letter not in layout)
    kept = [letter for letter in "NCHW" if letter in layout]
    return np.squeeze(images, dropped).transpose([kept.index(letter) for letter in layout])


@given(
    layout=st.sampled_from(LAYOUTS),
    count=st.integers(1, 40),
    channels=st.integers(1, 12),
    height=st.integers(2, 40),
    width=st.integers(2, 40),
    labelled=st.booleans(),
)
def test_an_array_is_read_by_its_axes_or_refused_and_never_silently_by_others(
    layout, count, channels, height, width, labelled
):
    count = count if "N" in layout else 1
    channels = channels if "C" in layout else 1
    images = pixels(count, channels, height, width)
    images[0, 0, 0, 0] = 255
    array = turned(images, layout)
    labels = np.zeros(count, int) if labelled and "N" in layout else None
    told = from_array("x", array, labels, DataConfig(layout=layout))
    assert np.array_equal(as_bytes(told), images)
    found = read_or_refusal(array, labels)
    if isinstance(found, str):
        assert "set data.layout" in found or "samples need as many labels" in found
    elif found.data.shape != images.shape or not np.array_equal(as_bytes(found), images):
        points = array.ndim == 2 and array.shape[1] <= 3
        squares = array.ndim == 3 and array.shape[1] == array.shape[2]
        assert points or squares or any("axes are read as" in note for note in found.notes)


def read_or_refusal(array, labels):
    try:
        return from_array("x", array, labels, ALL)
    except ValueError as error:
        return str(error)


@given(side=st.integers(3, 64), channels=st.integers(1, 64), count=st.integers(1, 9))
def test_few_channels_of_squares_are_found_first_and_last(side, channels, count):
    images = pixels(count, channels, side, side)
    images[0, 0, 0, 0] = 255
    if channels >= side:
        return
    for layout in ("NCHW", "NHWC"):
        assert np.array_equal(as_bytes(from_array("x", turned(images, layout), None, ALL)), images)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((9, 3, 32, 32), "NCHW"),
        ((9, 32, 32, 3), "NHWC"),
        ((9, 1, 28, 28), "NCHW"),
        ((9, 28, 28, 1), "NHWC"),
        ((9, 2, 64, 64), "NCHW"),
        ((9, 64, 64, 5), "NHWC"),
        ((9, 12, 64, 80), "NCHW"),
        ((9, 64, 80, 12), "NHWC"),
        ((9, 16, 4, 4), ""),
        ((9, 512, 7, 7), "NCHW"),
        ((9, 3, 3, 3), ""),
        ((9, 4, 4, 4), ""),
        ((9, 64, 64, 64), ""),
        ((32, 32, 3, 500), "HWCN"),
        ((9, 64, 64), "NHW"),
        ((60, 64), ""),
        ((28, 28, 500), "HWN"),
        ((32, 32, 100), ""),
        ((64, 64, 64), ""),
        ((64, 48, 3), "HWC"),
        ((500, 12, 1000), ""),
        ((500, 2, 128), ""),
        ((500, 2), "NC"),
        ((1797, 64), "NC"),
        ((64, 64), ""),
        ((1, 28, 28), "NHW"),
        ((1, 28, 28, 3), "NHWC"),
    ],
)
def test_the_axes_of_usual_shapes(shape, expected):
    array = np.broadcast_to(np.uint8(0), shape)
    if expected:
        assert find_layout("x", array) == expected
        return
    with pytest.raises(ValueError, match=r"can be .* or .*: set data.layout"):
        find_layout("x", array)


@pytest.mark.parametrize(
    ("shape", "labels", "expected"),
    [
        ((32, 32, 100), 100, "HWN"),
        ((100, 32, 32), 100, "NHW"),
        ((32, 32, 3, 32), 100, ""),
        ((32, 32, 3, 50), 50, "HWCN"),
        ((50, 32, 32, 3), 50, "NHWC"),
        ((64, 50), 50, "CN"),
        ((50, 64), 50, "NC"),
    ],
)
def test_the_number_of_labels_tells_the_axis_of_samples(shape, labels, expected):
    array = np.broadcast_to(np.uint8(0), shape)
    if not expected:
        with pytest.raises(ValueError, match="set data.layout"):
            find_layout("x", array, labels=labels)
    else:
        assert find_layout("x", array, labels=labels) == expected


@pytest.mark.parametrize(
    ("shape", "wanted", "expected"),
    [
        ((3, 64, 64), (3, 64, 64), "CHW"),
        ((3, 64, 64), (1, 64, 64), "NHW"),
        ((64, 64), (1, 64, 64), "HW"),
        ((64, 64), (1, 28, 28), "HW"),
        ((64, 48, 3), (3, 32, 32), "HWC"),
        ((28, 28, 900), (1, 28, 28), "HWN"),
        ((5, 4, 4, 4), (4, 4, 4), ""),
        ((5, 16, 4, 4), (16, 4, 4), "NCHW"),
    ],
)
def test_the_shape_that_a_model_takes_decides(shape, wanted, expected):
    array = np.broadcast_to(np.float32(0), shape)
    if not expected:
        with pytest.raises(ValueError, match="set data.layout"):
            find_layout("x", array, shape=wanted)
    else:
        assert find_layout("x", array, shape=wanted) == expected


DTYPES = ("u1", ">u2", "<i4", ">i8", "<f2", ">f4", "<f8", "g")


@given(
    data=hnp.arrays(np.uint8, (5, 1, 8, 8)),
    dtype=st.sampled_from(DTYPES),
    order=st.sampled_from(["C", "F", "backwards", "steps"]),
)
def test_whole_numbers_0_to_255_mean_the_same_in_every_type_and_order(data, dtype, order):
    data[0, 0, 0, :2] = 0, 255
    limits = (0, 255) if dtype == ">u2" else ()  # of 16 bits, which is not certain
    array = np.asarray(data.astype(dtype), order="F" if order == "F" else "C")
    if order == "backwards":
        array = np.flip(np.flip(array, 3).copy(), 3)
    if order == "steps":
        array = np.repeat(array, 2, 3)[..., ::2]
    expected = data.astype(np.float64) / 127.5 - 1
    config = DataConfig(range=limits)
    for source in (from_array("x", array, None, config), as_source(array, config=config)):
        np.testing.assert_allclose(everything(source), expected, atol=1e-6)
        assert source.metadata["values"]["range"] == [0, 255]


FLOATS = {
    "0..1": (lambda x: x, (0, 1)),
    "-1..1": (lambda x: 2 * x - 1, (-1, 1)),
    "0..255": (lambda x: 255 * x, (0, 255)),
}


@pytest.mark.parametrize("known", FLOATS)
def test_the_usual_ranges_of_floats_mean_the_same_in_files_and_in_python(tmp_path, caplog, known):
    caplog.set_level(logging.INFO)
    unit = np.random.default_rng(0).random((6, 1, 8, 8))
    unit[0, 0, 0, :2] = 0, 1
    change, limits = FLOATS[known]
    np.save(tmp_path / "x.npy", change(unit))
    found = open_source(DataConfig(str(tmp_path / "x.npy")))
    for source in (found, as_source(torch.tensor(change(unit))), as_source(list(change(unit)))):
        np.testing.assert_allclose(everything(source), 2 * unit - 1, atol=1e-6)
        assert source.metadata["values"] == {"kind": "float", "range": list(limits)}
    said = f"values are read with {limits[0]} as black and {limits[1]} as white"
    assert (said in caplog.text) is (known != "-1..1")


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-1024, 3071, "i2"),
        (0, 4095, "u2"),
        (0, 1023, "i4"),
        (0, 16, "u1"),
        (0, 1, "u1"),
        (-128, 127, "i1"),
        (-2.1, 2.6, "f4"),
        (0, 16, "f8"),
        (0.5, 0.5, "f4"),
        (-0.03, 1, "f4"),
        (0, 1000, "f4"),
    ],
)
def test_other_ranges_are_refused_until_they_are_told(low, high, dtype):
    array = np.linspace(low, high, 320).reshape(5, 1, 8, 8).astype(dtype)
    for read in (
        lambda config: from_array("x", array, None, config),
        lambda config: as_source(array, config=config),
    ):
        with pytest.raises(
            ValueError, match=r"which values .* are black and white.*set data.range"
        ):
            read(ALL)
        white = high if high > low else 1
        source = read(DataConfig(range=(low, white)))
        expected = (array.astype(np.float64) - low) / (white - low) * 2 - 1
        np.testing.assert_allclose(everything(source), expected, atol=1e-5)
        with pytest.raises(ValueError, match=r"values must lie in .*; got"):
            read(DataConfig(range=(low - 2, low - 1)))


@given(data=hnp.arrays(np.float32, (4, 1, 5, 5), elements=st.floats(-1, 1, width=32)))
def test_a_model_reads_each_picture_with_the_range_of_its_training_data(data):
    """However dark or bright a picture is, and whatever range it would have alone."""
    for kind, limits in (("float", (-1, 1)), ("float", (-2, 2)), ("float", (-1, 3))):
        wanted = Wanted.of((1, 5, 5), {"data": {"values": {"kind": kind, "range": limits}}})
        expected = (data - limits[0]) / ((limits[1] - limits[0]) / 2) - 1
        for picture, right in zip(data, expected, strict=True):
            found = from_array("x", picture[0], None, ALL, wanted=wanted)
            np.testing.assert_allclose(everything(found)[0], right, atol=1e-6)
            assert not any("black" in note for note in found.notes)


def test_bytes_are_bytes_for_a_model_however_dark_they_are():
    for kind in ("", "float", "uint16"):
        wanted = Wanted((1, 5, 5), kind, (0, 1))
        found = from_array("x", np.full((5, 5), 7, np.uint8), None, ALL, wanted=wanted)
        assert (as_bytes(found) == 7).all()


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((0, 8, 8), np.uint8), r"the array is empty, of shape \(0, 8, 8\)"),
        (np.zeros((5, 0, 8), np.uint8), "the array is empty"),
        (np.array([[None]] * 5), "must hold real numbers; got Python objects"),
        (np.zeros(5, [("a", "f4"), ("b", "f4")]), "got records with the fields a, b"),
        (np.zeros((5, 8, 8), complex), "got complex numbers"),
        (np.zeros((5, 8, 8), "M8[s]"), "got dates or times"),
        (np.full((5, 8, 8), "a"), "got words"),
        (np.ma.masked_equal(pixels(5, 8, 8), 255), r"values are masked: pass array.filled"),
        (np.uint8(3), "must have 2 to 5 axes"),
        (np.zeros(9), "must have 2 to 5 axes"),
        (np.ones((5, 3, 2, 4, 8, 8)), "train on others from Python"),
        (np.full((5, 8, 8), np.nan), "5 of 5 samples hold NaN or infinity, the first is number 0"),
        (np.where(np.arange(5) == 3, -np.inf, np.ones((4, 4, 5))).T, "the first is number 3"),
        (np.where(np.arange(5) == 2, np.nan, np.ones((2, 5))).T, "the first is number 2"),
    ],
)
def test_arrays_of_anything_but_samples_are_refused(array, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_array("x", array, None, ALL)


def test_bools_are_black_and_white_and_what_may_not_be_written_is_read():
    array = pixels(5, 1, 8, 8) > 100
    assert np.array_equal(as_bytes(from_array("x", array, None, ALL)), array * np.uint8(255))
    assert np.array_equal(as_bytes(as_source(array)), array * np.uint8(255))
    array = np.frombuffer(pixels(5, 8, 8).tobytes(), np.uint8).reshape(5, 8, 8)
    assert np.array_equal(as_bytes(from_array("x", array, None, ALL))[:, 0], array)


@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        (np.array([0, 2, 1, 2]), [0, 2, 1, 2], ()),
        (np.array([[0], [2], [1], [2]]), [0, 2, 1, 2], ()),
        (np.array([[0, 2, 1, 2]]), [0, 2, 1, 2], ()),
        (np.array([0.0, 2, 1, 2], ">f2"), [0, 2, 1, 2], ()),
        (np.eye(3)[[0, 2, 1, 2]], [0, 2, 1, 2], ()),
        (np.eye(3, dtype=bool)[[0, 2, 1, 2]], [0, 2, 1, 2], ()),
        (np.array([False, True, True, False]), [0, 1, 1, 0], ()),
        (np.array(["cat", "dog", "ant", "dog"]), [1, 2, 0, 2], ("ant", "cat", "dog")),
        (np.array([b"cat", b"dog", b"ant", b"dog"]), [1, 2, 0, 2], ("ant", "cat", "dog")),
        (np.array(["2", "10", "0", "2"]), [2, 10, 0, 2], ()),
    ],
)
def test_labels_are_read_in_every_form(labels, expected, names):
    for source in (
        from_array("x", pixels(4, 8, 8), labels, ALL),
        as_source((pixels(4, 1, 8, 8), labels)),
    ):
        assert source.labels.tolist() == expected
        assert source.class_names == names
        assert source.num_classes == max(expected) + 1


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0, 1, 2], "4 samples need as many labels; got labels of shape"),
        ([0.5, 1, 2, 0], "labels must be whole numbers"),
        ([np.nan, 1, 2, 0], "labels must be whole numbers"),
        ([np.inf, 1, 2, 0], "labels must be whole numbers"),
        ([[0, 1, 1]] * 4, "row 0 of labels .* does not hold a single 1"),
        ([[0.2, 0.8]] * 4, "does not hold a single 1"),
        (np.zeros((4, 8, 8), int), "labels must be whole numbers"),
        (np.array(["2020-01-01"] * 4, "M8[D]"), "labels must be whole numbers"),
        (np.array([1j] * 4), "labels must be whole numbers"),
        ([0, -1, 2, 0], "labels must lie in"),
        (3, "4 samples need as many labels"),
        (np.array([b"\xff", b"a", b"b", b"c"]), "must be UTF-8"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_array("x", pixels(4, 8, 8), np.array(labels), ALL)
    with pytest.raises(ValueError, match=sentence):
        as_source((pixels(4, 1, 8, 8), np.array(labels)))


TRAIN, TEST = pixels(6, 8, 8), pixels(4, 8, 8) // 2 + 120
SIX, FOUR = np.arange(6) % 3, np.arange(4) % 2


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("training_data", "training_target", "testing_data", "testing_target"),
        ("images-train", "labels-train", "images-test", "labels-test"),
    ],
)
def test_the_splits_of_an_npz_are_chosen_by_name(tmp_path, names):
    path = tmp_path / "a.npz"
    arrays = (TRAIN, SIX[:, None], TEST, FOUR[:, None])
    np.savez(path, **dict(zip(names, arrays, strict=True)), val_images=TEST[:1], val_labels=[[0]])
    config = DataConfig(str(path))
    train = open_source(config)
    assert np.array_equal(as_bytes(train)[:, 0], TRAIN)
    assert train.labels.tolist() == SIX.tolist()
    assert any(f"{names[0]} and {names[1]} are read, not" in note for note in train.notes)
    assert any("data.split chooses among train, val, test and all" in note for note in train.notes)
    test = open_source(replace(config, split="test"))
    assert np.array_equal(as_bytes(test)[:, 0], TEST)
    assert test.labels.tolist() == FOUR.tolist()
    whole = open_source(replace(config, split="all"))
    assert np.array_equal(as_bytes(whole)[:, 0], np.concatenate([TRAIN, TEST[:1], TEST]))
    assert whole.labels.tolist() == [*SIX, 0, *FOUR]
    with pytest.raises(
        ValueError, match="holds no split 'x', but train, val, test: set data.split"
    ):
        open_source(replace(config, split="x"))


def test_other_names_of_an_npz_are_found_and_what_is_not_read_is_said(tmp_path):
    path = tmp_path / "a.npz"
    for names in (("data", "target"), ("X", "y"), ("images", "labels"), ("arr_0", "arr_1")):
        np.savez(path, **dict(zip(names, (TRAIN, SIX), strict=True)))
        source = open_source(DataConfig(str(path)))
        assert (len(source), source.labels.tolist(), source.notes) == (6, SIX.tolist(), ())
    bunch = {"data": TRAIN.reshape(6, 64), "images": TRAIN, "target": SIX, "frame": None}
    np.savez(path, **bunch, target_names=["a", "b", "c"], DESCR="words")
    source = open_source(DataConfig(str(path)))
    assert (source.shape, source.class_names) == ((1, 8, 8), ("a", "b", "c"))
    assert source.notes == ("a.npz: images and target are read, not DESCR, data, frame",)
    np.savez(path, images=TRAIN, labels=np.array([None] * 6))
    with pytest.raises(
        ValueError, match="labels must be whole numbers or words; got Python objects"
    ):
        open_source(DataConfig(str(path)))
    np.savez(path, images=TRAIN, labels=SIX, coarse=SIX // 2)
    coarse = open_source(DataConfig(str(path), labels_from="coarse"))
    assert coarse.labels.tolist() == (SIX // 2).tolist()
    with pytest.raises(ValueError, match="holds no array 'fine' for data.labels_from"):
        open_source(DataConfig(str(path), labels_from="fine"))


def test_a_split_beside_the_rest_is_not_mixed_in(tmp_path):
    config = DataConfig(str(tmp_path / "a.npz"))
    np.savez(config.path, images=TRAIN, test_images=TEST)
    assert np.array_equal(as_bytes(open_source(config))[:, 0], TRAIN)
    assert np.array_equal(as_bytes(open_source(replace(config, split="test")))[:, 0], TEST)
    assert len(open_source(replace(config, split="all"))) == 10
    np.savez(config.path, images=TRAIN)
    with pytest.raises(ValueError, match="holds no split 'test', but no splits"):
        open_source(replace(config, split="test"))


def test_labels_of_several_classes_are_ignored_when_labels_are_off(tmp_path):
    config = DataConfig(str(tmp_path / "a.npz"))
    np.savez(config.path, images=TRAIN, labels=np.ones((6, 14), int))
    with pytest.raises(ValueError, match="does not hold a single 1: .*, or turn data.labels off"):
        open_source(config)
    assert open_source(replace(config, labels=False)).labels is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float64, torch.uint8])
def test_tensors_of_every_type_are_read_and_others_refused(dtype):
    x = torch.tensor([0.0, 1, 0, 1]).reshape(2, 1, 1, 2)
    x = (255 * x if dtype == torch.uint8 else x).to(dtype)
    assert everything(as_source(x)).flatten().tolist() == [-1, 1, -1, 1]
    for other in (x.to(torch.complex64).conj(), torch.empty(2, 1, 1, 2, device="meta")):
        with pytest.raises(ValueError, match="complex numbers|is no array"):
            as_source(other)


def test_columns_of_unequal_scale_are_said_and_standardised_when_asked(tmp_path):
    points = np.random.default_rng(0).normal([0, 500, 3], [1, 90, 0], (50, 3))
    np.save(tmp_path / "a.npy", points)
    config = DataConfig(str(tmp_path / "a.npy"))
    source = open_source(config)
    np.testing.assert_allclose(everything(source), points, rtol=1e-6)
    assert "set data.standardise" in source.notes[0]
    for even in (
        open_source(replace(config, standardise=True)),
        as_source(points, config=DataConfig(standardise=True)),
    ):
        found, about = everything(even), even.metadata
        np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(found[:, :2].std(0), 1, rtol=1e-5)
        back = found * np.array(about["std"]) + np.array(about["mean"])
        np.testing.assert_allclose(back, points, rtol=1e-5, atol=1e-4)
    assert open_source(DataConfig("moons")).metadata == {}


def test_signals_are_read_where_the_axes_are_told():
    signals = np.random.default_rng(0).normal(size=(50, 2, 128))
    source = from_array("x", signals, None, DataConfig(layout="ncl"))
    assert source.shape == (2, 128)
    np.testing.assert_allclose(everything(source), signals, rtol=1e-6)
    turned_back = from_array("x", signals.transpose(0, 2, 1), None, DataConfig(layout="NLC"))
    assert torch.equal(turned_back.data, source.data)
    with pytest.raises(ValueError, match="data.range is for pictures"):
        from_array("x", signals, None, DataConfig(layout="NCL", range=(0, 1)))
    with pytest.raises(ValueError, match="names 4 axes, but the array has the shape"):
        from_array("x", signals, None, DataConfig(layout="NCHW"))


def test_the_part_that_a_crop_takes_from_arrays_is_said():
    source = from_array("x", pixels(50, 30, 20), None, DataConfig(size=16, layout="NHW"))
    assert source.shape == (1, 16, 16)
    assert source.notes == (
        "x: the crop to a square of 16x16 pixels crops away up to 34 % of a picture (x has 20x30 pixels)",
    )


@pytest.mark.parametrize("name", ["digits", "mnist-5k"])
def test_settings_for_arrays_are_refused_for_data_that_are_known(name):
    for setting in ({"layout": "NHW"}, {"range": (0.0, 2.0)}, {"standardise": True}):
        with pytest.raises(ValueError, match="is read as it is|needs the package"):
            open_source(DataConfig(name, **setting))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"layout": "NHWX"}, "must name each axis once"),
        ({"layout": "NHHW"}, "must name each axis once"),
        ({"range": (0.0,)}, "two different numbers"),
        ({"range": (1.0, 1.0)}, "two different numbers"),
        ({"range": (0.0, float("nan"))}, "two different numbers|finite"),
    ],
)
def test_settings_that_name_no_layout_and_no_range_are_refused(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        DataConfig(**setting)


@pytest.mark.parametrize(
    ("most", "expected"), [(0.5, True), (0.25, True), (0.8, False), (1.0, False)]
)
def test_floats_around_0_of_low_contrast_are_said(most, expected):
    data = np.linspace(-most, most, 2 * 8 * 8, dtype=np.float32).reshape(2, 1, 8, 8)
    found = as_source(data)
    assert any("reach no further than" in note for note in found.notes) == expected
    told = as_source(data, config=DataConfig("x", range=(-most, most)))
    assert not any("reach no further than" in note for note in told.notes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros((4, 8, 8), np.uint8), np.zeros((4, 9, 9), np.uint8)),
        (np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8), np.float32)),
        (np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8), np.uint16)),
        (np.zeros((4, 8, 8), np.uint8), np.uint8(3)),
    ],
)
def test_splits_of_an_npz_that_are_not_alike_are_refused_together(tmp_path, one, other):
    np.savez(tmp_path / "a.npz", x_train=one, x_test=other)
    with pytest.raises(ValueError, match="x_train, x_test must be alike .*: set data.split to one"):
        open_source(DataConfig(str(tmp_path / "a.npz"), split="all"))


def test_labels_of_several_types_of_whole_numbers_are_joined(tmp_path):
    pictures = {name: pixels(3, 8, 8) for name in ("x_train", "x_test")}
    labels = {"y_train": np.array([0, 1, 2], np.uint8), "y_test": np.array([2, 1, 0])}
    np.savez(tmp_path / "a.npz", **pictures, **labels)
    source = open_source(DataConfig(str(tmp_path / "a.npz"), split="all"))
    assert source.labels.tolist() == [0, 1, 2, 2, 1, 0]


def test_points_that_float32_cannot_hold_are_refused_without_a_warning():
    with pytest.raises(ValueError, match="NaN or infinity, the first is number 1"):
        from_array("x", np.array([[0, 1], [1e300, 0]] * 20), None, ALL)


@pytest.mark.parametrize("name", ["x", "x_train"])
def test_an_npz_of_a_single_number_is_refused_in_one_sentence(tmp_path, name):
    np.savez(tmp_path / "a.npz", **{name: np.float32(3)})
    with pytest.raises(ValueError, match="an array must have 2 to 5 axes"):
        open_source(DataConfig(str(tmp_path / "a.npz")))
