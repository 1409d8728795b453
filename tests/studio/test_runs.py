"""Training runs in the studio: what is read, and that nothing outside of the folder is."""

import base64
import json
import os
import subprocess
import sys
from contextlib import closing

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve: pip install 'eqm[serve]'")
pytest.importorskip("httpx", reason="needs httpx to call the server")
from fastapi import FastAPI
from fastapi.testclient import TestClient

from eqm.files import lock_folder
from eqm.models import UNetConfig
from eqm.monitor import Monitor, run
from eqm.monitor.callbacks import Previews
from eqm.pictures import picture
from eqm.studio.run_routes import run_router
from eqm.train import TrainConfig, train

SECRET = {"images": 1, "secret": 424242}


def make_run(folder, *lines, training=None):
    """A folder as training makes it, with these lines in its log."""
    folder.mkdir(parents=True)
    (folder / "eqm.json").write_text('{"format": "eqm-run"}')
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    if lines:
        (folder / "log.jsonl").write_text(text)
    if training:
        (folder / "config.json").write_text(json.dumps({"metadata": {"training": training}}))
    return folder


def put_picture(path, value=0.0):
    path.parent.mkdir(exist_ok=True)
    picture(torch.full((1, 4, 4), value)).save(path)


@pytest.fixture
def client(tmp_path):
    app = FastAPI()
    app.include_router(run_router(tmp_path / "runs"))
    return TestClient(app)


def by_id(client):
    return {each["id"]: each for each in client.get("/v1/runs").json()["data"]}


def test_a_run_that_training_made(client, tmp_path):
    config = TrainConfig(
        model=UNetConfig(shape=(1, 4, 4), width=4, multipliers=(1,), num_classes=2),
        images=64,
        batch_size=16,
        eval_every=32,
        threads=1,
        device="cpu",
    )
    data = torch.rand(32, 1, 4, 4) * 2 - 1, torch.arange(32) % 2
    folder = tmp_path / "runs" / "small"
    steps = train(config, data, folder)
    run(steps, total=64, folder=folder, monitor=Monitor((Previews(config, folder),), every=32))
    found = by_id(client)["small"]
    assert (found["state"], found["images"], found["total"]) == ("complete", 64, 64)
    assert found["samples"] == 2
    assert found["loss"] > 0
    assert found["seconds_left"] is None
    settings = client.get("/v1/runs/small").json()["settings"]
    assert settings["batch_size"] == 16
    assert settings["model.width"] == 4
    lines = client.get("/v1/runs/small/log").json()["lines"]
    assert [line["images"] for line in lines] == [16, 32, 48, 64]
    names = [each["name"] for each in client.get("/v1/runs/small/samples").json()["data"]]
    assert names == ["000000032.png", "000000064.png"]
    answer = client.get(f"/v1/runs/small/samples/{names[1]}").json()
    assert base64.b64decode(answer["b64_json"]) == (folder / "pictures" / names[1]).read_bytes()


def test_states(client, tmp_path):
    runs = tmp_path / "runs"
    assert client.get("/v1/runs").json() == {"object": "list", "data": [], "watched": True}
    make_run(runs / "new")
    make_run(runs / "done", {"images": 8}, training={"images": 8})
    make_run(runs / "early", {"images": 4}, training={"images": 8, "stop_after": 2})
    (runs / "early" / "checkpoints").mkdir()
    (runs / "early" / "checkpoints" / "000002.json").write_text('{"stopping": true}')
    make_run(runs / "killed", {"images": 4}, training={"images": 8})
    busy = make_run(runs / "busy", {"images": 4, "images_per_second": 2.0}, training={"images": 8})
    hold = "import sys, eqm.files as f; lock = f.lock_folder(sys.argv[1]); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(busy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        found = by_id(client)
        process.stdin.close()
    assert {name: each["state"] for name, each in found.items()} == {
        "new": "waiting",
        "done": "complete",
        "early": "complete",
        "killed": "stopped",
        "busy": "running",
    }
    assert found["busy"]["seconds_left"] == 2.0
    assert by_id(client)["busy"]["state"] == "stopped"  # its process has ended


def test_a_look_does_not_end_a_lock_of_this_process(client, tmp_path):
    folder = make_run(tmp_path / "runs" / "a", {"images": 4})
    take = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", take, str(folder / ".lock")]
    with closing(lock_folder(folder)):
        assert by_id(client)["a"]["state"] == "running"
        assert subprocess.run(command, capture_output=True).returncode == 1
    assert by_id(client)["a"]["state"] == "stopped"
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_only_new_lines_come_and_damaged_ones_do_no_harm(client, tmp_path):
    folder = make_run(
        tmp_path / "runs" / "a",
        {"images": 1, "loss": 2.0},
        "not json\n",
        '{"images": 2, "loss": null}\n',
        '{"images": 3, "lo',
    )
    first = client.get("/v1/runs/a/log").json()
    assert [line["images"] for line in first["lines"]] == [1, 2]
    assert not first["more"]
    assert by_id(client)["a"]["images"] == 2
    with (folder / "log.jsonl").open("a") as file:
        file.write('ss": 1.0}\n{"images": 4}\n\xff\n')
    second = client.get("/v1/runs/a/log", params={"after": 2}).json()
    assert [line["images"] for line in second["lines"]] == [3, 4]
    assert second["log"] == first["log"]
    (folder / "new").write_text('{"images": 1, "loss": 2.0}\n')
    (folder / "new").replace(folder / "log.jsonl")  # as a run does that resumes
    assert client.get("/v1/runs/a/log", params={"after": 4}).json()["log"] != first["log"]


