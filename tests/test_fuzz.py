import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(os.name != "posix", reason="calls run in forked processes")
def test_hostile_calls_of_the_command_line_end_in_order():
    program = Path(__file__).parent.parent / "tools" / "fuzz.py"
    done = subprocess.run(
        [sys.executable, program, "--seed", "1", "--calls", "30", "--minutes", "1"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " calls in " in done.stdout
