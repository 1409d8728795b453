"""Every panel, used once: names, contrast, the order of the keyboard, and a narrow window."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'eqm[serve]'")

import torch

from eqm.pictures import picture
from eqm.serving.http.app import create_app
from eqm.serving.models import Models

PANELS = ["landscape", "draw", "compose", "repair", "detect", "train"]
FAULTS = (Path(__file__).parent / "accessibility.js").read_text()
DONE = re.compile(r"\d \w+ in [\d.]+ s|pictures are called")
"""What a panel says at the end of its work."""
INTERACTIVE = {
    *(
        "button",
        "checkbox",
        "combobox",
        "link",
        "listbox",
        "menuitem",
        "radio",
        "searchbox",
        "slider",
    ),
    *("spinbutton", "switch", "tab", "textbox", "DisclosureTriangle"),
}
"""Roles in Chromium's accessibility tree that need a name."""


@pytest.fixture(scope="module")
def studio(serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    (folder / "pictures").mkdir(parents=True)
    (folder / "eqm.json").write_text('{"format": "eqm-run"}')
    lines = [
        {
            "images": 100 * k,
            "loss": 1 / k,
            "val_loss": 1 / k,
            "val_loss/0.25": 1 / k,
            "val_loss/0.75": 2 / k,
        }
        for k in range(1, 9)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    training = {"images": 800, "batch_size": 100, "data.path": "digits"}
    (folder / "config.json").write_text(json.dumps({"metadata": {"training": training}}))
    for images in (400, 800):
        picture(torch.zeros(3, 16, 32)).save(folder / "pictures" / f"{images:09d}.png")
    with Models(["fashion-mnist"]) as models:
        yield serve(create_app(models, runs=folder.parent))


def show(page, studio, panel):
    """Opens a panel and waits until it is complete."""
    page.goto(f"{studio}/#{panel}")
    page.locator(f"#panel-{panel}:not([aria-busy]) h1").wait_for()
    page.locator("#model-facts", has_text="28 × 28").wait_for()
    last = {"train": "Samples after 800 images.", "repair": "A sample of fashion-mnist"}.get(panel)
    if last:
        page.locator(f"#panel-{panel}").get_by_text(last).wait_for()


def use(page, studio, panel):
    """Opens a panel, presses its main button and waits for the end."""
    show(page, studio, panel)
    main = page.locator(f"#panel-{panel} button.main:visible").first
    if panel in ("draw", "compose", "repair", "detect"):
        main.click()
        page.locator(f"#panel-{panel} :is(img, canvas):visible").first.wait_for()
        page.locator(f"#panel-{panel} p", has_text=DONE).first.wait_for()


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_is_usable_by_everyone(studio, page, panel):
    page.set_default_timeout(30_000)
    use(page, studio, panel)
    for details in page.locator("details:visible").all():
        details.evaluate("each => { each.open = true; }")
    faults = []
    for width in (1200, 400):
        page.set_viewport_size({"width": width, "height": 900})
        for theme in ("light", "dark"):
            page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
            faults += [f"{width} pixels, {theme}: {fault}" for fault in page.evaluate(FAULTS)]
    assert not faults, "\n".join(faults)
    assert nameless(page) == []


def nameless(page):
    """The controls and pictures without a name, in the tree that screen readers get."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in nodes if not node["ignored"]]
    assert any(node["role"]["value"] == "tab" for node in found)
    return [
        (node["role"]["value"], node["nodeId"])
        for node in found
        if node["role"]["value"] in {*INTERACTIVE, "image"}
        and not node.get("name", {}).get("value")
    ]


@pytest.mark.parametrize("panel", PANELS)
def test_the_keyboard_reaches_every_control_in_order(studio, page, panel):
    show(page, studio, panel)
    wanted = page.evaluate(
        """() => {
            const all = document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]");
            const open = [...all].filter((each) => each.tabIndex >= 0 && !each.disabled && each.checkVisibility());
            open.forEach((each, k) => { each.dataset.place = k; });
            return open.length;
        }"""
    )
    reached, marks = [], []
    for _ in range(wanted + 2):
        page.keyboard.press("Tab")
        place, mark = page.evaluate(
            """() => {
                const at = document.activeElement, style = getComputedStyle(at);
                return [at.dataset.place ?? null, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
            }"""
        )
        if place is None or place in reached:
            break
        reached.append(place)
        marks.append(mark)
    assert reached == [str(k) for k in range(wanted)]
    assert all(marks)


def test_the_checks_find_faults(page):
    page.set_content(
        """<h1>One</h1><h3 id="a" style="color: #999">Three</h3><p id="a" style="width: 3000px">wide</p>
        <button aria-labelledby="b" style="min-height: 0; padding: 0; border: 0; height: 9px"></button>
        <img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" width="9" height="9"><a role="tab" href="#">tab</a>"""
    )
    found = " ".join(page.evaluate(FAULTS))
    for fault in [
        "contrast of its text is 2.8",
        "leaves out a level",
        "id a is there twice",
        "names b, which is missing",
        "edge has a contrast",
        "smaller than 24 pixels",
        "scrolls to the side",
    ]:
        assert fault in found
    assert [role for role, _ in nameless(page)] == ["button", "image"]
