"""Checkpoints: whole, checked, few, and none lost."""

import errno
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import eqm
from eqm.data import digits
from eqm.files import RUN, DiskFullError, claim_folder
from eqm.models import MLPConfig, pretrained
from eqm.models.pretrained import store_metadata
from eqm.train import OptimizerConfig, TrainConfig, checkpoint, ema, keep_best, start, train
from eqm.train.checkpoint import save
from eqm.train.disk_space import bytes_of

TINY = TrainConfig(
    model=MLPConfig(shape=(1, 8, 8), num_classes=10, width=8, depth=1),
    images=128,
    batch_size=32,
    checkpoint_every=64,
)


@pytest.fixture(scope="module")
def images():
    return digits()[torch.arange(0, 1797, 9)]


def last(run):
    *_, end = run
    return end


def kept(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_newest_few_stay_and_what_a_killed_process_left_goes(images, tmp_path):
    claim_folder(tmp_path, RUN)
    (tmp_path / "checkpoints").mkdir()
    for litter in ("000009.safetensors", ".eqm-00000000-7-1.part"):
        (tmp_path / "checkpoints" / litter).touch()
    last(train(replace(TINY, checkpoint_every=32, keep_checkpoints=3), images, tmp_path))
    names = [f"00000{n}.{kind}" for n in (2, 3, 4) for kind in ("json", "safetensors")]
    assert kept(tmp_path) == names
    last(
        train(replace(TINY, checkpoint_every=32, keep_checkpoints=6, images=192), images, tmp_path)
    )
    assert [name[:6] for name in kept(tmp_path)[::2]] == [f"00000{n}" for n in (2, 3, 4, 5, 6)]


@pytest.mark.parametrize("kind", ["json", "safetensors"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b[:-5] + bytes([b[-5] ^ 1]) + b[-4:],
        lambda b: b.replace(b'"images": 128', b'"images": 120').replace(b"F32", b"I32", 1),
    ],
    ids=["half", "empty", "one bit", "one figure"],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(images, tmp_path, caplog, kind, damage):
    """One bit of the JSON is a bit of the digest it ends with."""
    last(train(TINY, images, tmp_path / "whole"))
    last(train(TINY, images, tmp_path / "torn"))
    path = tmp_path / "torn" / "checkpoints" / f"000002.{kind}"
    path.write_bytes(damage(path.read_bytes()))
    steps = list(train(TINY, images, tmp_path / "torn"))
    assert [step.images for step in steps] == [96, 128]
    assert "000002.json is damaged: going on from the checkpoint before" in caplog.text
    ends = [
        max((tmp_path / run / "checkpoints").glob("*.safetensors")) for run in ("whole", "torn")
    ]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    aside = tmp_path / "torn" / "checkpoints" / "damaged-000002"
    assert {path.name for path in aside.iterdir()} == {"000002.json", "000002.safetensors"}


def test_a_run_without_any_readable_checkpoint_is_not_begun_anew(images, tmp_path):
    last(train(TINY, images, tmp_path))
    for path in (tmp_path / "checkpoints").glob("*.safetensors"):
        path.write_bytes(b"foreign")
    before = kept(tmp_path)
    with pytest.raises(ValueError, match="holds no readable checkpoint .* move it away"):
        last(train(TINY, images, tmp_path))
    assert kept(tmp_path) == before


def test_too_little_disk_is_said_before_the_work_and_before_the_writing(
    images, tmp_path, monkeypatch
):
    run = train(TINY, images, tmp_path)
    next(run)
    usage = namedtuple("usage", "total used free")(10**6, 10**6, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"0 MB free, the next checkpoint takes .* free some space"):
        last(run)
    with pytest.raises(OSError, match="next checkpoint"):
        train(TINY, images, tmp_path / "other")


def test_a_disk_that_is_full_for_a_while_does_not_end_the_run(
    images, tmp_path, monkeypatch, caplog
):
    writers = (checkpoint.save_file, ema.save_file)

    def full(*rest, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    config = replace(
        TINY, checkpoint_every=32, optimizer=OptimizerConfig(ema_sigma_rel=(0.1, 0.05))
    )
    run = train(config, images, tmp_path)
    next(run)
    next(run)  # the checkpoint of the first step is written when the second is asked for
    before = {name: (tmp_path / "checkpoints" / name).read_bytes() for name in kept(tmp_path)}
    for module in (checkpoint, ema):
        monkeypatch.setattr(module, "save_file", full)
    next(run)
    assert {
        name: (tmp_path / "checkpoints" / name).read_bytes() for name in kept(tmp_path)
    } == before
    assert "the disk is full: " in caplog.text
    assert "going on without this checkpoint" in caplog.text
    assert "going on without this snapshot" in caplog.text
    for module, writer in zip((checkpoint, ema), writers, strict=True):
        monkeypatch.setattr(module, "save_file", writer)
    next(run)
    assert max(kept(tmp_path)) == "000002.safetensors"
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DiskFullError, match="the disk is full"):
        next(run)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_space_asked_for_is_what_a_checkpoint_takes(images, tmp_path, name):
    config = replace(TINY, optimizer=OptimizerConfig(name=name, ema_sigma_rel=(0.1,)))
    state = start(config, torch.device("cpu"))
    expected = bytes_of(state)
    last(train(config, images, tmp_path))
    written = load_file(tmp_path / "checkpoints" / "000002.safetensors")
    tensors = [*written.values(), *load_file(tmp_path / "model.safetensors").values()]
    assert sum(tensor.nbytes for tensor in tensors if tensor.ndim) == expected  # counts of steps


def test_a_run_that_is_complete_is_left_alone_once_its_weights_are_there(images, tmp_path):
    last(train(TINY, images, tmp_path))
    saved = kept(tmp_path)
    assert not list(train(TINY, images, tmp_path))
    assert kept(tmp_path) == saved
    (tmp_path / "model.safetensors").unlink()  # as if killed before it was written
    assert not list(train(TINY, images, tmp_path))
    assert eqm.from_pretrained(tmp_path).metadata["training"]["images_seen"] == 128


def end_with(damage, path):
    path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))


