"""Reading tables: csv, tsv and parquet."""

import numpy as np
import pytest

from eqm.data.tables import read_table


@pytest.fixture
def written(tmp_path):
    def write(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_table_is_read_into_numbers_and_words(written):
    table = read_table(written("a, b ,c\n1,NA,red\n-2e3,true,\n"))
    assert table.names == ("a", "b", "c")
    assert table.kinds() == {"a": "number", "b": "number", "c": "text"}
    columns = table.columns()
    assert np.array_equal(columns["a"], [1, -2000])
    assert np.array_equal(columns["b"], [np.nan, 1], equal_nan=True)
    assert columns["c"].tolist() == ["red", ""]
    assert table.notes == ()


def test_parts_are_the_table(written):
    rows = np.random.default_rng(0).normal(size=(25, 3))
    lines = "\n".join("\t".join(map(repr, row)) for row in rows.tolist())
    table = read_table(written("x\ty\tz\n" + lines, "t.tsv"))
    parts = list(table.chunks(10))
    assert [len(part["x"]) for part in parts] == [10, 10, 5]
    joined = np.column_stack([np.concatenate([part[n] for part in parts]) for n in "xyz"])
    assert np.array_equal(joined, rows)
    assert list(next(table.chunks(names=("z", "x")))) == ["x", "z"]


def test_a_column_with_one_word_is_text_as_a_whole(written):
    table = read_table(written("a\n" + "1\n" * 20_000 + "x\n"))  # the word is in the second part
    columns = table.columns()
    assert columns["a"].dtype == object
    assert columns["a"][0] == "1"


def test_what_is_taken_for_granted_is_noted(written):
    table = read_table(written("a;b\n1;2\n"))
    assert table.columns()["b"].tolist() == [2]
    assert "semicolons" in table.notes[0]
    bare = read_table(written("1,2\n3,4\n"))
    assert bare.columns()["column 2"].tolist() == [2, 4]
    assert "no line of names" in bare.notes[0]
    excel = read_table(written("a,b\r\n1,2\r\n".encode("utf-16")))
    assert excel.columns()["a"].tolist() == [1]


def test_parquet_has_the_same_columns(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"n": [1, None], "w": ["x", None], "t": [True, None]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet").columns()
    assert np.array_equal(found["n"], [1, np.nan], equal_nan=True)
    assert np.array_equal(found["t"], [1, np.nan], equal_nan=True)
    assert found["w"].tolist() == ["x", ""]
    parquet.write_table(pa.table({"n": [[1], None]}), tmp_path / "lists.parquet")
    with pytest.raises(ValueError, match="column 'n' holds list"):
        read_table(tmp_path / "lists.parquet").columns()


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        ("", "t.csv", "is empty"),
        ("a,b\n", "t.csv", "has no rows"),
        ("a,b\n1,2\n3\n", "t.csv", "row 2 has 1 cells"),
        ("a,a\n1,2\n", "t.csv", "two columns of the name 'a'"),
        (b"a,b\n\xff,1\n", "t.csv", "UTF-8"),
        ('a\n"' + "x" * 200_000, "t.csv", "no table"),
        ("a\n1\n", "t.txt", "must end in .csv"),
        ("PAR1", "t.parquet", "cannot be read"),
    ],
)
def test_other_files_are_refused_in_one_sentence(written, content, name, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        read_table(written(content, name)).columns()
    assert "\n" not in str(error.value)
