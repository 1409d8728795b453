"""A run that is killed again and again ends in the bits of one that is not.

`make kills` kills more often than these tests do.
"""

import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parent / "kills.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "count"),
    [("--kills", 15), ("--pairs", 4), ("--launches", 1)],
    ids=lambda value: str(value),
)
def test_kills_change_no_bit(tmp_path, monkeypatch, option, count):
    """The harness forks, which a process with the threads of other tests must not."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    none = [word for name in ("--kills", "--pairs", "--launches") for word in (name, "0")]
    done = subprocess.run(
        [sys.executable, HARNESS, *none, option, str(count)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
