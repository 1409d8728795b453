"""Which command `eqm detect fit | run | eval` stands for."""

import json

import pytest

from eqm.cli.detect_kinds import of_kind


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "outliers.json").write_text(json.dumps({"format": "eqm-outliers"}))


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["detect-fit", "a.csv", "--output", "m"], "detect-fit-table"),
        (["detect-fit", "--output", "m", "A.TSV"], "detect-fit-table"),
        (["detect-fit", "good", "--output", "m.csv"], "detect-fit"),
        (["detect-fit", "good", "--output=m.csv"], "detect-fit"),
        (["detect-fit", "--help"], "detect-fit"),
        (["detect-run", "odd", "a.csv"], "detect-run-table"),
        (["detect", "odd", "a.csv"], "detect-run-table"),
        (["detect-eval", "odd", "a.csv"], "detect-eval-table"),
        (["detect-run", "good", "a.png", "--output", "odd"], "detect-run"),
        (["sample", "odd"], "sample"),
    ],
)
def test_the_data_and_the_folder_choose_the_command(here, arguments, command):
    assert of_kind(arguments) == [command, *arguments[1:]]


def test_no_arguments_stay_none():
    assert of_kind([]) == []
