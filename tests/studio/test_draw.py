"""The panel that draws pictures, with the model fashion-mnist."""

import json
import re
import time

import numpy as np
import pytest
from PIL import Image

from eqm.models import from_pretrained
from eqm.pictures import to_uint8
from eqm.registry import names
from eqm.sampling import Sampling
from eqm.sampling.start import starting_noise
from eqm.tasks import generate, vary


@pytest.fixture
def panel(clothes, page):
    page.goto(f"{clothes}/#draw")
    page.get_by_text("all classes in turn").wait_for()
    return page


def begin(page):
    page.get_by_role("button", name="Draw", exact=True).click()


def draw(page):
    begin(page)
    page.get_by_role("status").get_by_text("ready.").wait_for()


def own_steps(page, **settings):
    page.locator("summary", has_text="How it descends").click()
    page.get_by_label("Steps", exact=True).select_option("own")
    page.get_by_label("Rule").select_option("gradient-descent")
    for label, value in settings.items():
        page.get_by_label(label.replace("_", " ")).fill(str(value))


def test_pictures_are_those_of_the_library_from_noise_to_their_own_ends(panel, pixels):
    for name in ("boot", "T-shirt"):
        panel.get_by_role("checkbox", name=name).check()
    panel.get_by_label("Number of pictures").fill("3")
    panel.get_by_label("Seed", exact=True).fill("7")
    panel.get_by_label("Guidance").fill("2")
    own_steps(panel, Step_size=0.04, Path_length=1.6, Stop_early_below=0.2)
    draw(panel)

    model = from_pretrained("fashion-mnist")
    sampling = Sampling.of(model.metadata).but(
        rule="gradient-descent", step_size=0.04, path_length=1.6, gradient_ratio=0.2, guidance=2.0
    )
    ends = generate(model, ["T-shirt", "boot", "T-shirt"], seed=7, sampling=sampling)
    assert len(set(ends.steps.tolist())) > 1
    films = panel.locator(".film")
    assert films.locator("strong").all_inner_texts() == ["T-shirt", "boot", "T-shirt"]
    outcomes = films.locator(".film-outcome").all_inner_texts()
    assert outcomes == [f"stopped after {steps} steps" for steps in ends.steps.tolist()]
    norms = [re.search(r"norm ([\d.]+)", each)[1] for each in films.all_inner_texts()]
    assert np.array(norms, float) == pytest.approx(ends.gradient_norm.numpy(), rel=0.006)
    assert np.abs(pixels(films.locator("canvas")).astype(int) - to_uint8(ends.x)).max() <= 1

    panel.get_by_role("button", name="Rewind").click()
    noise = to_uint8(starting_noise((1, 28, 28), seeds=[7, 8, 9]).clamp(-1, 1))
    assert np.abs(pixels(films.locator("canvas")).astype(int) - noise).max() <= 1
    panel.get_by_role("button", name="Step on").click()
    assert films.locator(".film-outcome").all_inner_texts() == ["step 1"] * 3


def test_the_first_picture_is_there_within_three_seconds(panel):
    began = time.monotonic()
    begin(panel)
    panel.locator(".film-outcome").filter(has_text="step").first.wait_for()
    assert time.monotonic() - began < 3


def test_a_path_plays_pauses_and_moves_by_the_keyboard(panel):
    panel.emulate_media(reduced_motion="no-preference")
    panel.get_by_label("Number of pictures").fill("1")
    own_steps(panel, Step_size=0.04, Path_length=2, Stop_early_below=0)
    begin(panel)
    place = panel.locator(".player output").first
    panel.get_by_role("button", name="Pause").click()
    paused = place.inner_text()
    panel.get_by_role("status").get_by_text("ready.").wait_for()
    assert int(paused.split()[1]) < 45
    assert place.inner_text().split()[1] == paused.split()[1]
    panel.get_by_label("Place on the path").first.focus()
    panel.keyboard.press("End")
    panel.get_by_text("stopped after 50 steps").wait_for()
    panel.keyboard.press("Home")
    assert place.inner_text() == "step 0 of 50"
    panel.get_by_role("button", name="Play").click()
    panel.get_by_role("button", name="Play again").wait_for()
    assert place.inner_text() == "step 50 of 50"


