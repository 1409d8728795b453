"""A run writes only into a folder of its own, removes only its own litter, and outlives errors of the disk."""

import errno
import os
import resource
import shutil
from dataclasses import replace

import pytest
import torch

import eqm
from eqm.cli.main import main
from eqm.data import digits
from eqm.files import DiskFullError
from eqm.models import UNetConfig
from eqm.monitor import Monitor, read_log
from eqm.monitor import run as monitored_run
from eqm.train import TrainConfig, checkpoint, keep_best, train

TINY = TrainConfig(
    images=96,
    batch_size=32,
    checkpoint_every=32,
    model=UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1,)),
    device="cpu",
    threads=1,
)
LITTER = ".eqm-00000000-7-1.part"  # of another machine; the lock says that it is dead


@pytest.fixture(scope="module")
def images():
    return digits()[torch.arange(0, 1797, 9)]


def last(run):
    *_, end = run
    return end


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


FOREIGN = [
    {"config.json": '{"model_type": "bert"}', "model.safetensors": "theirs"},
    {"config.json": '{"format": "eqm"}', "model.safetensors": "a model without a run"},
    {"model.safetensors": "theirs"},
    {"log.jsonl": '{"step": 1}\n'},
    {"log.jsonl": '{"images": 1}\n'},
    {"best/config.json": "{}", "best/model.safetensors": "theirs"},
    {"checkpoints/step_1000.safetensors": "theirs"},
    {"checkpoints/000009.safetensors": "theirs", "checkpoints/000009.json": "{}"},
    {"averages/000000000032-0.1.safetensors": "theirs"},
    {"pictures/latest.png": "theirs"},
    {"eqm.json": "[]"},
    {"README.md": "theirs"},
    {"notes.txt": "theirs"},
]


@pytest.mark.parametrize("there", FOREIGN, ids=lambda there: "+".join(there))
@pytest.mark.parametrize("command_line", [True, False], ids=["command", "function"])
def test_a_foreign_folder_is_left_as_it_is(images, tmp_path, capsys, there, command_line):
    for name, text in there.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    if command_line:
        options = ["--images", "32", "--model.width", "4", "--output", str(tmp_path)]
        assert main(["train", "digits", *options]) == 2
        said = capsys.readouterr().err
    else:
        with pytest.raises(ValueError) as caught:
            train(TINY, images, tmp_path)
        said = str(caught.value)
    assert "choose another" in said
    assert contents(tmp_path) == before


def test_the_log_of_another_program_is_left_as_it_is(images, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match=r"has files in it, such as 'log.jsonl'"):
        monitored_run(train(TINY, images, tmp_path / "run"), total=96, folder=tmp_path)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n'


def test_own_files_in_the_folder_of_a_run_stay(images, tmp_path):
    last(train(replace(TINY, images=32), images, tmp_path))
    mine = ["notes.txt", "checkpoints/mine.safetensors", "checkpoints/12.safetensors", ".x.7.part"]
    for name in (*mine, "checkpoints/.000001.json.7.part"):
        (tmp_path / name).write_text("mine")
    last(train(TINY, images, tmp_path))
    for name in (*mine, "checkpoints/.000001.json.7.part"):
        assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["config.json", "eqm.json"])
def test_a_file_of_another_program_in_the_folder_of_a_run_stays(images, tmp_path, name):
    last(train(replace(TINY, images=32), images, tmp_path))
    (tmp_path / name).write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="choose another"):
        last(train(TINY, images, tmp_path))
    assert (tmp_path / name).read_text() == '{"model_type": "bert"}'


def test_what_a_killed_run_left_is_swept_at_the_next_start(images, tmp_path):
    last(train(replace(TINY, images=32), images, tmp_path))
    folders = [tmp_path, *(tmp_path / name for name in ("best", "averages", "pictures"))]
    for folder in (*folders, tmp_path / "checkpoints"):
        (folder / LITTER).mkdir(parents=True)
        (folder / LITTER / ".tmpA1b2C3").touch()
    last(train(TINY, images, tmp_path))
    assert not list(tmp_path.rglob("*.part"))


def test_a_run_that_was_killed_at_the_marker_starts_again(images, tmp_path):
    (tmp_path / LITTER).mkdir()
    (tmp_path / ".lock").touch()
    last(train(TINY, images, tmp_path))
    assert eqm.from_pretrained(tmp_path).metadata["training"]["images_seen"] == 96