def files(folder):
    places = [folder, folder / "best", folder / "averages"]
    return {
        path: path.read_bytes()
        for place in places
        for path in place.iterdir()
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "config.json", "best/model.safetensors", "best/config.json"),
        "averages/000000000128-0.1.safetensors",
    ],
)
@pytest.mark.parametrize(
    "damage",
    [
        None,
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b"PK" + b,
        lambda b: b[:-20] + bytes([b[-20] ^ 1]) + b[-19:],
        lambda b: b.replace(b'learning_rate": 0.0001', b'learning_rate": 0.0101'),
    ],
    ids=["missing", "empty", "half", "another", "one bit", "one figure"],
)
def test_a_complete_run_writes_damaged_files_again(
    complete, tmp_path, images, caplog, name, damage
):
    shutil.copytree(complete, tmp_path / "run")
    path, whole = tmp_path / "run" / name, files(tmp_path / "run")
    end_with(damage, path)
    if path.exists() and path.read_bytes() == whole[path]:
        pytest.skip("nothing is damaged")
    assert not list(train(KEPT, images, tmp_path / "run"))
    now = {key: value for key, value in files(tmp_path / "run").items() if key.name != "README.md"}
    assert now == {key: value for key, value in whole.items() if key.name != "README.md"}
    assert caplog.text.count("written again from") == 1
    caplog.clear()
    assert not list(train(KEPT, images, tmp_path / "run"))
    assert not caplog.text


@pytest.mark.parametrize("place", ["", "best"])
def test_a_complete_run_writes_the_card_that_a_kill_left_behind_the_weights(
    complete, images, place
):
    card = complete / place / "README.md"
    whole = card.read_text()
    for left in (whole.replace("images_seen ", "images_seen 9"), None):
        card.write_text(left) if left else card.unlink()
        assert not list(train(KEPT, images, complete))
        assert card.read_text() == whole


KEPT = replace(TINY, optimizer=OptimizerConfig(ema_sigma_rel=(0.1,)), eval_every=32)


@pytest.fixture(scope="module")
def complete(images, tmp_path_factory):
    """A complete run whose best weights are not its last ones."""
    folder = tmp_path_factory.mktemp("runs") / "complete"
    for step in train(KEPT, images, folder):
        keep_best(step.state, 1.0 if step.images == 64 else 2.0)
    return folder


def test_what_no_checkpoint_holds_is_said_to_be_lost(complete, images, tmp_path, caplog):
    shutil.copytree(complete, tmp_path / "run")
    for lost in ("averages/000000000064-0.1.safetensors", "best/model.safetensors"):
        (tmp_path / "run" / lost).unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "best")
    assert not list(train(KEPT, images, tmp_path / "run"))
    assert "000000000064-0.1.safetensors in " in caplog.text
    assert caplog.text.count("train in another folder to get them again") == 2


def test_a_missing_folder_is_not_looked_for_on_the_hub(complete, images, tmp_path, monkeypatch):
    shutil.copytree(complete, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "best")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "folder_of", local_alone)
    assert not list(train(KEPT, images, "run"))
    assert eqm.from_pretrained("run/best").metadata["best"] == 1.0


def local_alone(name):
    assert Path(name).is_dir(), f"{name} would be downloaded"
    return Path(name)


def test_settings_that_were_tuned_are_no_damage(complete, images, tmp_path, caplog):
    shutil.copytree(complete, tmp_path / "run")
    sampling = eqm.from_pretrained(complete).metadata["sampling"] | {"step_size": 0.01}
    store_metadata(tmp_path / "run", {"sampling": sampling, "tuning": {}})
    assert not list(train(KEPT, images, tmp_path / "run"))
    assert eqm.from_pretrained(tmp_path / "run").metadata["sampling"]["step_size"] == 0.01
    assert not caplog.text


def test_the_best_weights_are_kept_beside(images, tmp_path):
    run = train(TINY, images, tmp_path)
    state = next(run).state
    assert keep_best(state, 3.0)
    best = {name: value.clone() for name, value in state.average.state_dict().items()}
    next(run)
    assert not keep_best(state, 4.0)
    assert not keep_best(state, float("nan"))
    model = eqm.from_pretrained(tmp_path / "best")
    assert model.metadata["best"] == 3.0
    assert all(torch.equal(best[name], value) for name, value in model.state_dict().items())
    last(run)
    state = train(TINY, images, tmp_path)
    assert keep_best(end_of(TINY, images, tmp_path), 2.0)
    with pytest.raises(ValueError, match="has a folder"):
        keep_best(start(TINY, torch.device("cpu")), 1.0)


def end_of(config, images, folder):
    """The state of a run that goes on a little."""
    return last(train(replace(config, images=config.images + 32), images, folder)).state


def test_what_is_saved_is_the_same_however_the_optimizer_stores_it(images, tmp_path):
    state = last(train(TINY, images, tmp_path)).state
    save(state, TINY, tmp_path, data={})
    numbers = sorted((tmp_path / "checkpoints").glob("*.safetensors"))
    assert numbers[-1].read_bytes() == numbers[-2].read_bytes()
