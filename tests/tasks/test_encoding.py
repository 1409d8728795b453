"""Columns of numbers and words as numbers."""

import numpy as np
import pytest

from eqm.tasks.encoding import Encoding

WORDS = np.array(["red", "", "blue", "red"], dtype=object)
TABLE = {"a": np.array([1.0, 2, np.nan, 4]), "colour": WORDS, "id": np.arange(4.0)}


def test_words_are_categories_and_numbers_stay(tmp_path):
    encoding = Encoding.of(TABLE, ignored=["id"])
    expected = [[1, 0, 0, 1], [2, 1, 0, 0], [np.nan, 0, 1, 0], [4, 0, 0, 1]]  # "", blue, red
    assert np.array_equal(encoding.rows(TABLE), expected, equal_nan=True)
    unknown = {"colour": np.array(["green"], dtype=object), "a": np.array([3.0])}
    assert encoding.rows(unknown).tolist() == [[3, 0, 0, 0]]
    assert encoding.by_column(np.array([[1.0, 5, 2, 7]])).tolist() == [[1, 7]]
    encoding.save(tmp_path)
    assert Encoding.load(tmp_path) == encoding


def test_other_columns_are_refused():
    encoding = Encoding.of(TABLE, ignored=["id"])
    encoding.check(("colour", "id", "a"), "t.csv")
    with pytest.raises(ValueError, match="it has no colour"):
        encoding.check(("a",), "t.csv")
    with pytest.raises(ValueError, match="not learnt, b"):
        encoding.check(("a", "b", "colour"), "t.csv")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.array([1, np.inf]), "column 'a' has infinity in row 12"),
        (np.array(["1", "x"], dtype=object), "column 'a' must hold numbers.*row 12 has 'x'"),
    ],
)
def test_values_that_are_no_numbers_are_named(values, sentence):
    encoding = Encoding.of({"a": np.arange(3.0)})
    with pytest.raises(ValueError, match=sentence):
        encoding.rows({"a": values}, first=11)


def test_a_column_of_many_words_is_refused():
    words = np.array([f"name {k}" for k in range(60)], dtype=object)
    with pytest.raises(ValueError, match="has 60 different words.*--ignore who"):
        Encoding.of({"who": words})
    mixed = np.array([*map(str, range(60)), "x"], dtype=object)
    with pytest.raises(ValueError, match="numbers and words, such as 'x'"):
        Encoding.of({"a": mixed})