def test_a_complete_run_that_is_read_only_is_still_complete(images, tmp_path, monkeypatch):
    last(train(TINY, images, tmp_path))
    before = contents(tmp_path)
    monkeypatch.setattr("eqm.train.loop.claim_folder", None)
    assert not list(train(TINY, images, tmp_path))
    assert contents(tmp_path) == before


NUMBERS = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO]


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
@pytest.mark.parametrize("what", ["fsync", "save_file", "replace"])
def test_a_disk_that_fails_for_a_while_does_not_end_the_run(
    images, tmp_path, monkeypatch, caplog, number, what
):
    def fail(*rest, **options):
        text = os.strerror(number)
        if what == "save_file":
            raise RuntimeError(f"I/O error: {text} (os error {number})")
        raise OSError(number, text)

    whole = last(train(TINY, images, tmp_path / "whole")).state
    run = train(TINY, images, tmp_path / "torn")
    next(run)
    next(run)  # after the first checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(
            *{
                "fsync": (os, "fsync"),
                "save_file": (checkpoint, "save_file"),
                "replace": (os, "replace"),
            }[what],
            fail,
        )
        if what == "replace":
            patch.setattr("pathlib.Path.replace", fail)
        before = contents(tmp_path / "torn")
        next(run)
        assert contents(tmp_path / "torn") == before
        assert "going on without this checkpoint" in caplog.text
        with pytest.raises(DiskFullError, match="was not written; "):
            last(run)
        assert contents(tmp_path / "torn") == before
    again = last(train(TINY, images, tmp_path / "torn")).state
    for ours, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert ours.equal(theirs)


def test_a_limit_of_file_sizes_is_a_sentence_and_the_run_can_be_resumed(tmp_path, capsys):
    command = ["train", "digits", "--output", str(tmp_path / "run"), "--model.width", "4"]
    command += ["--images", "128", "--eval-every", "0", "--device", "cpu"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16384, before[1]))
        assert main(command) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("eqm: the file-size limit is reached: ")
    assert not list((tmp_path / "run").rglob("*.part"))
    assert main(command) == 0
    assert read_log(tmp_path / "run")[-1]["images"] == 128


def test_the_best_weights_are_not_lost_to_a_disk_that_fails(images, tmp_path, monkeypatch):
    losses = iter([2.0, 1.0, 0.5])

    def fail(*rest):
        raise OSError(errno.EIO, "Input/output error")

    run = train(TINY, images, tmp_path)
    for step, loss in zip(run, losses, strict=False):
        with monkeypatch.context() as patch:
            if loss == 1.0:
                patch.setattr(os, "fsync", fail)
                with pytest.raises(DiskFullError, match=r"best.*was not written"):
                    keep_best(step.state, loss)
            else:
                keep_best(step.state, loss)
        best = eqm.from_pretrained(tmp_path / "best").metadata
        assert best["best"] == (2.0 if loss == 1.0 else loss)


def test_ema_writes_into_a_new_folder_only(tmp_path, capsys):
    run = tmp_path / "run"
    command = ["train", "digits", "--output", str(run), "--model.width", "4", "--images", "128"]
    options = ["--optimizer.ema-sigma-rel", "0.05", "0.1", "--device", "cpu", "--eval-every", "0"]
    assert main([*command, *options]) == 0
    (tmp_path / "mine").mkdir()
    for name in ("notes.txt", "model.safetensors"):
        (tmp_path / "mine" / name).write_text("mine")
        before = contents(tmp_path)
        for output in ("mine", "run", "run/best", "run/averages", "run/checkpoints"):
            ema = ["ema", str(run), "--sigma-rel", "0.08", "--output", str(tmp_path / output)]
            assert main(ema) == 2
            assert "choose another" in capsys.readouterr().err
        assert contents(tmp_path) == before
        shutil.rmtree(tmp_path / "mine")
        (tmp_path / "mine").mkdir()
    ema[-1] = str(tmp_path / "mine")
    assert main(ema) == 0


def test_a_monitor_needs_no_folder_of_its_own(images, tmp_path):
    end = monitored_run(train(TINY, images, tmp_path), total=96, folder=tmp_path, monitor=Monitor())
    assert end.images == read_log(tmp_path)[-1]["images"] == 96
