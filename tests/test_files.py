import errno

import pytest

from eqm import files
from eqm.files import make_folder, new_folder, replacing


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


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    with (
        pytest.raises(OSError, match=r"the disk is full: .*file was not written; free some space"),
        replacing(tmp_path / "file"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="the disk is full"), replacing(tmp_path / "file"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    # errors of torch and safetensors do not say why writing failed
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.raises(OSError, match="the disk is full"), replacing(tmp_path / "file"):
        raise RuntimeError("unexpected pos 576 vs 534")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(OSError, match=r"cannot write .* choose another folder"),
        replacing(tmp_path / "file" / "inside") as path,
    ):
        path.write_text("never")


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


def test_make_folder_leaves_the_folder_empty(tmp_path):
    for _ in range(2):
        assert make_folder(tmp_path / "new") == tmp_path / "new"
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(
        OSError, match=r"cannot write .*file \(File exists\): choose another folder"
    ):
        make_folder(tmp_path / "file")


def test_file_permissions_follow_the_umask(tmp_path):
    with replacing(tmp_path / "tensors") as path:
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)  # as safetensors does
    (tmp_path / "text").touch()
    assert (tmp_path / "tensors").stat().st_mode == (tmp_path / "text").stat().st_mode
