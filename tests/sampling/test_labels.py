"""Classes by name."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eqm.data import Tensors
from eqm.data.source import of_classes
from eqm.models import MLPConfig, build
from eqm.sampling.labels import chosen_labels, label_number

NAMES = ["cat-face", "face-smiling", "facial", *(f"sign-{number}" for number in range(30)), "7"]


@pytest.fixture
def model():
    made = build(MLPConfig(num_classes=len(NAMES), width=4, depth=1))
    made.metadata = {"data": {"classes": NAMES}}
    return made


def test_a_class_goes_by_its_name_before_its_number(model):
    assert [label_number(model, label) for label in ("Cat-Face", "7", "8")] == [0, 33, 8]
    assert [label_number(model, label) for label in ("none", "NULL")] == [34, 34]


def test_classes_whose_names_differ_in_capitals_alone_are_told_apart(model):
    model.metadata = {"data": {"classes": ["A", "B", "a"]}}
    assert [label_number(model, label) for label in ("A", "a", "b")] == [0, 2, 1]


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (
            "face",
            r"no class 'face' among 34: did you mean cat-face, face-smiling\? `eqm info MODEL` lists",
        ),
        (
            "facail",
            r"no class 'facail' among 34: did you mean facial.*\? `eqm info MODEL` lists all",
        ),
        ("smiley", r"no class 'smiley' among 34: did you mean face-smiling\? `eqm"),
        ("zebra", "no class 'zebra' among 34: `eqm info MODEL` lists them"),
        ("99", "labels must lie in 0..33, or be none for no class; got 99"),
        ("34", "labels must lie in 0..33, or be none for no class; got 34"),
        (-1, "labels must lie in 0..33, or be none for no class; got -1"),
    ],
)
def test_a_class_that_is_not_there_is_told_from_those_that_are_near(model, label, sentence):
    with pytest.raises(ValueError, match=sentence):
        label_number(model, label)


def test_names_that_are_no_list_are_named(model):
    model.metadata = {"data": {"classes": None}}
    assert label_number(model, "3") == 3
    model.metadata = {"data": {"classes": 5}}
    with pytest.raises(ValueError, match=r"list names as data.classes; got 5"):
        label_number(model, "3")


def test_labels_of_another_number_are_told_as_they_were_given(model):
    with pytest.raises(ValueError, match=r"one a sample \(3\); got \['7', 'facial'\]"):
        chosen_labels(model, ["7", "facial"], 3)


def test_labels_of_numpy_are_labels(model):
    assert chosen_labels(model, np.int64(2), 2).tolist() == [2, 2]
    assert chosen_labels(model, np.array([3, 1]), None).tolist() == [3, 1]
    assert chosen_labels(model, np.array(["7", "facial"]), None).tolist() == [33, 2]
    with pytest.raises(ValueError, match="whole numbers or names"):
        chosen_labels(model, 3.0, None)


@pytest.mark.parametrize(
    "labels",
    [
        *({1, 2}, 3.0, [1.5], [None], [True], True, {"a": 1}, b"7", [[1]], [{}], object(), [], ()),
        *(np.array([1.0]), torch.tensor([True]), torch.tensor([1j]), [torch.tensor(1.0)]),
    ],
)
def test_what_can_be_no_label_is_refused(model, labels):
    with pytest.raises(ValueError, match="whole numbers or names, one a sample"):
        chosen_labels(model, labels, None)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *(("t shirt", 0), ("T_SHIRT", 0), ("t-Shirt ", 0), ("CAFE\N{COMBINING ACUTE ACCENT}", 1)),
        *(("STRASSE", 2), ("ankle_boot", 3)),
    ],
)
def test_names_match_as_people_type_them(model, given, meant):
    names = ["T-shirt", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "straße", "ankle boot"]
    model.metadata = {"data": {"classes": names}}
    assert label_number(model, given) == meant
    assert chosen_labels(model, [given, names[meant]], None).tolist() == [meant, meant]


def test_a_name_that_may_mean_two_classes_is_refused(model):
    model.metadata = {"data": {"classes": ["red fox", "red-fox", "Fox"]}}
    assert label_number(model, "red-fox") == 1
    with pytest.raises(ValueError, match="the class 'Red_Fox' may be red fox, red-fox: write one"):
        label_number(model, "Red_Fox")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True), st.integers(-2, 42))
def test_a_number_means_the_same_as_a_text_and_as_a_number(names, number):
    """In lists, alone, on the command line, in compositions and among the classes of data."""
    words = sorted(map(str, names))
    model = build(MLPConfig(num_classes=len(words), width=4, depth=1))
    model.metadata = {"data": {"classes": words}}
    source = Tensors(
        "a", torch.zeros(len(words), 2), torch.arange(len(words)), len(words), tuple(words)
    )
    meanings = []
    for meaning in (
        lambda: label_number(model, number),
        lambda: label_number(model, str(number)),
        lambda: int(chosen_labels(model, [number], None)),
        lambda: int(chosen_labels(model, [str(number)], None)),
        lambda: int(chosen_labels(model, number, None)),
        lambda: int(chosen_labels(model, np.int64(number), 1)),
        lambda: words.index(of_classes(source, [str(number)]).class_names[0]),
    ):
        try:
            meanings.append(meaning())
        except ValueError:
            meanings.append(None)
    expected = words.index(str(number)) if str(number) in words else None
    assert meanings == [expected] * 7


def test_classes_without_names_are_numbers():
    model = build(MLPConfig(num_classes=3, width=4, depth=1))
    assert label_number(model, "2") == 2
    with pytest.raises(ValueError, match="no class 'cat', only numbers 0..2"):
        label_number(model, "cat")
