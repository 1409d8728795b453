"""Tables and arrays of time series, cut into windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eqm.cli.samples import open_samples
from eqm.data import DataConfig, open_source, split
from eqm.data.series import Windows
from eqm.data.values import in_own_units
from eqm.randomness import SampleRandom


def written(path: Path, lines: list[str], name: str = "readings.csv") -> DataConfig:
    (path / name).write_text("\n".join(lines) + "\n")
    return DataConfig(str(path / name), time="t", length=4, val_fraction=0.0)


def of(config: DataConfig) -> Windows:
    source = open_source(config)
    assert isinstance(source, Windows)
    return source


def values(source: Windows) -> list[list[float]]:
    """The windows of the first channel in the units of the file."""
    rows = torch.arange(len(source))
    found = in_own_units(source.batch(rows, SampleRandom(0, rows)), {"data": source.metadata})
    return [[round(float(value), 3) for value in window[0]] for window in found]


def test_windows_are_scaled_by_channel_and_scaled_back(tmp_path: Path) -> None:
    lines = ["t,a,b", *(f"{k},{k},{100 - 10 * k}" for k in range(6))]
    source = of(replace(written(tmp_path, lines), stride=2))
    assert source.shape == (2, 4)
    assert source.metadata["columns"] == ["a", "b"]
    assert source.metadata["mean"] == [2.5, 75.0]
    assert values(source) == [[0, 1, 2, 3], [2, 3, 4, 5]]


def test_rows_out_of_order_copies_gaps_and_missing_values(tmp_path: Path) -> None:
    minutes = [5, 0, 10, 15, 15, 20, 60, 65, 70, 75, 80, 85, 90, 95]
    lines = ["t;status;x", *(f"2024-05-31 {m // 60:02}:{m % 60:02};ok;{m}" for m in minutes)]
    lines[-1] = "2024-05-31 01:35;ok;"  # the value is missing
    source = of(written(tmp_path, lines))
    found = values(source)
    assert found[:2] == [[0, 5, 10, 15], [5, 10, 15, 20]]  # and none goes across the gap
    assert found[2:] == [[60, 65, 70, 75], [65, 70, 75, 80], [70, 75, 80, 85], [75, 80, 85, 90]]
    said = " ".join(source.notes)
    for note in ("order of time", "1 rows that repeat", "1 gaps", "text are left out: status"):
        assert note in said
    assert "1 rows have missing values; 1 windows" in said


def test_several_series_stay_apart_and_are_divided_at_one_time(tmp_path: Path) -> None:
    lines = [
        "t,who,x",
        *(f"{t},{who},{t + base}" for t in range(20) for who, base in (("a", 0), ("b", 100))),
    ]
    config = replace(written(tmp_path, lines), series="who", val_fraction=0.25)
    source = of(config)
    assert len(source) == 2 * 17
    early, late = split(source, 0.25)
    times = torch.from_numpy(source.series.times)
    assert times[early.first + 3].max() < 15 <= times[late.first].min()  # type: ignore[attr-defined]
    assert source.metadata["mean"] == [57.0]  # of the first 15 moments alone
    assert len(early) == 2 * 12
    assert len(late) == 2 * 2


def test_arrays_of_steps_are_cut_too(tmp_path: Path) -> None:
    np.save(tmp_path / "long.npy", np.stack([np.arange(30.0), np.ones(30)], 1))
    source = of(DataConfig(str(tmp_path / "long.npy"), length=8, stride=8))
    assert (len(source), source.shape) == (3, (2, 8))
    assert values(source)[1] == list(range(8, 16))
    assert (
        float(source.batch(torch.tensor([0]), SampleRandom(0, torch.tensor([0])))[0, 1].abs().max())
        == 0
    )


EVEN = [f"{k},{k}" for k in range(9)]


@pytest.mark.parametrize(
    ("lines", "changes", "sentence"),
    [
        (["t,x", *EVEN], {"length": 0}, "set data.length"),
        (["t,x", *EVEN], {"length": 10}, "the longest part without a gap has 9 steps"),
        (["t,x", *EVEN], {"time": "when"}, "has no column 'when'; it has t, x"),
        (["t,x", *EVEN], {"time": ""}, "column 't' may be the time"),
        (["date,x", *EVEN], {"time": ""}, "column 'date' may be the time"),
        (["t,x", *EVEN, "3,7"], {}, "the time 3 has several rows with other values"),
        (["t,x", *EVEN, "late,7"], {}, "row 10 of 't' has 'late'"),
        (["t,x", *EVEN, "9,high"], {"columns": ("x",)}, "column 'x' holds 'high'"),
        (["t,x", *EVEN, "9,high"], {}, "has no column of numbers"),
        (["t,x", *EVEN, "9,inf"], {}, "some are infinite"),
        (["t,x", *(f"{k * k},1" for k in range(30))], {}, "times must be even"),
        (["t,x", *EVEN], {"time": "x", "columns": ("x",)}, "must name different columns"),
        (["t,x", *EVEN], {"size": 8}, "leave data.size out"),
        (["t,x", *EVEN], {"split": "test"}, "has no splits"),
        (["t,x", *(f"{k}," for k in range(9))], {}, "missing values"),
    ],
)
def test_doubtful_tables_are_refused_in_a_sentence(
    tmp_path: Path, lines: list[str], changes: dict[str, object], sentence: str
) -> None:
    config = replace(written(tmp_path, lines), **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=sentence):
        open_source(config)


def test_no_whole_window_in_a_part(tmp_path: Path) -> None:
    config = replace(written(tmp_path, ["t,x", *EVEN]), val_fraction=0.2)
    with pytest.raises(ValueError, match="no whole window of 4 steps in one part"):
        split(of(config), 0.2)


def test_a_table_for_a_model_is_cut_without_overlap_and_read_as_its_data_were(
    tmp_path: Path,
) -> None:
    lines = ["t,a,b", *(f"{k},{k},{2 * k}" for k in range(9))]
    config = DataConfig(written(tmp_path, lines).path)
    metadata = {
        "training": {"data.path": "old.csv", "data.time": "t"},
        "data": {"columns": ["b"], "mean": [4.0], "std": [2.0]},
    }
    given = open_samples(config, (1, 4), metadata)
    expected = torch.tensor([[[-2.0, -1, 0, 1]], [[2, 3, 4, 5]]])
    assert len(given) == 2
    torch.testing.assert_close(given.scaled(torch.arange(2)), expected)
