"""A run that is killed again and again ends in the bits of one that is not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

TRAIN = [
    *(sys.executable, "-m", "eqm", "train", "digits", "--images", "24000"),
    *("--model.width", "4", "--model.multipliers", "1", "2", "--checkpoint-every", "640"),
]


def begin(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*TRAIN, "--output", str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def complete(folder: Path) -> None:
    with begin(folder) as run:
        said = run.communicate()[1]
    assert run.returncode == 0, said


def bits(folder: Path):
    newest = max((folder / "checkpoints").glob("*.safetensors"))
    return load_file(newest), load_file(folder / "model.safetensors")


def writing(folder: Path) -> bool:
    """Whether a checkpoint is being written just now."""
    return any((folder / "checkpoints").glob(".*.part"))


@pytest.mark.slow
def test_twelve_kills_change_no_bit(tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    complete(whole)
    chance = random.Random(0)
    amid = 0
    for kill in range(12):
        seen = newest_number(torn)
        run = begin(torn)
        while newest_number(torn) <= seen:  # every life gets somewhere
            assert run.poll() is None, run.communicate()[1]
            time.sleep(0.005)
        if kill % 2:
            while not writing(torn) and run.poll() is None:
                pass
        else:
            time.sleep(chance.random() * 0.2)
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stderr.close()
        amid += writing(torn)
    assert amid >= 3  # a part that nobody finished
    complete(torn)
    for ours, theirs in zip(bits(torn), bits(whole), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in ours)


def newest_number(folder: Path) -> int:
    return max((int(p.stem) for p in (folder / "checkpoints").glob("*.json")), default=0)
