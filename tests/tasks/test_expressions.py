import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqm.tasks.expressions import NONE, Term, parse

names = st.from_regex(r"[^\W\d]\w{0,6}", fullmatch=True).filter(lambda name: name not in NONE)
quoted = st.text(st.characters(exclude_characters="'", codec="utf-8"), max_size=6)
terms = st.builds(
    Term,
    label=st.none() | st.integers(0, 999) | names | quoted,
    weight=st.floats(-9, 9).map(lambda w: round(w, 3)),
    masks=st.lists(st.builds(str.__add__, st.sampled_from(["", "~"]), names), max_size=2).map(
        tuple
    ),
    model=st.just("") | names,
)


def written(term):
    masks = "".join(f"{mask} * " for mask in term.masks)
    model = f"{term.model}:" if term.model else ""
    label = term.label
    if label is None:
        label = "null"
    elif isinstance(label, str):
        label = f"'{label}'"
    return f"{'-' if term.weight < 0 else '+'} {abs(term.weight)!r}*{masks}{model}{label}"


@given(st.lists(terms, min_size=1, max_size=4))
def test_what_is_written_is_what_is_read(expected):
    assert parse(" ".join(map(written, expected))) == tuple(expected)


@given(st.text("79.5*+-~:ab' &", max_size=12))
def test_whatever_is_written_is_read_or_refused_at_a_place_within(text):
    try:
        assert parse(text)
    except ValueError as error:
        position = int(str(error).rpartition("position ")[2].partition(";")[0])
        assert 1 <= position <= len(text) + 1


def test_the_last_factor_is_the_label():
    assert parse("7 + 0.5*3 - 1") == (Term(7), Term(3, 0.5), Term(1, -1.0))
    assert parse("-2*3") == (Term(3, -2.0),)
    assert parse("2*.5e1*3") == (Term(3, 10.0),)
    assert parse("~left*a:'ankle boot'-none") == (
        Term("ankle boot", 1.0, ("~left",), "a"),
        Term(None, -1.0),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"'': expected a label .* at position 1; got the end"),
        ("7 +", "expected a label .* at position 4; got the end"),
        ("2*1e999*7", "expected a finite weight at position 3; got '1e999'"),
        ("7*0.5", "expected a label .* at position 3; got '0.5'"),
        ("7 3", r"expected \+, - or the end at position 3; got '3'"),
        ("7 & 3", "expected .* at position 3; got '&'"),
        ("7 + ~3", "expected ~ before a mask, .* at position 5; got '~'"),
        ("~2*3", r"expected a number or a mask before \* at position 2; got '2'"),
        ("+*3", r"expected a number or a mask|expected a label .* at position 2; got '\*'"),
        ("7 + 'bag", 'expected .* at position 5; got "\'"'),
        ("a:", "expected a label .* at position 3; got the end"),
    ],
)
def test_what_cannot_be_read_is_shown_with_its_place(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)
