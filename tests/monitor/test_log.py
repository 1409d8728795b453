import errno
import json
import math
from pathlib import Path

import pytest

from eqm.files import DiskFullError
from eqm.monitor import read_log
from eqm.monitor.log import Log


def positions(folder):
    return [line["images"] for line in read_log(folder)]


def test_a_resumed_log_has_one_line_a_position(tmp_path):
    log = Log(tmp_path)
    log.start(0)
    for images in (10, 20, 30):
        log.log({"loss": 1.0}, images)
    with log.path.open("a") as file:
        file.write('{"images": 40, "lo')  # a crash
    assert positions(tmp_path) == [10, 20, 30]
    log.start(20)
    log.log({"loss": 2.0}, 30)
    assert positions(tmp_path) == [10, 20, 30]
    assert read_log(tmp_path)[-1] == {"images": 30, "loss": 2.0}
    assert log.path.read_text().count("\n") == 3


def test_every_line_is_strict_json(tmp_path):
    Log(tmp_path).log({"loss": math.nan, "rate": math.inf, "norm": 1 / 3}, 1)

    def refuse(constant):
        raise AssertionError(constant)

    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {
        **{"images": 1, "loss": None, "rate": None},
        "norm": 0.333333,
    }


def test_a_disk_that_fills_amid_a_line_leaves_whole_lines(tmp_path, monkeypatch):
    log = Log(tmp_path)
    log.log({"loss": 1.0}, 10)
    whole = type(log.path).open

    class Short:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *failure):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, line):
            if len(line) < 20:  # the rest
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(line[:7])

    monkeypatch.setattr(type(log.path), "open", lambda *a, **k: Short(whole(*a, **k)))
    with pytest.raises(DiskFullError, match="the disk is full: .*log.jsonl was not written; free"):
        log.log({"loss": 1.0}, 20)
    monkeypatch.undo()
    log.log({"loss": 1.0}, 30)
    assert positions(tmp_path) == [10, 30]
    assert log.path.read_text().count("\n") == 2


def test_a_log_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    def refuse(path, *mode, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match=r"cannot write .*log.jsonl \(Permission denied\): choose"):
        Log(tmp_path).log({"loss": 1.0}, 10)


def test_no_log_has_no_lines(tmp_path):
    assert read_log(tmp_path) == []
