"""The image endpoints in OpenAI's form, for the clients that speak it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from eqm.descent import Solution
from eqm.sampling.labels import chosen_labels, label_number
from eqm.sampling.model import Model, describe
from eqm.sampling.settings import Sampling
from eqm.schema import convert, parse_json
from eqm.serving.http import answers, schemas
from eqm.serving.http.answers import Running, Work, label_names
from eqm.serving.http.events import Event
from eqm.serving.http.limits import Limits
from eqm.serving.http.pictures import png, read_pictures
from eqm.serving.http.uses import composing, restoring, sampling_of
from eqm.serving.models import Served
from eqm.tasks import Composition, Inpaint, Operator, generate, restore

WHOLE_NUMBERS = ("n", "seed", "partial_images", "output_compression")


def check_form(ask: schemas.ImageAsk) -> None:
    """Raises ValueError for formats that this server does not have."""
    if ask.response_format not in (None, "b64_json"):
        raise ValueError(
            f"response_format must be b64_json, as this server keeps no pictures; got {ask.response_format!r}"
        )
    if ask.output_format not in (None, "png"):
        raise ValueError(f"output_format must be png; got {ask.output_format!r}")


def scale_of(size: str | None, shape: Sequence[int]) -> int:
    """How many times the sides of the model's pictures the sides of a size such as 56x56 are.

    Raises ValueError for a size that is no whole multiple."""
    _, height, width = shape
    if size in (None, "auto"):
        return 1
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", str(size))
    across, down = (int(found[1]), int(found[2])) if found else (0, 0)
    scale = across // width
    if not scale or (across, down) != (scale * width, scale * height):
        raise ValueError(
            f"size must be {width}x{height} or a whole multiple such as {4 * width}x{4 * height}, or "
            f"auto; got {size!r}"
        )
    return scale


def plan_generation(ask: schemas.ImageAsk, limits: Limits, served: Served) -> Work:
    """The work of `/v1/images/generations`."""
    count = _count(ask, limits, served)
    sampling = sampling_of(served, ask.sampling, limits)
    prompt, info = ask.prompt.strip(), describe(served.model)
    if prompt and not info.sentence and not _is_class(served.model, prompt):
        return composing(served, prompt, count=count, seed=ask.seed, sampling=sampling)
    if prompt and info.num_classes is None:
        raise ValueError("prompt must be empty: this model has no classes")
    labels = chosen_labels(served.model, prompt or None, count)
    return Work(
        generate,
        (labels,),
        {"count": count, "seed": ask.seed, "sampling": sampling},
        range(ask.seed, ask.seed + count),
        label_names(served, labels, count, prompt),
        len(sampling.multistep_coefficients) or sampling.max_steps,
        moments=1 + (ask.partial_images or 0),
    )


def plan_edit(
    ask: schemas.ImageAsk, image: bytes, mask: bytes | None, limits: Limits, served: Served
) -> Work:
    """The work of `/v1/images/edits`: the transparent pixels of the mask are drawn anew."""
    if served.encoder.name != "pixels":
        raise ValueError(f"edits take models of pixels; {served.name} is a model of latents")
    count = _count(ask, limits, served)
    sampling = sampling_of(served, ask.sampling, limits)
    channels, *sides = served.image_shape
    which = "image" if mask is None else "mask"
    alpha = read_pictures(
        [image if mask is None else mask], (4, *sides), limits=limits, resize=None, name=which
    ).images[0, 3]
    missing = alpha < 0
    if missing.all() or not missing.any():
        found = "everywhere" if missing.all() else "nowhere"
        raise ValueError(
            f"{which} must be transparent where the picture is to be drawn anew, and only there; it is "
            f"transparent {found}"
        )
    given = read_pictures([image], (channels, *sides), limits=limits, resize=None, name="image")
    operator = Inpaint((~missing).float())
    y = operator(given.images)
    prompt, labels = ask.prompt.strip(), None
    use: Callable[..., Solution] = restore
    if prompt and (describe(served.model).sentence or _is_class(served.model, prompt)):
        labels = chosen_labels(served.model, prompt, 1)
    elif prompt:
        Composition.of(served.model, prompt, sampling=sampling)  # refuses what the model lacks
        use = partial(_restore_composition, expression=prompt)
    work = restoring(
        served, y, operator, labels,
        count=count, seed=ask.seed, sampling=sampling, notes=given.notes, use=use,
    )  # fmt: skip
    return replace(work, moments=1 + (ask.partial_images or 0))


def images_of(ask: schemas.ImageAsk, running: Running, solution: Solution) -> schemas.Images:
    """The answer in OpenAI's form."""
    served = running.served
    scale = scale_of(ask.size, served.image_shape)
    _, height, width = served.image_shape
    pictures = answers.decoded(served, solution.x)
    return schemas.Images(
        created=running.created,
        data=[
            schemas.Image(
                b64_json=png(picture, scale),
                revised_prompt=running.work.labels[k],
                seed=running.work.seeds[k],
                outcome=solution.outcome[k].value,
                sentence=solution.outcome[k].sentence,
            )
            for k, picture in enumerate(pictures)
        ],
        size=f"{width * scale}x{height * scale}",
        notes=list(running.work.notes),
    )


