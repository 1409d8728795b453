"""Classes by name."""

import numpy as np
import pytest

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
        ("99", "labels must lie in 0..33, or be 34 for none; got 99"),
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


def test_classes_without_names_are_numbers():
    model = build(MLPConfig(num_classes=3, width=4, depth=1))
    assert label_number(model, "2") == 2
    with pytest.raises(ValueError, match="no class 'cat', only numbers 0..2"):
        label_number(model, "cat")