def test_files_hold_the_pictures_the_path_and_the_seeds(panel, pixels, tmp_path):
    panel.get_by_label("Number of pictures").fill("2")
    panel.get_by_label("Seed", exact=True).fill("3")
    draw(panel)
    shown = pixels(panel.locator(".film canvas"))

    def saved(name, tool=panel):
        with panel.expect_download() as download:
            tool.get_by_role("button", name=name).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    with Image.open(saved("Save paths (GIF)")) as film:
        assert film.n_frames == 9  # the noise, and 8 fitted steps
        film.seek(8)
        last = np.asarray(film.convert("RGB"))
    with Image.open(saved("Save sheet (PNG)")) as sheet:
        whole = np.asarray(sheet.convert("RGB"))
    for found in (last, whole):
        assert found.shape == (120, 236, 3)  # 4 times as large, with lines of 4 pixels
        assert (found[4:116:4, 4:116:4] == shown[0]).all()
        assert (found[4:116:4, 120:232:4] == shown[1]).all()
    seeds = json.loads(saved("Save seeds (JSON)").read_text())
    assert seeds["request"] == {
        "model": "fashion-mnist",
        "labels": ["T-shirt", "trouser"],
        "count": 2,
        "seed": 3,
        "sampling": {},
    }
    assert [each["seed"] for each in seeds["samples"]] == [3, 4]


def test_a_picture_is_varied(panel, pixels):
    panel.get_by_role("checkbox", name="bag").check()
    panel.get_by_label("Number of pictures").fill("1")
    draw(panel)
    panel.get_by_role("button", name="details and variations").click()
    panel.get_by_role("heading", name="bag, seed 0").wait_for()
    panel.get_by_label("Number of variations").fill("2")
    panel.get_by_label("Strength").fill("0.3")
    panel.get_by_role("button", name="Draw variations").click()
    panel.get_by_role("status").get_by_text("2 variations are ready.").wait_for()
    model = from_pretrained("fashion-mnist")
    image = generate(model, "bag", count=1).x.clamp(-1, 1)
    expected = to_uint8(vary(model, image, "bag", strength=0.3, count=2, seed=1).x).astype(int)
    films = panel.locator(".film").filter(has_text="variation")
    # the picture that is varied was rounded to 256 values
    assert np.abs(pixels(films.locator("canvas")) - expected).mean() < 1


def test_cancel_keeps_what_is_there_and_the_next_seeds_follow(panel):
    panel.get_by_label("Number of pictures").fill("2")
    own_steps(panel, Step_size=0.001, Path_length=2)
    begin(panel)
    panel.get_by_text("of 2000").first.wait_for()
    panel.get_by_role("button", name="Cancel").first.click()
    panel.get_by_text("Cancelled. Pictures stay where they were.").wait_for()
    assert panel.locator(".film-outcome", has_text="cancelled at step").count() == 2
    panel.get_by_label("Step size").fill("0.1")
    panel.get_by_role("button", name="Again with the next seeds").click()
    panel.get_by_role("status").get_by_text("2 pictures ready.").wait_for()
    assert panel.locator(".film .muted").all_inner_texts() == ["seed 2", "seed 3"]


def test_leaving_the_panel_ends_the_work_of_the_server(panel, clothes):
    def filled():
        metrics = panel.request.get(f"{clothes}/metrics").text()
        return int(float(re.search(r"^eqm_slots_filled{.*} (.*)$", metrics, re.M)[1]))

    panel.get_by_label("Number of pictures").fill("3")
    own_steps(panel, Step_size=0.001, Path_length=2)
    begin(panel)
    panel.get_by_text("of 2000").first.wait_for()
    assert filled() == 3
    panel.get_by_role("tab", name="Train").click()
    deadline = time.monotonic() + 10
    while filled() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert filled() == 0


def test_wrong_settings_are_said_in_one_sentence(panel):
    panel.expected.append("400")
    panel.get_by_label("Number of pictures").fill("")
    begin(panel)
    panel.get_by_text(
        "The number of pictures must be a whole number from 1 to 64; got nothing."
    ).wait_for()
    panel.get_by_label("Number of pictures").fill("1")
    own_steps(panel, Step_size=3, Path_length=2)
    begin(panel)
    panel.get_by_role("alert").get_by_text("step_size must not exceed path_length").wait_for()


def test_every_offered_rule_is_registered(panel):
    panel.locator("summary", has_text="How it descends").click()
    panel.get_by_label("Steps", exact=True).select_option("own")
    offered = panel.get_by_label("Rule").locator("option").all_inner_texts()
    assert len(offered) > 5
    assert set(offered) <= set(names("rule"))


@pytest.mark.parametrize("panel", ["draw", "compose", "repair"])
def test_panels_fit_into_400_pixels_and_name_their_fields(clothes, page, panel):
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(f"{clothes}/#{panel}")
    page.get_by_role("button", name=panel.capitalize(), exact=True).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    fields = page.locator(f"#panel-{panel} :is(input, select, textarea)")
    assert fields.count() > 5
    assert fields.evaluate_all("fields => fields.filter(f => !f.labels.length).length") == 0