def openai_events(ask: schemas.ImageAsk, running: Running, kind: str, event: Event) -> Event | None:
    """A native event as OpenAI's clients know it: a partial or a completed image, or an error."""
    name, data = event
    _, height, width = running.served.image_shape
    about = {
        "created_at": running.created,
        "size": f"{width}x{height}",
        "quality": "auto",
        "background": "opaque",
        "output_format": "png",
    }
    if name == "progress" and data["samples"]:
        first = data["samples"][0]
        share = first.steps / max(1, first.max_steps)
        count = ask.partial_images or 0
        index = min(max(0, round(share * (1 + count)) - 1), max(0, count - 1))  # from 0
        name = f"{kind}.partial_image"
        return name, about | {
            "type": name,
            "b64_json": first.b64_json,
            "partial_image_index": index,
        }
    if name == "sample":
        name = f"{kind}.completed"
        none = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        usage = none | {"input_tokens_details": {"image_tokens": 0, "text_tokens": 0}}
        found = {"type": name, "b64_json": data.b64_json, "usage": usage, "seed": data.seed}
        return name, about | found
    return event if name == "error" else None


def ask_of_form(form: Mapping[str, Any]) -> schemas.ImageAsk:
    """The request in the text fields of a form. Raises ValueError for wrong values."""
    found: dict[str, Any] = {}
    for name, text in form.items():
        if name in WHOLE_NUMBERS and re.fullmatch(r"-?\d{1,20}", text):
            found[name] = int(text)
        elif name == "deadline":
            found[name] = _number(text)
        elif name == "stream":
            found[name] = {"true": True, "false": False}.get(text.lower(), text)
        elif name == "sampling":
            found[name] = parse_json(text, dict[str, Any], "sampling")
        else:
            found[name] = text
    ask: schemas.ImageAsk = convert(found, schemas.ImageAsk)
    return ask


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _count(ask: schemas.ImageAsk, limits: Limits, served: Served) -> int:
    check_form(ask)
    count = 1 if ask.n is None else ask.n
    limits.check_count("n", count)
    scale = scale_of(ask.size, served.image_shape)
    _, height, width = served.image_shape
    limits.check_answer(count, height * scale, width * scale)
    if ask.stream and scale > 1:
        raise ValueError(
            "size must be that of the model, or auto, in a stream: leave one of them out"
        )
    return count


def _is_class(model: Model, prompt: str) -> bool:
    """Whether a prompt is one class. Raises ValueError for a model without classes."""
    if describe(model).num_classes == 0:
        raise ValueError("prompt must be empty: this model was trained without classes")
    try:
        label_number(model, prompt)
    except ValueError:
        if not re.search(r"[-+*:~]", prompt):
            raise
        return False
    return True


def _restore_composition(
    model: Model,
    measurement: Tensor,
    operator: Operator,
    labels: None,
    *,
    expression: str,
    sampling: Sampling,
    **settings: Any,
) -> Solution:
    """`restore` with the field of an expression."""
    field = Composition.of(model, expression, sampling=sampling)
    return restore(field, measurement, operator, sampling=sampling, **settings)
