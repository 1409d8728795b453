"""The model card, README.md, written beside saved weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eqm.files import replacing
from eqm.schema import read_json
from eqm.tensor_files import open_tensors

_MARK = "<!-- Written by eqm. Remove this line to keep your own changes. -->"


def write_card(folder: Path, where: str) -> None:
    """Returns nothing; writes the README.md of the model saved in `folder`, loaded from `where`.

    A README.md without the mark of eqm is left as it is.
    """
    path = folder / "README.md"
    before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else _MARK
    if _MARK not in before:
        return
    description = read_json(folder / "config.json", dict[str, Any])
    with open_tensors(folder / "model.safetensors") as file:
        parameters = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    header = ["library_name: eqm"]
    licence = str(description["metadata"].get("license", ""))  # of the model, not of its data
    if re.fullmatch(r"[A-Za-z0-9.-]+", licence):
        header.append(f"license: {licence.lower()}")
    header.append("tags: [equilibrium-matching, generative-model]")
    facts = [
        f"- **{name}:** {' '.join(text.split())}" for name, text in _facts(description, parameters)
    ]
    own = "" if description["architecture"] else ", network=YOUR_MODULE"
    lines = [
        *("---", *header, "---", _MARK, f"# {Path(where).name}", ""),
        "An equilibrium matching model (EqM, [arXiv 2510.02300](https://arxiv.org/abs/2510.02300)).",
        *("", *facts, "", "```python"),
        "from eqm.models import from_pretrained",
        "from eqm.tasks import generate",
        f"samples = generate(from_pretrained({where!r}{own}), count=16).x",
        "```",
    ]
    text = "\n".join(lines) + "\n"
    if text != before:
        with replacing(path) as card:
            card.write_text(text, encoding="utf-8")


def _facts(description: Mapping[str, Any], parameters: int) -> Iterator[tuple[str, str]]:
    network, metadata = description["network"], description["metadata"]
    data, training = _part(metadata, "data"), _part(metadata, "training")
    architecture = description["architecture"] or description["class"]
    energy = description["energy"]
    kind = "" if energy == "implicit" else f", explicit energy ({energy})"
    yield "Network", f"{architecture}, {parameters:,} parameters{kind}"
    if "shape" in network:
        yield "Sample", " x ".join(map(str, network["shape"]))
    if classes := network.get("num_classes"):
        called = data.get("classes")
        called = list(map(str, called)) if isinstance(called, list) else []
        more = ", ..." if len(called) > 12 else ""
        yield "Classes", f"{classes}" + (f": {', '.join(called[:12])}{more}" if called else "")
    if data:
        about = _settings(data, "images", "license")
        encoder = _part(data, "encoder").get("name")
        yield (
            "Data",
            f"{data.get('name')}; {about}" + (f"; latents of {encoder}" if encoder else ""),
        )
    if training:
        names = ("images_seen", "batch_size", "optimizer.name", "optimizer.learning_rate")
        yield "Training", _settings(training, *names, "objective.decay", "objective.scale")
    if "best" in metadata:
        yield "val_loss", str(metadata["best"])
    if tuning := _part(metadata, "tuning"):
        yield "Measured", _settings(tuning, "distance", "features", "samples", "reference")
    if sampling := _part(metadata, "sampling"):
        yield "Sampling", _settings(sampling, "rule", "step_size", "path_length", "guidance")


def _settings(values: Mapping[str, Any], *names: str) -> str:
    return ", ".join(f"{name} {values[name]}" for name in names if values.get(name) is not None)


def _part(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = metadata.get(name)
    return found if isinstance(found, dict) else {}
