"""OpenAI's form: its own client works against the server."""

import base64
import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def openai(client):
    package = pytest.importorskip("openai", reason="openai is not installed: pip install openai")
    return package.OpenAI(base_url="http://localhost/v1", api_key="any", http_client=client)


def pixels(image):
    return np.array(Image.open(io.BytesIO(base64.b64decode(image.b64_json)))).astype(int)


def png(values):
    found = io.BytesIO()
    Image.fromarray(values).save(found, "png")
    return found.getvalue()


def test_models_are_listed(openai):
    assert [model.id for model in openai.models.list()] == ["bowl", "plain"]
    assert openai.models.retrieve("bowl").id == "bowl"


def test_a_prompt_is_a_class(openai):
    found = openai.images.generate(model="bowl", prompt="Light", n=2, size="16x16")
    assert len(found.data) == 2
    assert pixels(found.data[0]).shape == (16, 16)
    assert np.median(pixels(found.data[0])) == 191  # 0.5 of -1..1


def test_a_prompt_is_an_expression(openai):
    found = openai.images.generate(model="bowl", prompt="left*light + ~left*dark")
    assert np.median(pixels(found.data[0])[:, :4]) == 191
    assert np.median(pixels(found.data[0])[:, 4:]) == 64


def test_the_prompt_of_a_model_without_classes_is_empty(openai):
    import openai as package

    assert len(openai.images.generate(model="plain", prompt="").data) == 1
    with pytest.raises(package.BadRequestError, match="prompt must be empty"):
        openai.images.generate(model="plain", prompt="dark")


def test_an_edit_draws_transparent_pixels_anew(openai):
    picture = png(np.full((8, 8), 200, np.uint8))
    mask = np.full((8, 8, 4), 255, np.uint8)
    mask[:, 4:, 3] = 0
    found = openai.images.edit(
        model="bowl", image=("a.png", picture), mask=("m.png", png(mask)), prompt="dark", n=2
    )
    for image in found.data:
        assert (pixels(image)[:, :4] == 200).all()
        assert abs(np.median(pixels(image)[:, 4:]) - 64) < 40
    own = np.full((8, 8, 4), 200, np.uint8)
    own[:, :, 3] = 255
    own[:4, :, 3] = 0
    alone = openai.images.edit(
        model="bowl", image=("a.png", png(own)), prompt="left*dark + ~left*dark"
    )
    assert (pixels(alone.data[0])[4:] == 200).all()


def test_a_stream_ends_with_the_picture(openai):
    stream = openai.images.generate(model="bowl", prompt="dark", stream=True, partial_images=1)
    last = list(stream)[-1]
    assert last.type == "image_generation.completed"
    assert np.median(pixels(last)) == 64


@pytest.mark.parametrize("most", [0, 1, 3])
@pytest.mark.parametrize("use", ["generate", "edit"])
def test_a_stream_has_no_more_previews_than_were_asked_for(openai, use, most):
    own = np.zeros((8, 8, 4), np.uint8)
    own[:4, :, 3] = 255
    given = {"image": ("a.png", png(own))} if use == "edit" else {}
    stream = getattr(openai.images, use)(
        model="bowl", prompt="dark", stream=True, partial_images=most, **given
    )
    *previews, last = stream
    assert last.type.endswith("completed")
    numbers = [each.partial_image_index for each in previews]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(most))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt": "blak"}, "no class"),
        ({"prompt": "dark +"}, "expected"),
        ({"prompt": "dark", "size": "9x9"}, "size"),
        ({"prompt": "dark", "response_format": "url"}, "b64_json"),
        ({"prompt": "dark", "n": 0}, "n must"),
        ({"prompt": "dark", "size": "80000x80000"}, "pixels"),
    ],
)
def test_wrong_values_are_refused(openai, settings, said):
    import openai as package

    with pytest.raises(package.BadRequestError, match=said):
        openai.images.generate(model="bowl", **settings)


def test_unknown_models_are_not_found(openai):
    import openai as package

    with pytest.raises(package.NotFoundError, match="there is no model"):
        openai.images.generate(model="dall-e-3", prompt="dark")


@pytest.mark.parametrize(
    ("files", "texts", "said"),
    [
        ({}, {"prompt": "x"}, "multipart"),
        ({"mask": b"x"}, {}, "image is missing"),
        ({"image": b"x"}, {}, "cannot be read"),
        ({"image": b"x", "other": b"y"}, {}, "other"),
        ({"image": png(np.full((8, 8), 200, np.uint8))}, {}, "transparent nowhere"),
        ({"image": b"x"}, {"n": "many"}, "n must"),
        ({"image": b"x"}, {"image": "y"}, "image"),
    ],
)
def test_wrong_forms_are_refused(client, files, texts, said):
    answer = client.post("/v1/images/edits", files=files or None, data={"model": "bowl", **texts})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
