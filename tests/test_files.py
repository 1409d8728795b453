import errno
import gc
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import eqm
from eqm import files
from eqm.features.classifier import Classifier
from eqm.files import (
    DiskFullError,
    check_folder,
    claim_folder,
    is_file_name,
    make_folder,
    new_folder,
    replacing,
    sweep,
)
from eqm.pictures import animate, picture
from eqm.reading import BoundedFile
from eqm.tasks import EqmDetector

DISK_ERRORS = {
    errno.ENOSPC: "the disk is full: ",
    errno.EDQUOT: "the disk quota is used up: ",
    errno.EFBIG: "the file-size limit is reached: ",
    errno.EIO: "the disk reports an input/output error: ",
}


def contents(folder):
    """Everything below a folder: the bytes and permissions of files, the targets of links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        what = str(path.readlink()) if path.is_symlink() else path.is_file() and path.read_bytes()
        found[str(path.relative_to(folder))] = (what, stat.S_IMODE(path.lstat().st_mode))
    return found


def part(host=None, process=None, number=7):
    host = zlib.crc32((host or socket.gethostname()).encode())
    return f".eqm-{host:08x}-{process or os.getpid()}-{number}.part"


def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    with replacing(tmp_path / "new" / "file.txt") as path:
        path.write_text("whole")
        assert not (tmp_path / "new" / "file.txt").exists()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file.txt"]
    assert (tmp_path / "new" / "file.txt").read_text() == "whole"


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("torn"), OSError(5, "I/O")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    (tmp_path / "file").write_text("old")
    with pytest.raises(type(failure)), replacing(tmp_path / "file") as path:
        path.write_text("half")
        raise failure
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize(("number", "sentence"), DISK_ERRORS.items())
@pytest.mark.parametrize("place", ["block", "text", "cause", "fsync", "replace"])
def test_a_disk_that_takes_no_more_is_one_sentence_and_the_old_file_stays(
    tmp_path, monkeypatch, number, sentence, place
):
    def fail(*rest, **options):
        raise OSError(number, os.strerror(number))

    (tmp_path / "file").write_text("old")
    with pytest.raises(DiskFullError) as caught, replacing(tmp_path / "file") as path:
        path.write_text("half")
        if place == "block":
            fail()
        if place == "text":
            raise RuntimeError(f"I/O error: {os.strerror(number)} (os error {number})")
        if place == "cause":  # as numpy and zipfile do
            try:
                fail()
            finally:
                raise ValueError("Can't close the ZIP file while there is an open writing handle")
        monkeypatch.setattr(*((files.os, "fsync") if place == "fsync" else (Path, "replace")), fail)
    monkeypatch.undo()
    assert str(caught.value).startswith(f"{sentence}{tmp_path / 'file'} was not written; ")
    assert contents(tmp_path) == {
        "file": (b"old", stat.S_IMODE((tmp_path / "file").stat().st_mode))
    }


def test_a_full_disk_is_seen_where_the_library_does_not_say_so(tmp_path, monkeypatch):
    # errors of torch and safetensors do not say why writing failed
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.raises(OSError, match="the disk is full"), replacing(tmp_path / "file"):
        raise RuntimeError("unexpected pos 576 vs 534")


def write_array(path):
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, arr_0=np.zeros((100, 100)))


def write_tensors(path):
    with replacing(path) as temporary:
        save_file({"a": torch.zeros(10_000)}, temporary)


def write_picture(path):
    with replacing(path) as temporary:
        picture(torch.rand(3, 100, 100) * 2 - 1).save(temporary, format="png")


def write_animation(path):
    frames = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    animate(map(picture, frames), path.with_suffix(".gif"))


@pytest.mark.parametrize("write", [write_array, write_tensors, write_picture, write_animation])
def test_the_limit_of_file_sizes_is_one_sentence_from_every_library(tmp_path, write):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "file").write_text("old")
    expected = contents(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(DiskFullError, match="the file-size limit is reached: .*ulimit -f"):
            write(tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert contents(tmp_path) == expected


# imageio_ffmpeg does not close the pipe to a process that has died.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("size", [0, 100, 10_000])
def test_a_film_that_ffmpeg_cannot_finish_is_one_sentence(tmp_path, size):
    pytest.importorskip("imageio_ffmpeg")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    frames = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    (tmp_path / "a.mp4").write_text("old")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        with pytest.raises(OSError, match=r"cannot write .*a\.mp4 \(ffmpeg stopped .*ulimit -f"):
            animate(map(picture, frames), tmp_path / "a.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.mp4", "old")]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(OSError, match=r"cannot write .* choose another folder"),
        replacing(tmp_path / "file" / "inside") as path,
    ):
        path.write_text("never")


def special(tmp_path, kind):
    path = tmp_path / "file"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/null")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "read-only":
            path.touch(0o444)
        case "dangling":
            path.symlink_to(tmp_path / "missing" / "file")
        case "long":
            return tmp_path / ("x" * 300)
        case "NUL":
            return tmp_path / "a\0b"
    return path


@pytest.mark.parametrize(
    "kind", ["pipe", "device", "folder", "loop", "dangling", "read-only", "long", "NUL"]
)
def test_what_is_no_file_is_refused_and_stays(tmp_path, kind):
    path = special(tmp_path, kind)
    before = [(path.name, path.lstat()) for path in tmp_path.iterdir()]
    with pytest.raises((OSError, ValueError)) as caught, replacing(path) as temporary:
        temporary.write_text("never")
    assert str(caught.value).startswith(("cannot write ", "a file name must not have"))
    after = [(path.name, path.lstat()) for path in tmp_path.iterdir()]
    assert [(name, s.st_mode, s.st_ino) for name, s in after] == [
        (name, s.st_mode, s.st_ino) for name, s in before
    ]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_a_link(tmp_path, there):
    if there:
        (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with replacing(tmp_path / "link") as path:
        path.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_another_name_of_the_old_file_keeps_the_old_content(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "twin").hardlink_to(tmp_path / "file")
    with replacing(tmp_path / "file") as path:
        path.write_text("new")
    assert (tmp_path / "twin").read_text() == "old"


def test_the_longest_name_can_be_written(tmp_path):
    with replacing(tmp_path / ("x" * 255)) as path:
        path.write_text("whole")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_a_new_folder_is_complete_or_absent(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "new") as folder:
        (folder / "one").touch()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with new_folder(tmp_path / name) as folder:
            (folder / "one").touch()
        assert [path.name for path in (tmp_path / name).iterdir()] == ["one"]
    with pytest.raises(ValueError, match="has files in it"), new_folder(tmp_path / "new") as folder:
        (folder / "other").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one"]


@pytest.mark.parametrize("linked", [True, False])
def test_an_empty_folder_is_filled_not_replaced(tmp_path, linked):
    folder = tmp_path / "empty"
    folder.mkdir()
    folder.chmod(0o2750)
    if linked:
        folder = tmp_path / "link"
        folder.symlink_to("empty")
    before = folder.stat()
    with pytest.raises(KeyboardInterrupt), new_folder(folder) as temporary:
        (temporary / "half").touch()
        raise KeyboardInterrupt
    assert not list(folder.iterdir())
    (folder / part(process=dead())).mkdir()  # of a killed process
    with new_folder(folder) as temporary:
        (temporary / "below").mkdir()
        (temporary / "below" / "one").touch()
    assert (folder.stat().st_ino, folder.stat().st_mode) == (before.st_ino, before.st_mode)
    assert sorted(contents(folder)) == ["below", "below/one"]
    assert folder.is_symlink() is linked


def test_what_came_into_a_folder_meanwhile_stays(tmp_path):
    with pytest.raises(OSError, match="File exists"), new_folder(tmp_path) as temporary:
        for name in "ab":
            (temporary / name).write_text("ours")
        (tmp_path / "b").write_text("theirs")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("b", "theirs")]


def test_make_folder_leaves_the_folder_empty(tmp_path):
    for _ in range(2):
        assert make_folder(tmp_path / "new") == tmp_path / "new"
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(
        OSError, match=r"cannot write .*file \(File exists\): choose another folder"
    ):
        make_folder(tmp_path / "file")


def test_file_permissions_follow_the_umask_or_the_old_file(tmp_path):
    for mode in (None, 0o600, 0o664):
        with replacing(tmp_path / "tensors") as path:
            path.unlink(missing_ok=True)
            path.touch(mode=0o600)  # as safetensors does
        (tmp_path / "text").touch()
        expected = (tmp_path / "text").stat().st_mode if mode is None else 0o100000 | mode
        assert (tmp_path / "tensors").stat().st_mode == expected
        (tmp_path / "tensors").chmod({None: 0o600, 0o600: 0o664}.get(mode, 0o644))


def test_only_what_a_dead_process_left_is_swept(tmp_path):
    kept = ["x.part", ".x.7.part", ".eqm.part", ".eqm-0-7-1.part", part(process=os.getppid())]
    kept += [part("elsewhere"), f"{part(process=dead())}.txt"]
    for name in (*kept, part(process=dead()), part(number=99)):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".tmpXyz").touch()
    with replacing(tmp_path / "file"):
        sweep(tmp_path)
        assert sum(name.name.startswith(".eqm-") for name in tmp_path.iterdir()) == 5
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "file"}
    old = files.time.time() - 2 * files.STALE
    os.utime(tmp_path / part("elsewhere"), (old, old))
    sweep(tmp_path)
    assert not (tmp_path / part("elsewhere")).exists()
    (tmp_path / part("elsewhere")).mkdir()
    sweep(tmp_path, locked=True)
    assert not (tmp_path / part("elsewhere")).exists()
    assert (tmp_path / part(process=os.getppid())).exists()
    assert (tmp_path / ".x.7.part").exists()


def test_a_link_that_looks_like_litter_does_not_lead_the_sweep_away(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").touch()
    (tmp_path / part(process=dead())).symlink_to("mine")
    sweep(tmp_path)
    assert sorted(contents(tmp_path)) == ["mine", "mine/kept"]


MODEL = {"config.json": '{"format": "eqm"}', "model.safetensors": ""}
RUN = {"eqm.json": '{"format": "eqm-run"}', "log.jsonl": ""}
FOREIGN = {"config.json": '{"model_type": "bert"}', "model.safetensors": ""}


@pytest.mark.parametrize(
    ("there", "kind", "fine"),
    [
        ({}, "eqm-run", True),
        ({".gitignore": "", "Thumbs.db": ""}, "eqm-run", True),
        (RUN, "eqm-run", True),
        (RUN | MODEL | {"notes.txt": ""}, "eqm-run", True),
        (RUN | {"config.json": "{", "model.safetensors": ""}, "eqm-run", True),  # damaged
        (RUN | FOREIGN, "eqm-run", False),
        (MODEL, "eqm-run", False),
        (MODEL, "eqm", True),
        (FOREIGN, "eqm", False),
        ({"model.safetensors": ""}, "eqm", False),
        ({"config.json": '["eqm"]'}, "eqm", False),
        ({"config.json": "[" * 100_000}, "eqm", False),
        (RUN | {"best/config.json": '{"format": "eqm"}', "best/notes.txt": ""}, "eqm-run", True),
        (RUN | {"best/config.json": '{"model_type": "bert"}'}, "eqm-run", False),
        ({"eqm.json": '{"format": 3}'}, "eqm-run", False),
        ({"manifest.json": '{"name": "app"}'}, "eqm latents", False),
        ({"manifest.json": '{"format": "eqm latents"}'}, "eqm latents", True),
        ({"manifest.json": '{"format": "eqm latents"}'}, "eqm", False),
        ({"detector.json": "{}"}, "eqm-detector", False),
        ({"a.png": ""}, "eqm latents", False),
        ({"a.png": ""}, "", False),
        (RUN, "", False),
    ],
)
def test_a_folder_is_taken_if_it_is_empty_or_of_the_same_kind(tmp_path, there, kind, fine):
    for name, text in there.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    if fine:
        check_folder(tmp_path, kind)
    else:
        with pytest.raises(ValueError, match="choose another"):
            check_folder(tmp_path, kind)
        with pytest.raises(ValueError, match="choose another"):
            claim_folder(tmp_path, kind)
    found = {name: path.read_text() for name in there if (path := tmp_path / name).exists()}
    assert found == there
    assert not list(tmp_path.rglob("*.part"))


def test_a_claimed_folder_can_be_claimed_again(tmp_path):
    for _ in range(2):
        claim_folder(tmp_path / "new", "eqm-run")
    assert json.loads((tmp_path / "new" / "eqm.json").read_text()) == {"format": "eqm-run"}
    with pytest.raises(ValueError, match=r"holds|has files in it|not of eqm"):
        claim_folder(tmp_path / "new", "eqm-demo")


def save_model(folder):
    eqm.save_pretrained(eqm.models.build(eqm.models.MLPConfig(shape=(2,), width=8)), folder)


def save_detector(folder):
    EqmDetector(lambda x, labels: x, "gradient-norm", 0.5).fit(
        torch.eye(8)[:, :2] + torch.arange(8)[:, None]
    ).save(folder)


def save_classifier(folder):
    Classifier(shape=(1, 8, 8), num_classes=4).save(folder)


@pytest.mark.parametrize("save", [save_model, save_detector, save_classifier])
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "detector.json", "detector.safetensors", "a.png"]
)
def test_saving_from_python_replaces_nothing_foreign(tmp_path, save, name):
    (tmp_path / name).write_text("{}")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"folder must be a new or an empty folder.*choose"):
        save(tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / name).unlink()
    for _ in range(2):
        save(tmp_path)


def test_saving_does_not_follow_links_out_of_a_model(tmp_path):
    save_model(tmp_path / "cache")
    (tmp_path / "snapshot").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "snapshot" / name).symlink_to(tmp_path / "cache" / name)
    before = contents(tmp_path)
    for change in (save_model, lambda folder: eqm.models.pretrained.store_metadata(folder, {})):
        with pytest.raises(ValueError, match="is a link"):
            change(tmp_path / "snapshot")
    assert contents(tmp_path) == before


@given(st.text(max_size=12))
def test_a_file_name_stays_in_its_folder(name):
    if is_file_name(name):
        assert Path("runs", name).parent == Path("runs")
        assert os.path.normpath(Path("runs", name)) == os.path.join("runs", name)  # noqa: PTH118
        assert name.isprintable()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../..", "/tmp/x", "a/b", "a\\b", "a\nb", "a\0b", "\x1b[31m", " ", "x" * 300],
)
def test_the_name_of_a_run_must_be_a_file_name(name):
    assert not is_file_name(name)
    with pytest.raises(ValueError, match="name must be the name of a folder"):
        eqm.train.TrainConfig(name=name)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", ["a folder", "missing"])
def test_a_file_that_was_never_opened_is_not_closed(tmp_path, what):
    with pytest.raises((ValueError, FileNotFoundError)):
        BoundedFile(tmp_path if what == "a folder" else tmp_path / "missing")
    gc.collect()  # a failure in __del__ is a warning