def test_long_logs_come_in_parts(client, tmp_path):
    lines = [{"images": k} for k in range(4500)]
    make_run(tmp_path / "runs" / "a", *lines)
    found, after, calls, more = [], -1, 0, True
    while more:
        answer = client.get("/v1/runs/a/log", params={"after": after}).json()
        found += answer["lines"]
        after, more, calls = found[-1]["images"], answer["more"], calls + 1
    assert found == lines
    assert calls == 3


@pytest.mark.parametrize("images", ["many", -1, True, None, [8], 1e300, 10**30])
def test_settings_that_make_no_sense_do_no_harm(client, tmp_path, images):
    line = {"images": 4, "images_per_second": 0}
    make_run(tmp_path / "runs" / "a", line, training={"images": images, "stop_after": "x"})
    assert by_id(client)["a"]["state"] == "stopped"
    assert client.get("/v1/runs/a").json()["settings"]["images"] == images


def test_runs_within_folders_and_runs_that_appear_later(client, tmp_path):
    make_run(tmp_path / "runs" / "sweep" / "a b", {"images": 1})
    make_run(tmp_path / "runs" / "1" / "2" / "3" / "4", {"images": 1})
    assert set(by_id(client)) == {"sweep:a b"}
    assert client.get("/v1/runs/sweep:a%20b/log").json()["lines"] == [{"images": 1}]
    make_run(tmp_path / "runs" / "später", {"images": 1})
    assert set(by_id(client)) == {"sweep:a b", "später"}
    assert client.get("/v1/runs/später/log").status_code == 200


def test_the_folder_may_be_a_run_itself(tmp_path):
    folder = make_run(tmp_path / "alone", {"images": 1})
    put_picture(folder / "pictures" / "latest.png")
    app = FastAPI()
    app.include_router(run_router(folder))
    client = TestClient(app)
    assert set(by_id(client)) == {"alone"}
    assert client.get("/v1/runs/alone/samples").json()["data"] == [
        {"name": "latest.png", "images": None}
    ]


def test_without_a_folder_there_are_no_runs():
    app = FastAPI()
    app.include_router(run_router(None))
    client = TestClient(app)
    assert client.get("/v1/runs").json() == {"object": "list", "data": [], "watched": False}
    assert client.get("/v1/runs/a/log").status_code == 404


NAMES = ["..", "..%2Foutside", "%2e%2e%2foutside", "..%5Coutside", "%2Fetc", "a%2F..%2F..%2Foutside",
         "a%00", "outside", "link", "."]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_ids_name_no_paths(client, tmp_path, name):
    make_run(tmp_path / "runs" / "a", {"images": 1})
    make_run(tmp_path / "outside", SECRET)
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "outside")
    for url in (f"/v1/runs/{name}", f"/v1/runs/{name}/log", f"/v1/runs/{name}/samples"):
        answer = client.get(url)
        assert (
            answer.status_code in (404, 405) or "data" in answer.json()
        )  # "." and ".." shorten the path
        assert "secret" not in answer.text
        assert "424242" not in answer.text
    assert set(by_id(client)) == {"a"}


@pytest.mark.parametrize(
    "name",
    [
        "curves.png",
        "..%2Feqm.json",
        "%2e%2e%2f%2e%2e%2foutside.png",
        "1.png",
        "latest.png.txt",
        "2.png",
    ],
)
def test_pictures_name_no_paths(client, tmp_path, name):
    folder = make_run(tmp_path / "runs" / "a", {"images": 1})
    put_picture(tmp_path / "outside.png")
    put_picture(folder / "pictures" / "curves.png")
    (folder / "pictures" / "1.png").symlink_to(tmp_path / "outside.png")
    (folder / "pictures" / "2.png").write_text("no picture")
    assert client.get(f"/v1/runs/a/samples/{name}").status_code == 404


def test_links_of_a_run_that_lead_out_are_not_read(client, tmp_path):
    outside = make_run(tmp_path / "outside", SECRET, training={"images": 424242, "secret": 424242})
    put_picture(outside / "pictures" / "latest.png")
    folder = make_run(tmp_path / "runs" / "a")
    for name in ("log.jsonl", "config.json", "pictures"):
        (folder / name).symlink_to(outside / name)
    assert by_id(client)["a"] == {
        "id": "a",
        "object": "eqm.run",
        **dict.fromkeys(("total", "loss", "images_per_second", "seconds_left", "changed")),
        "state": "waiting",
        "images": 0,
        "samples": 0,
    }
    assert client.get("/v1/runs/a/log").json()["lines"] == []
    assert client.get("/v1/runs/a").json()["settings"] == {}
    assert client.get("/v1/runs/a/samples").json()["data"] == []


def test_pipes_and_huge_files_are_not_read(client, tmp_path):
    folder = make_run(tmp_path / "runs" / "a")
    os.mkfifo(folder / "log.jsonl")
    os.mkfifo(folder / "config.json")
    assert by_id(client)["a"]["state"] == "waiting"
    (folder / "log.jsonl").unlink()
    with (folder / "log.jsonl").open("wb") as file:
        file.truncate(1 << 30)
    answer = client.get("/v1/runs/a/log")
    assert answer.status_code == 413
    assert "at most" in answer.text
    (folder / "pictures").mkdir()
    with (folder / "pictures" / "7.png").open("wb") as file:
        file.truncate(1 << 30)
    assert client.get("/v1/runs/a/samples/7.png").status_code == 413
