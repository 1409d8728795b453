"""JSON and settings from outside: whatever they hold, they load or end in one sentence."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from eqm.schema import (
    Count,
    Finite,
    Fraction,
    NonNegative,
    check_fields,
    convert,
    parse_json,
    read_json,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)  # what a file can hold
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)


@dataclass(frozen=True)
class Inner:
    draws: Annotated[int, Meta(ge=1, le=10)] = 1
    fraction: Fraction = 0.5
    size: Finite = 1
    limit: NonNegative | None = None
    kind: Literal["truncated", "linear"] = "linear"
    counts: tuple[Count, ...] = ()
    rows: tuple[tuple[float, float], ...] = ()

    def __post_init__(self):
        check_fields(self)
        if self.draws == 7:
            raise ValueError("draws must not be 7")


@dataclass(frozen=True)
class Outer:
    inner: Inner
    named: dict[str, Inner]
    listed: tuple[Inner, ...] = ()


@given(ANY_JSON)
def test_any_json_value_is_read_as_the_standard_library_reads_it(value):
    assert parse_json(json.dumps(value), object, "a.json") == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "truncated"),
        (b'{"a": 1', "truncated"),
        (b'{"a": 1} {}', "trailing"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'[{"deep": {"a\\n": 1, "a\\n": 2}}]', "twice"),
        (b"[NaN]", "invalid character"),
        (b"[-Infinity]", "invalid character"),
        (b"[1e400]", "out of range"),
        (b"1" * 5000, "out of range"),
        (b"[" * 100_000, "too deep"),
        (b'[{"a":' * 100_000, "too deep"),
        (b'"\xff"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\\ud800"', "unicode|truncated"),
        ('"\ud800"', "surrogate"),
        (b"\xff\xfe{\0}\0", "invalid character"),
    ],
)
def test_what_is_not_json_ends_in_one_sentence_with_the_name_and_the_advice(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse_json(text, object, "a.json", advice="save it again")
    assert str(caught.value).startswith("a.json must be JSON; ")
    assert str(caught.value).endswith(": save it again")
    assert str(caught.value).isprintable()


def test_a_byte_order_mark_is_left_out():
    assert parse_json(b'\xef\xbb\xbf{"a": 1}', object, "a.json") == {"a": 1}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"draws": 0}, "inner.draws must be a whole number from 1 to 10; got 0"),
        ({"draws": True}, "inner.draws must be a whole number from 1 to 10; got True"),
        ({"draws": 2.0}, "inner.draws must be a whole number from 1 to 10; got 2.0"),
        ({"draws": 10**30}, "inner.draws must be a whole number from 1 to 10; got a number of 31 digits"),
        ({"draws": 7}, "inner.draws must not be 7"),
        ({"fraction": 1}, "inner.fraction must be a number from 0 to below 1; got 1"),
        ({"fraction": math.nan}, "inner.fraction must be a number from 0 to below 1; got nan"),
        ({"size": math.inf}, "inner.size must be a finite number; got inf"),
        ({"limit": "a"}, "inner.limit must be a finite number of at least 0 or none; got 'a'"),
        ({"kind": "lineal"}, "inner.kind must be one of truncated, linear; got 'lineal' (did you mean 'linear'?)"),
        ({"counts": [3, 0]}, "inner.counts[1] must be a whole number from 1 to 2^62; got 0"),
        ({"counts": 3}, "inner.counts must be a list of whole numbers, each from 1 to 2^62; got 3"),
        ({"rows": [[1]]}, "inner.rows[0] must be a list of 2 numbers; got [1]"),
        ({"drawss": 1}, "inner.drawss is unknown (did you mean 'draws'?): known are"),
        ({"a\n": 1}, "inner.'a\\n' is unknown"),
    ],
)  # fmt: skip
def test_a_sentence_names_the_key_what_was_expected_and_what_came(change, sentence):
    with pytest.raises(ValueError) as caught:
        convert({"inner": change, "named": {}}, Outer, "a.json: ")
    assert str(caught.value).startswith(f"a.json: {sentence}")


def test_missing_keys_and_values_of_objects_and_lists_are_named():
    for value, sentence in [
        ({"named": {}}, "inner is missing"),
        ([], "the content must be an object; got []"),
        ({"inner": {}, "named": {"a": {"drawss": 1}}}, "named.drawss is unknown"),
        ({"inner": {}, "named": {"a": {}, "b\n": {"draws": 0}}}, "named.'b\\n'.draws must be"),
        ({"inner": {}, "named": {}, "listed": [{}, {"x": 1}]}, "listed.x is unknown"),
        ({"inner": {}, "named": {}, "listed": [{}, {"draws": 0}]}, "listed[1].draws must be"),
    ]:
        with pytest.raises(ValueError) as caught:
            convert(value, Outer)
        assert str(caught.value).startswith(sentence)


@given(st.dictionaries(st.sampled_from(list(asdict(Inner()))) | TEXT, ANY_JSON, max_size=2))
def test_any_settings_load_within_their_ranges_or_end_in_one_line(settings):
    try:
        found = convert(settings, Inner, "a.json: ")
    except ValueError as error:
        sentence = str(error)
    else:
        assert 1 <= found.draws <= 10
        assert 0 <= found.fraction < 1
        assert isinstance(found.counts, tuple)
        return
    assert sentence.startswith("a.json: ")
    assert sentence.isprintable()


def test_settings_take_lists_and_numbers_of_numpy():
    found = Inner(np.int64(3), np.float64(0.25), counts=[np.int8(2)], rows=[[1, np.float32(2)]])
    assert found == Inner(3, 0.25, counts=(2,), rows=((1.0, 2.0),))
    assert type(found.draws) is int
    assert type(found.fraction) is float


@pytest.mark.parametrize("value", [None, "1", 1.5, np.nan, 10**30, object(), [1], True])
def test_settings_in_python_are_refused_by_the_same_sentence(value):
    with pytest.raises(ValueError, match="^draws must be a whole number from 1 to 10; got "):
        Inner(draws=value)


def test_a_number_of_thousands_of_digits_is_refused():
    with pytest.raises(ValueError, match="got a number of 5001 digits"):
        Inner(draws=10**5000)


def test_devices_pipes_folders_and_huge_files_are_refused_before_they_are_read(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "pipe.json", tmp_path / "zero.json"):
        with pytest.raises(ValueError, match="must be a regular file"):
            read_json(path)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"huge.json must have at most 16,777,216 bytes"):
        read_json(tmp_path / "huge.json")
