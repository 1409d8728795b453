import json
import logging
import os
import signal
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

import eqm
from eqm import registry
from eqm.cli.main import main
from eqm.files import printable

HOSTILE = "a\x1b[31m\nb\u202ec\udcff\x85\x07"


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs `eqm try`, a command that does what it is given, and returns its status and streams."""

    def call(what, *arguments):
        def command() -> None:
            what()

        registry.names("command")
        with monkeypatch.context() as patch:
            patch.setitem(registry._REGISTERED["command"], "try", command)
            status = main(["try", *arguments])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


def raised(error):
    def call():
        raise error

    return call


@pytest.mark.parametrize(
    "what",
    [
        raised(ValueError("one\n sentence")),
        raised(KeyError("name")),
        raised(AssertionError()),
        raised(zipfile.BadZipFile("File is not a zip file")),
        raised(SafetensorError("header too large")),
        raised(FileNotFoundError(2, "No such file", HOSTILE)),
        raised(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")),
        lambda: int("x"),
        lambda: [][1],
        lambda: 1 // 0,
        lambda: 1e999 and int(float("inf")),
        lambda: struct.unpack("<q", b"1"),
        lambda: zlib.decompress(b"x"),
        lambda: json.loads("{"),
        lambda: json.loads("[" * 100_000),
        lambda: np.zeros(1 << 60),
        lambda: np.linalg.inv(np.zeros((2, 2))),
        lambda: torch.zeros(2, 3) @ torch.zeros(2, 3),
        lambda: torch.zeros(1 << 50),
        lambda: torch.linalg.inv(torch.zeros(2, 2)),
        lambda: print(1, 2, sep=3),
        Path(HOSTILE).read_bytes,
    ],
)
def test_every_failure_is_one_plain_sentence(run, what):
    status, out, err = run(what)
    assert (status, out) == (2, "")
    assert err.startswith("eqm: ")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()


def test_a_fault_of_the_program_is_told_from_input_that_is_refused(run, monkeypatch):
    assert "unexpected" not in run(raised(ValueError("count must be 1")))[2]
    for what in (lambda: int("x"), lambda: {}["x"], lambda: json.loads("{")):
        assert "unexpected" in run(what)[2]
    monkeypatch.setenv("EQM_TRACEBACK", "1")
    with pytest.raises(KeyError):
        run(lambda: {}["x"])


def test_notes_and_warnings_are_plain_lines_each_said_once(run):
    def what():
        for _ in range(2):
            logging.getLogger("eqm.data").info("values lie in %s", HOSTILE)
            logging.getLogger("eqm.data").warning("one picture is broken")
            logging.getLogger("another.library").info("not of interest")
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn("an array\n is read-only", UserWarning, stacklevel=1)

    status, _, err = run(what)
    assert status == 0
    note, *others = err.splitlines()
    assert note.startswith("note: values lie in a\\x1b[31m ")
    assert others == ["warning: one picture is broken", "warning: an array is read-only"]
    assert logging.getLogger("eqm.data").level == logging.NOTSET


@given(st.text(st.characters(), max_size=30))
def test_printed_names_have_no_control_characters_and_plain_ones_stay(text):
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["info", ""], "an argument is empty: "),
        (["sample", "m", "--output", ""], "an argument is empty, after --output: "),
        (["sample", "m", "--output="], "an argument is empty, after --output: "),
        (
            ["sample", "m", "--seed", "1", "--seed", "2"],
            "warning: --seed was given twice: the last",
        ),
        (["sample", "m", "--batch_size", "1", "--batch-size=1"], "--batch-size was given twice"),
        (
            ["train", "digits", "--seed", "a", "--seed", "0", "--images", "0"],
            "--seed was given twice",
        ),
    ],
)
def test_empty_arguments_are_refused_and_repeated_ones_warned_of(capsys, arguments, sentence):
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="the shell and the signals of POSIX")
def test_the_program_ends_in_order_whatever_its_streams_and_signals_are(tmp_path):
    (tmp_path / "wait.py").write_text("import time; print('ready', flush=True); time.sleep(60)")
    program = [sys.executable, "-m", "eqm"]
    shell = f"{sys.executable} -m eqm --version"
    for redirect, status, words in [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (
            ">/dev/full",
            2,
            "eqm: cannot use a file or standard output (the disk is full): free some space\n",
        ),
    ]:
        done = subprocess.run(f"{shell} {redirect}", shell=True, capture_output=True, text=True)
        assert (done.returncode, done.stderr[: len(words)]) == (status, words), redirect
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        f"cd {tmp_path / 'gone'} && rmdir {tmp_path / 'gone'} && {shell}",
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(eqm.__file__).parent.parent)},
    )
    words = "eqm: the current folder was removed: change to another folder\n"
    assert (done.returncode, done.stderr) == (2, words)
    for number, status, words in [
        (signal.SIGINT, 130, "eqm: interrupted\n"),
        (signal.SIGTERM, 143, "eqm: terminated\n"),
    ]:
        with subprocess.Popen(
            [*program, "--import", str(tmp_path / "wait.py")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            assert (process.stderr.read(), process.wait(10)) == (words, status)
