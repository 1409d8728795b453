"""`eqm detect fit`, `run` and `eval` with tables."""

import csv
import json
import re

import numpy as np
import pytest

from eqm.cli.main import main


def write(path, count, odd, seed):
    """A table whose column b follows a, but in the first `odd` rows."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, 3))
    rows[:, 1] = rows[:, 0] + 0.1 * rows[:, 1]
    rows[:odd, 1] += 5
    colours = random.choice(["red", "blue"], count)
    with path.open("w") as file:
        file.write("id,a,b,c,colour,broken\n")
        for k, (row, colour) in enumerate(zip(rows.tolist(), colours, strict=True)):
            file.write(f"{k},{','.join(f'{v:.4f}' for v in row)},{colour},{int(k < odd)}\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tables")
    learnt = str(write(place / "learnt.csv", 300, 20, 0))
    write(place / "new.csv", 200, 10, 1)
    options = ("--label", "broken", "--ignore", "id", "--steps", "20")
    assert main(["detect", "fit", learnt, "--output", str(place / "found"), *options]) == 0
    return place


def test_odd_rows_and_their_columns_are_written(folder, capsys):
    scores = folder / "scores.csv"
    arguments = [str(folder / "found"), str(folder / "new.csv")]
    assert main(["detect", "run", *arguments, "--output", str(scores)]) == 0
    assert "200 rows are anomalous" in capsys.readouterr().out
    with scores.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == [str(k) for k in range(1, 201)]
    assert all(row["anomalous"] == "True" for row in rows[:10])
    assert all(row["odd_columns"].split()[0] in "ab" for row in rows[:10])
    assert sum(row["anomalous"] == "True" for row in rows[10:]) < 30
    assert all((float(row["p_value"]) <= 0.05) == (row["anomalous"] == "True") for row in rows)


def test_a_detector_is_measured_on_labelled_rows(folder, capsys):
    arguments = [str(folder / "found"), str(folder / "new.csv")]
    assert main(["detect", "eval", *arguments, "--output", str(folder / "e.json")]) == 0
    numbers = json.loads((folder / "e.json").read_text())
    assert numbers["found"] == numbers["anomalous"] == 10
    assert numbers["auroc"][1] > 0.95
    assert "true rate lies in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "options", "sentence"),
    [
        ("", "", (), "column 'id'.*looks like the number of a row: choose --ignore id, or --keep"),
        (",broken", ",y", ("--ignore", "id"), "column 'y'.*looks like a label: choose --label y"),
        ("", "", ("--label", "c"), "column 'c' must hold 0 .normal. and 1"),
        ("", "", ("--ignore", "z"), "no column 'z'"),
        (",red,", ",,", ("--label", "colour"), "column 'colour' must hold 0"),
    ],
)
def test_columns_that_could_be_misread_are_asked_about(
    folder, tmp_path, capsys, old, new, options, sentence
):
    table = tmp_path / "t.csv"
    table.write_text((folder / "learnt.csv").read_text().replace(old, new, 1))
    assert main(["detect", "fit", str(table), "--output", str(tmp_path / "m"), *options]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(sentence, error)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("colour", "hue", "it has no colour"),
        ("id,", "number,", "not learnt, number"),
        ("\n0,", "\n0,inf\n0,", "row 1 has 2 cells"),
    ],
)
def test_other_tables_are_refused(folder, tmp_path, capsys, old, new, sentence):
    table = tmp_path / "t.csv"
    table.write_text((folder / "new.csv").read_text().replace(old, new, 1))
    assert main(["detect", "run", str(folder / "found"), str(table)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_a_table_of_pictures_is_no_table_of_numbers(tmp_path, capsys):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"image": [b"x"] * 9}), tmp_path / "p.parquet")
    assert main(["detect", "fit", str(tmp_path / "p.parquet"), "--output", "m"]) == 2
    assert "photographs" in capsys.readouterr().err
