"""The panel Landscape: its mathematics against eqm, its words, its handles, and the training behind it."""

import json
import time

import httpx
import pytest
import torch

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'eqm[serve]'")

from fastapi import FastAPI

import eqm
from eqm import descent
from eqm.registry import make
from eqm.studio import landscape
from eqm.studio.routes import add_studio

POINTS = torch.tensor([[2.1, 0.9], [-0.3, 2.1], [-2.2, 0.5], [-1.2, -1.8], [1.4, -1.7]]).double()
PLACES = torch.cat(
    [
        torch.randn(30, 2, generator=torch.Generator().manual_seed(1)),
        torch.tensor([[3.3, 3.3], [-3.4, 0.0], [0.1, 0.0], [2.11, 0.9], [2.1, 0.902], [9.0, -4.0]]),
    ]
).double()


@pytest.fixture(scope="module")
def studio(serve):
    app = FastAPI()
    app.get("/v1/models")(lambda: {"data": []})
    add_studio(app)
    return serve(app)


@pytest.fixture
def panel(studio, page):
    page.goto(f"{studio}/#landscape")
    page.locator("#panel-landscape[data-ready]").wait_for()
    return page


@pytest.fixture
def bare(studio, page):
    """A page with nothing on it, which can import the modules."""
    html = "<link rel=icon href=icon.svg>"
    page.route("**/bare", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto(f"{studio}/bare")
    return page


def run(page, code, *values):
    """What a JavaScript function returns; `code` may use all exports of plane.js and rules.js."""
    return page.evaluate(
        "async ([values]) => { const m = {...await import('./plane.js'), ...await import('./rules.js')};"
        f"return ({code})(m, ...values); }}",
        [list(values)],
    )


@pytest.mark.parametrize("name", ["truncated", "linear", "piecewise", "constant"])
def test_the_field_is_the_exact_field(bare, name):
    settings = {"name": name, "scale": 3.0, "start": 0.7, "initial": 1.6}
    gradient = run(
        bare,
        """(m, points, places, settings) => {
            const field = m.exactField(points, settings, {nodes: 65}), out = [0, 0];
            return places.map(([x, y]) => { field(x, y, out); return [...out]; });
        }""",
        *(POINTS.flatten().tolist(), PLACES.tolist(), settings),
    )
    expected = eqm.OptimalField(POINTS, make("decay", name, settings), nodes=4097)(PLACES)
    error = (torch.tensor(gradient) - expected).norm(dim=1) / expected.norm(dim=1)
    assert error.max() < 1e-3


@pytest.mark.parametrize(
    "rule", ["gradient-descent", "nesterov-lookahead", "nesterov", "heavy-ball", "heun"]
)
def test_the_rules_are_those_of_eqm(bare, rule):
    settings = {"step_size": 0.02, "momentum": 0.6}
    ended = run(
        bare,
        """(m, points, places, rule) => {
            const field = m.exactField(points, {name: 'truncated', scale: 4, start: .8}, {nodes: 65});
            const samples = m.samplesAt(places);
            for (let k = 0; k < 25; k++)
                m.advance(samples, field, {rule, stepSize: .02, momentum: .6, stopBelow: 2});
            return [[...samples.x], [...samples.steps], samples.evaluations];
        }""",
        *(POINTS.flatten().tolist(), PLACES[:12].flatten().tolist(), rule),
    )
    expected = eqm.descend(
        eqm.OptimalField(POINTS),
        PLACES[:12],
        rule=make("rule", rule, settings),
        stop=descent.GradientNorm(2),
        max_steps=25,
    )
    torch.testing.assert_close(
        torch.tensor(ended[0]).view(-1, 2), expected.x, atol=1e-3, rtol=0, check_dtype=False
    )
    assert ended[1:] == [expected.steps.tolist(), int(expected.nfe.sum())]


def test_the_map_is_the_energy_of_a_field_that_has_one(bare):
    side = 33
    energy = run(
        bare,
        f"m => [...m.nearestEnergy(m.onGrid((x, y, out) => {{ out[0] = x; out[1] = 3 * y; }}, {side}), {side})]",
    )
    ticks = torch.linspace(-3.4, 3.4, side)
    expected = (ticks.square()[None, :] + 3 * ticks.square()[:, None]) / 2
    torch.testing.assert_close(torch.tensor(energy).view(side, side), expected, atol=0.02, rtol=0)


STORIES = {
    "A good descent": "All 300 samples stopped by themselves, at data",
    "Too large a step": "Overshoot: all 300 samples jump back and forth",
    "Far too large": "All 300 samples diverged",
    "Constant c": "The gradient does not shrink there",
    "Collapse": "Collapse: only",
}


def test_stories_show_and_say_what_happens(panel):
    for story, words in STORIES.items():
        panel.get_by_role("button", name=story).click()
        panel.get_by_role("button", name="To the end").click()
        panel.get_by_role("button", name="Play", exact=True).wait_for()
        assert words in panel.locator(".words").inner_text()
        assert words in panel.locator("#status").inner_text()


def test_the_start_and_the_points_follow_mouse_and_keys(panel):
    text = panel.get_by_text("The start at")
    assert "at 2.6, 2.6 stopped after" in text.inner_text()
    start = panel.get_by_role("button", name="Start at")
    start.focus()
    panel.keyboard.press("Shift+ArrowLeft")
    panel.keyboard.press("ArrowDown")
    assert "at 2.1, 2.5 " in text.inner_text()
    box = start.bounding_box()
    panel.mouse.move(box["x"] + 18, box["y"] + 18)
    panel.mouse.down()
    stage = panel.locator(".stage").bounding_box()
    panel.mouse.move(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 4)
    panel.mouse.up()
    assert "at 0.0, 1.7 " in text.inner_text()

    points = panel.get_by_role("button", name="Data point")
    panel.get_by_role("button", name="Add a point").click()
    assert points.count() == 6
    for _ in range(6):
        points.first.focus()
        panel.keyboard.press("Delete")
    assert points.count() == 1  # the last one stays


def test_every_input_has_a_name_and_the_panel_fits_a_phone(panel):
    inputs = "[...document.querySelectorAll('main input, main select')]"
    assert panel.evaluate(f"{inputs}.every((input) => input.labels.length === 1)")
    panel.set_viewport_size({"width": 400, "height": 800})
    assert panel.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_network_learns_the_points_and_its_map_is_shown(panel, monkeypatch):
    monkeypatch.setattr(landscape, "STEPS", 40)
    panel.get_by_role("button", name="Train a network").click()
    panel.get_by_text("The network has seen 10,240 noisy points").wait_for()
    panel.get_by_text("Its field differs from the exact one by").wait_for()
    panel.get_by_role("button", name="Add a point").click()  # the exact field again
    assert panel.get_by_text("The network has seen").count() == 0


def test_the_learned_field_comes_near_the_exact_one(monkeypatch):
    monkeypatch.setattr(landscape, "STEPS", 320)
    *_, last = landscape.learn(POINTS.float(), eqm.TruncatedDecay(), extent=2.5, side=9)
    ticks = torch.linspace(-2.5, 2.5, 9)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    exact = eqm.OptimalField(POINTS.float())(torch.stack([x, y], -1).view(-1, 2)).view(9, 9, 2)
    assert last.images == last.total == 320 * 256
    assert (last.gradient - exact).norm() < 0.6 * exact.norm()


def test_one_training_at_a_time_and_none_for_a_client_that_left(studio, monkeypatch):
    monkeypatch.setattr(landscape, "STEPS", 20_000)
    monkeypatch.setattr(landscape, "REPORTS", 2_000)
    body = {"points": [[0.0, 1.0], [1.0, 0.0]], "side": 3}
    with httpx.Client(base_url=studio, timeout=20) as client:
        with client.stream("POST", "/studio/landscape", json=body) as first:
            lines = first.iter_lines()
            assert next(lines) == "event: progress"
            progress = json.loads(next(lines).removeprefix("data: "))
            assert progress["total"] == 20_000 * 256
            second = client.post("/studio/landscape", json=body)
            assert second.status_code == 429
            assert second.headers["Retry-After"] == "5"
        monkeypatch.setattr(landscape, "STEPS", 8)
        monkeypatch.setattr(landscape, "REPORTS", 4)
        deadline = time.monotonic() + 15
        while (answer := client.post("/studio/landscape", json=body)).status_code == 429:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert answer.text.count("event: progress") == 3
        assert "event: done" in answer.text
