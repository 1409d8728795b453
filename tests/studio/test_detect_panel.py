"""The panel that finds unusual pictures, in a browser."""

import base64
import io

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'eqm[serve]'")

from fastapi import FastAPI, Request
from PIL import Image

from eqm.studio.routes import add_studio

P_VALUES = {0: 0.001, 100: 0.03, 200: 0.4, 255: 0.5}
"""The p-value that the server gives to a picture of each brightness."""
RATES = [(0.001, 9.0), (0.01, 6.0), (0.05, 3.0), (0.5, 1.0)]


def png(brightness, size=(40, 60)):
    file = io.BytesIO()
    Image.new("RGB", size, (brightness,) * 3).save(file, format="png")
    return file.getvalue()


def file(name, content):
    return {"name": name, "mimeType": "image/png", "buffer": content}


@pytest.fixture
def asked():
    """The pictures that the server was asked about: brightness and size."""
    return []


@pytest.fixture
def studio(serve, asked):
    app = FastAPI()

    def item(name, detector):
        about = {"shape": [1, 28, 28], "num_classes": 10, "detector": detector}
        return {"id": name, "eqm": about}

    @app.get("/v1/models")
    def models():
        return {"object": "list", "data": [item("clothes", True), item("plain", False)]}

    @app.post("/v1/detect")
    async def detect(request: Request):
        body = await request.json()
        assert body["model"] == "clothes"
        results = []
        for text in body["images"]:
            picture = Image.open(io.BytesIO(base64.b64decode(text)))
            red, green, blue, _ = picture.getpixel((14, 14))
            assert red == green == blue
            asked.append((red, picture.size))
            p_value = P_VALUES[red]
            score = None if red == 0 else 1 / p_value
            results.append(
                {"score": score, "p_value": p_value, "anomalous": p_value <= 0.05, "map": text}
            )
        thresholds = [{"fpr": fpr, "threshold": threshold} for fpr, threshold in RATES]
        return {"results": results, "fpr": 0.05, "threshold": 3.0, "thresholds": thresholds}

    add_studio(app)
    return serve(app)


def decisions(page):
    names = page.locator(".verdicts tbody figcaption").all_text_contents()
    return dict(zip(names, page.locator(".verdicts tbody .badge").all_text_contents(), strict=True))


def choose(page, *brightness):
    files = [file(f'{value}",.png', png(value)) for value in brightness]
    page.get_by_label("Your pictures").set_input_files(files)
    page.locator(".verdicts tbody tr").nth(len(brightness) - 1).wait_for()


def test_the_rate_changes_decisions_without_asking_again(studio, page, asked):
    page.goto(f"{studio}/#detect")
    choose(page, 200, 0, 100)
    assert sorted(asked) == [(0, (28, 28)), (100, (28, 28)), (200, (28, 28))]
    assert list(decisions(page).items()) == [
        ('0",.png', "anomalous"),
        ('100",.png', "anomalous"),
        ('200",.png', "normal"),
    ]
    page.locator(
        ".verdict", has_text="2 of 3 pictures are called anomalous, at a false-alarm rate of 5 %"
    ).wait_for()
    rate = page.get_by_role("slider", name="False-alarm rate")
    rate.press("ArrowLeft")
    assert list(decisions(page).values()) == ["anomalous", "normal", "normal"]
    page.locator(
        ".verdict", has_text="at a false-alarm rate of 1 %: those with a score above 6."
    ).wait_for()
    rate.press("End")
    assert list(decisions(page).values()) == ["anomalous"] * 3
    rate.press("Home")
    assert list(decisions(page).values()) == ["anomalous", "normal", "normal"]
    assert len(asked) == 3
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    assert download.value.path().read_text().splitlines() == [
        "picture,score,p_value,anomalous,false_alarm_rate,threshold",
        '"0"",.png",inf,0.001,true,0.001,9',
        f'"100"",.png",{1 / 0.03},0.03,false,0.001,9',
        '"200"",.png",2.5,0.4,false,0.001,9',
    ]


def test_light_and_dark_can_be_swapped(studio, page, asked):
    page.goto(f"{studio}/#detect")
    choose(page, 255)
    assert list(decisions(page).values()) == ["normal"]
    page.get_by_label("Swap light and dark").check()
    page.locator(".verdicts").get_by_text("anomalous").wait_for()
    assert [brightness for brightness, _ in asked] == [255, 0]


def test_the_map_lies_over_the_picture(studio, page):
    page.goto(f"{studio}/#detect")
    choose(page, 100)
    over = page.get_by_role("img", name='Where 100",.png is unusual')
    strength = page.get_by_role("slider", name="Strength of the map")
    for key, opacity in [("End", "1"), ("Home", "0")]:
        strength.press(key)
        assert over.evaluate("image => getComputedStyle(image).opacity") == opacity
    picture = page.get_by_role("img", name='100",.png', exact=True)
    assert over.bounding_box() == picture.bounding_box()


def test_what_is_no_picture_and_a_model_without_detector(studio, page, asked):
    page.goto(f"{studio}/#detect")
    choose(page, 200)
    files = [file("notes.png", b"no picture"), file("good.png", png(100)), file("empty.png", b"")]
    page.get_by_label("Your pictures").set_input_files(files)
    page.get_by_role("alert").get_by_text("notes.png is not a picture").wait_for()
    page.get_by_role("alert").get_by_text("2 files were left out.").wait_for()
    page.get_by_role("img", name="good.png", exact=True).wait_for()
    assert len(asked) == 2
    page.get_by_role("button", name="Remove all").click()
    assert not page.locator(".verdicts").is_visible()
    page.get_by_label("Model", exact=True).select_option("plain")
    page.get_by_text("plain has no detector: choose clothes above, or calibrate one").wait_for()
    assert not page.get_by_label("Your pictures").is_visible()


def test_pictures_can_be_pasted_and_dropped(studio, page):
    page.goto(f"{studio}/#detect")
    page.get_by_label("Your pictures").wait_for()
    give = """([kind, target, text]) => {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
        const event = kind === "paste"
            ? new ClipboardEvent(kind, { clipboardData: data, bubbles: true, cancelable: true })
            : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
        document.querySelector(target).dispatchEvent(event);
    }"""
    for count, (kind, target) in enumerate([("paste", "body"), ("drop", "#panel-detect h1")], 1):
        page.evaluate(give, [kind, target, base64.b64encode(png(100)).decode()])
        page.locator(".verdicts tbody tr").nth(count - 1).wait_for()
    assert sorted(decisions(page)) == ["drop.png", "paste.png"]


def test_pictures_of_the_model_and_unusual_ones(serve, page):
    from eqm.serving.http.app import create_app
    from eqm.serving.models import Models

    with Models(["fashion-mnist"]) as models:
        page.set_default_timeout(30_000)
        page.goto(f"{serve(create_app(models))}/#detect")
        page.get_by_role("button", name="Pictures like the training data").click()
        page.locator(".verdicts tbody tr").nth(5).wait_for()
        page.get_by_role("button", name="Unusual pictures").click()
        page.locator(".verdicts tbody tr").nth(12).wait_for()
    found = decisions(page)
    assert found["noise"] == "anomalous"
    assert [each for name, each in found.items() if "inverted" in name] == ["anomalous"] * 2
    drawn = [each for name, each in found.items() if "drawn" in name]
    assert drawn.count("normal") >= 4
