"""The panel that watches training runs, in a browser."""

import base64
import json
import os
import time
from contextlib import closing

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'eqm[serve]'")

import torch
from fastapi import FastAPI

from eqm.files import lock_folder
from eqm.pictures import picture
from eqm.studio.routes import add_studio

TRAINING = {
    "images": 1000,
    "batch_size": 100,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.25,
    "objective.decay": "truncated",
    "objective.energy": "dot",
    "data.path": "digits",
}


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def studio(serve, runs):
    app = FastAPI()
    app.state.runs = runs
    app.get("/v1/models")(lambda: {"object": "list", "data": []})
    add_studio(app)
    return serve(app)


def make_run(folder, *lines):
    folder.mkdir(parents=True)
    (folder / "eqm.json").write_text('{"format": "eqm-run"}')
    add(folder, *lines)
    return folder


def add(folder, *lines):
    with (folder / "log.jsonl").open("a") as file:
        file.writelines(
            line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines
        )


def line(images, loss, **more):
    return {
        "images": images,
        "loss": loss,
        "images_per_second": 50.0,
        "learning_rate": 0.25,
        **more,
    }


def tile(page, name):
    return page.locator(".tiles div", has=page.get_by_text(name, exact=True)).locator("dd")


def test_a_run_is_watched_while_it_goes_on(studio, page, runs):
    page.goto(f"{studio}/#train")
    page.get_by_text("There is no run in the folder yet").wait_for()
    folder = make_run(runs / "first", line(100, 4.0), '{"images": 200, "lo')
    with closing(lock_folder(folder)):
        chosen = page.locator('.run-item[aria-pressed="true"]')
        chosen.get_by_text("first").wait_for()
        chosen.get_by_text("running").wait_for()
        tile(page, "Loss").get_by_text("4", exact=True).wait_for()
        page.get_by_text("the end is known after the first checkpoint").wait_for()
        add(
            folder,
            'ss": 3.0}\n',
            "damaged\n",
            line(300, 2.0, **{"val_loss": 2.5, "val_loss/0.50": 2.5}),
        )
        (folder / "config.json").write_text(json.dumps({"metadata": {"training": TRAINING}}))
        tile(page, "Loss").get_by_text("2", exact=True).wait_for()
        tile(page, "Lowest validation loss").get_by_text("2.5", exact=True).wait_for()
        page.get_by_text("300 of 1,000 images seen, 30.0 %, about 14 seconds left").wait_for()
        page.get_by_text("digits, 1,000 images, batches of 100, adamw").wait_for()
        assert page.get_by_role("img", name="Validation loss by gamma").is_visible()
        loss = page.get_by_role("img", name="Loss. each line: from 4 to 2;")
        assert "validation: from 2.5 to 2.5" in loss.locator("title").text_content()
        add(folder, line(1000, 1.0))
    page.locator(".state").get_by_text("complete").wait_for()
    assert "first: Complete." in page.locator("#status").text_content()
    make_run(runs / "second")
    page.locator(".run-item", has_text="second").get_by_text("waiting").wait_for()


def test_a_run_without_new_lines_gives_no_time_left(studio, page, runs):
    folder = make_run(runs / "paused", line(100, 4.0))
    (folder / "config.json").write_text(json.dumps({"metadata": {"training": TRAINING}}))
    os.utime(folder / "log.jsonl", (time.time() - 7200,) * 2)
    with closing(lock_folder(folder)):
        page.goto(f"{studio}/#train")
        page.get_by_text("10.0 %, no new line for 2.0 hours: it may be paused").wait_for()


def test_a_log_that_begins_again_is_read_again(studio, page, runs):
    folder = make_run(runs / "again", line(100, 4.0), line(200, 3.0))
    page.goto(f"{studio}/#train")
    tile(page, "Loss").get_by_text("3", exact=True).wait_for()
    page.locator(".run-item").get_by_text("stopped").wait_for()
    (folder / "new").write_text(
        json.dumps(line(100, 8.0)) + "\n" + json.dumps(line(150, 7.0)) + "\n"
    )
    (folder / "new").replace(folder / "log.jsonl")
    tile(page, "Loss").get_by_text("7", exact=True).wait_for()
    page.get_by_role("img", name="Loss. each line: from 8 to 7;").wait_for()


def test_samples_over_time_by_keyboard(studio, page, runs):
    folder = make_run(runs / "a", line(100, 4.0))
    (folder / "pictures").mkdir()
    for images in (100, 200, 300):
        colour = torch.full((3, 8, 8), images / 300)
        picture(colour).save(folder / "pictures" / f"{images:09d}.png")
    page.goto(f"{studio}/#train")
    sheet = page.get_by_role("img", name="A sheet of pictures that the model drew after")

    def shown():
        return base64.b64decode(sheet.get_attribute("src").partition(",")[2])

    page.get_by_text("Samples after 300 images.").wait_for()
    assert shown() == (folder / "pictures" / "000000300.png").read_bytes()
    page.get_by_role("slider", name="Samples after").press("ArrowLeft")
    page.get_by_text("Samples after 200 images.").wait_for()
    assert shown() == (folder / "pictures" / "000000200.png").read_bytes()


def test_a_server_without_a_folder_says_what_to_do(serve, page):
    app = FastAPI()
    app.get("/v1/models")(lambda: {"object": "list", "data": []})
    add_studio(app)
    page.goto(f"{serve(app)}/#train")
    page.get_by_text("This server watches no runs.").wait_for()
