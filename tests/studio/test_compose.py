"""The panel that composes classes, with the model fashion-mnist."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from eqm.models import from_pretrained
from eqm.pictures import to_uint8
from eqm.tasks import compose
from eqm.tasks.expressions import parse

EXPRESSIONS = [
    *("7", "7 + 0.5*3 - 1", "-boot", "'T-shirt'", '"it\'s" - none', "2*3", "0.5*left*'a b'"),
    *(
        "~left*3 + a:7",
        "007",
        "1e-3*.5*x*3.",
        "",
        "7 -",
        "7 8",
        "~3",
        "2*",
        "*3",
        "7 + + 3",
        "7 ? 3",
    ),
    *("1e999*3", "'boot", "+ 7", "é*3", "a:b:c", "left*2*~right*4"),
]


@pytest.fixture
def panel(clothes, page):
    page.goto(f"{clothes}/#compose")
    page.get_by_label("Where").nth(1).wait_for()
    return page


def run(page):
    page.get_by_role("button", name="Compose", exact=True).click()
    page.get_by_role("status").get_by_text("The compositions are ready.").wait_for()


def test_the_page_reads_expressions_as_the_library_does(panel):
    found = panel.evaluate(
        """async (texts) => {
            const { parse, format } = await import("/expressions.js");
            return texts.map((text) => {
                try { const terms = parse(text); return { terms, text: format(terms) }; }
                catch (error) { return { error: error.message }; }
            });
        }""",
        EXPRESSIONS,
    )
    for text, read in zip(EXPRESSIONS, found, strict=True):
        try:
            terms = parse(text)
        except ValueError as error:
            place = str(error).partition("at position ")[2].partition(";")[0]
            assert f"at position {place};" in read["error"]
            continue
        assert parse(read["text"]) == terms
        for term, each in zip(terms, read["terms"], strict=True):
            assert term.weight == (-1 if each["sign"] == "-" else 1) * each["weight"]
            assert list(term.masks) == each["masks"]
            label = "none" if term.label is None else str(term.label)
            assert (term.model, label) == (each["model"], each["label"])


def test_rows_and_text_follow_each_other(panel):
    text, weights = panel.get_by_label("As text"), panel.get_by_label("Weight")
    text.fill("dress - 0.5*left*'T-shirt'")
    assert panel.get_by_label("Sign").nth(1).input_value() == "-"
    assert weights.nth(1).input_value() == "0.5"
    assert panel.get_by_label("Class", exact=True).nth(1).input_value() == "T-shirt"
    assert panel.get_by_label("Where").nth(1).input_value() == "left"
    panel.get_by_label("Class", exact=True).nth(0).select_option("bag")
    weights.nth(0).fill("2")
    panel.get_by_label("Where").nth(0).select_option("new painted mask")
    assert text.input_value() == "2*painted*bag - 0.5*left*'T-shirt'"
    panel.get_by_role("heading", name="Mask painted").wait_for()
    panel.get_by_role("button", name="Remove bag").click()
    assert text.input_value() == "-0.5*left*'T-shirt'"

    text.fill("0.333*bag")
    assert panel.get_by_label("Weight").input_value() == "0.333"
    text.fill("7 8")
    error = "Expected +, - or the end at position 3; got “8”."
    assert panel.get_by_role("status").get_by_text(error).is_visible()
    assert text.get_attribute("aria-invalid") == "true"


def test_a_mask_is_painted_by_mouse_and_keyboard_and_decides_where(panel, pixels):
    panel.get_by_label("As text").fill("face*trouser + ~face*bag")
    panel.get_by_label("Number of pictures").fill("1")
    canvas = panel.get_by_role("application", name="Mask face")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    size = box["width"] / 28

    def at(column, row):
        return box["x"] + (column + 0.5) * size, box["y"] + (row + 0.5) * size

    panel.mouse.move(*at(4, 5))
    panel.mouse.down()
    panel.mouse.move(*at(12, 5))
    panel.mouse.up()
    panel.get_by_label("Brush").fill("1")
    canvas.focus()
    panel.keyboard.press("ArrowDown")  # from the middle
    panel.keyboard.press("Shift+ArrowRight")
    panel.keyboard.press("Shift+ArrowRight")
    panel.get_by_text("Row 16, column 17: painted.").wait_for()
    expected = np.zeros((28, 28))
    rows, columns = np.mgrid[:28, :28]
    for column in range(4, 13):  # a round brush of 5 pixels
        expected[(rows - 5) ** 2 + (columns - column) ** 2 <= 2.5**2] = 1
    expected[15, 15:17] = 1

    with panel.expect_request(lambda request: "face*trouser" in (request.post_data or "")) as sent:
        run(panel)
    with Image.open(
        io.BytesIO(base64.b64decode(sent.value.post_data_json["masks"]["face"]))
    ) as png:
        assert (np.asarray(png.convert("L")) == 255 * expected).all()
    model = from_pretrained("fashion-mnist")
    mask = torch.from_numpy(expected).float()
    alone = [compose(model, label, count=1).x for label in ("trouser", "bag")]
    whole = compose(model, "face*trouser + ~face*bag", masks={"face": mask}, count=1).x
    assert "energy change -" in panel.locator(".film").first.inner_text()
    shown = pixels(panel.locator(".comparison canvas")).astype(int)
    assert np.abs(shown - to_uint8(torch.cat([whole, *alone]))).max() <= 1


def test_an_unknown_class_is_said_in_one_sentence(panel):
    panel.expected.append("400")
    panel.get_by_label("As text").fill("boot + hat")
    panel.get_by_role("button", name="Compose", exact=True).click()
    panel.get_by_role("alert").get_by_text("there is no class").wait_for()
