"""Fetches emoji from npm packages and draws them once, for `eqm.data.emoji`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eqm.data.emoji import caption
from eqm.files import make_folder, replacing

SIDE = 64
"""Pixels of a side of the pictures that are stored."""
LEFT_OUT = ("country-flag", "subdivision-flag", "skin-tone", "hair-style")
"""Unicode's subgroups of which no emoji is taken; of the others, the one without a skin tone."""


@dataclass(frozen=True)
class Package:
    """A package of registry.npmjs.org."""

    url: str
    sha256: str
    licence: str
    author: str


NPM = "https://registry.npmjs.org/"
STYLES: Mapping[str, Package] = {
    "noto": Package(
        f"{NPM}@iconify-json/noto/-/noto-1.2.9.tgz",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0",
        "Google, Noto Emoji",
    ),
    "twemoji": Package(
        f"{NPM}@iconify-json/twemoji/-/twemoji-1.2.5.tgz",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "CC-BY-4.0",
        "Twitter and contributors, Twemoji",
    ),
    "openmoji": Package(
        f"{NPM}@iconify-json/openmoji/-/openmoji-1.2.29.tgz",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
        "CC-BY-SA-4.0",
        "OpenMoji, HfG Schwäbisch Gmünd",
    ),
    "fluent": Package(
        f"{NPM}@iconify-json/fluent-emoji-flat/-/fluent-emoji-flat-1.2.6.tgz",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
        "Microsoft, Fluent Emoji (flat)",
    ),
    "3d": Package(
        f"{NPM}@lobehub/fluent-emoji-3d/-/fluent-emoji-3d-1.1.0.tgz",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "MIT",
        "Microsoft, Fluent Emoji (3D), packed by LobeHub",
    ),
}
"""The styles, by the word that a caption begins with."""
NAMES = Package(
    f"{NPM}emojibase-data/-/emojibase-data-17.0.0.tgz",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    "MIT",
    "Miles Johnson, Emojibase",
)
"""Names and keywords of the emoji, in English."""


@dataclass(frozen=True)
class Emoji:
    """One emoji of Unicode."""

    code: str
    """Its code points, such as 1f431, without variation selectors."""
    name: str
    """Its name, such as `cat face`."""
    keywords: tuple[str, ...]
    group: str
    """Unicode's subgroup, such as `animal-mammal`."""


def held_out(styles: Mapping[str, list[str]]) -> set[tuple[str, str]]:
    """Pairs (style, code) that training never sees, of the `styles` of each code.

    It is one style of every third emoji that has four or five. The choice depends on the names alone.
    """

    def number(text: str) -> int:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    chosen = [code for code, known in styles.items() if len(known) > 3 and number(code) % 3 == 0]
    return {
        (min(styles[code], key=lambda style: number(f"{style} {code}")), code) for code in chosen
    }


def download_emoji(folder: Path, *, say: Callable[[str], object] = print) -> Path:
    """Returns `folder`, with train.tar and test.tar: pictures of 64x64 on white, a .txt with the caption and
    a .json with style, name, code, group and keywords beside each, and LICENCES.md.

    Fetches six packages, 30 MB, from registry.npmjs.org and checks each with its SHA-256. `say` gets a
    sentence now and then. Raises ValueError where a package cannot be fetched or is not the expected one,
    and where resvg-py is missing.
    """
    try:
        import resvg_py  # noqa: F401
    except ImportError as error:
        raise ValueError("drawing emoji needs resvg-py: pip install 'eqm[data]'") from error
    make_folder(folder)
    say(f"fetching names from {NAMES.url}")
    known = {emoji.code: emoji for emoji in _named(fetch(NAMES))}
    drawn: dict[str, dict[str, bytes]] = {}
    for style, package in STYLES.items():
        say(f"fetching {style} from {package.url}")
        archive = fetch(package)
        found = _webps(archive) if style == "3d" else _svgs(archive)
        drawn[style] = {code: draw() for code, draw in found if code in known}
        say(f"drew {len(drawn[style]):,} emoji")
    styles = defaultdict(list)
    for style, pictures in drawn.items():
        for code in pictures:
            styles[code].append(style)
    apart = held_out(styles)
    pairs = [(style, code) for code in known for style in styles[code]]
    for split, wanted in (("test", True), ("train", False)):  # train.tar is what a reader looks for
        with replacing(folder / f"{split}.tar") as path, tarfile.open(path, "w") as tar:
            for style, code in pairs:
                if ((style, code) in apart) == wanted:
                    _add(tar, style, known[code], drawn[style][code])
    (folder / "LICENCES.md").write_text(licences(), encoding="utf-8")
    say(f"{len(pairs):,} emoji, {len(apart):,} of them held out, are in {folder}")
    return folder


def licences() -> str:
    """A table of the sources and their licences, in Markdown."""
    rows = [(style, each) for style, each in STYLES.items()] + [("names and keywords", NAMES)]
    lines = [f"| {what} | {each.author} | {each.licence} | <{each.url}> |" for what, each in rows]
    return "\n".join(["| what | by | licence | package |", "|---|---|---|---|", *lines, ""])


def fetch(package: Package) -> dict[str, bytes]:
    """The files of a package by name. Raises ValueError as `download_emoji` does."""
    try:
        with urllib.request.urlopen(package.url, timeout=60) as answer:
            content = answer.read()
    except (OSError, urllib.error.URLError) as error:
        raise ValueError(f"cannot fetch {package.url} ({error}): try again later") from error
    if (found := hashlib.sha256(content).hexdigest()) != package.sha256:
        raise ValueError(
            f"{package.url} must have the SHA-256 {package.sha256}; got {found}: it was changed or cut short; "
            "try again"
        )
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        members = [member for member in tar if member.isfile()]
        return {
            member.name.partition("/")[2]: tar.extractfile(member).read()  # type: ignore[union-attr]
            for member in members
        }


def _named(files: Mapping[str, bytes]) -> Iterator[Emoji]:
    """The emoji of Emojibase, without variants by skin tone, and without LEFT_OUT."""
    messages = json.loads(files["en/messages.json"])
    groups = {entry["order"]: entry["key"] for entry in messages["subgroups"]}
    for entry in json.loads(files["en/data.json"]):
        group = groups.get(entry.get("subgroup"), LEFT_OUT[0])  # letters of flags have none
        if group not in LEFT_OUT:
            keywords = tuple(entry.get("tags") or ())
            yield Emoji(_plain(entry["hexcode"]), entry["label"], keywords, group)


def _plain(code: str) -> str:
    """Code points in lower case, without the variation selector that packages write or not."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


Drawings = Iterator[tuple[str, Callable[[], bytes]]]
"""Code points, and a function that returns the picture as PNG."""


def _svgs(files: Mapping[str, bytes]) -> Drawings:
    """The emoji of a set of Iconify."""
    icons = json.loads(files["icons.json"])
    for code, name in json.loads(files["chars.json"]).items():
        if icon := _icon(icons, name):
            yield _plain(code), partial(_drawn, _svg(icon))


def _icon(icons: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The icon of that name with its sides, or None; an alias that turns another icon is none."""
    alias = icons.get("aliases", {}).get(name)
    if alias is not None:
        return _icon(icons, alias["parent"]) if set(alias) <= {"parent"} else None
    icon = icons["icons"].get(name)
    sides = {key: icons.get(key, 16) for key in ("width", "height")}
    return None if icon is None else {"left": 0, "top": 0, **sides, **icon}


def _svg(icon: Mapping[str, Any]) -> str:
    box = f"{icon['left']} {icon['top']} {icon['width']} {icon['height']}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'


def _drawn(svg: str) -> bytes:
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE, skip_system_fonts=True)
    return _on_white(bytes(png))


def _webps(files: Mapping[str, bytes]) -> Drawings:
    """The emoji of a package with a picture for each, named by its code points."""
    for name, content in files.items():
        if name.endswith(".webp"):
            yield _plain(Path(name).stem), partial(_on_white, content)


def _on_white(content: bytes) -> bytes:
    """The picture as PNG of SIDE x SIDE on white."""
    from PIL import Image

    picture = Image.open(io.BytesIO(content)).convert("RGBA")
    page = Image.new("RGB", picture.size, "white")
    page.paste(picture, mask=picture.getchannel("A"))
    if page.size != (SIDE, SIDE):
        page = page.resize((SIDE, SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, style: str, emoji: Emoji, picture: bytes) -> None:
    """Adds a sample to a tar in the layout of WebDataset."""
    about = {
        "style": style,
        "name": emoji.name,
        "keywords": list(emoji.keywords),
        "code": emoji.code,
        "group": emoji.group,
    }
    texts = {"txt": caption(style, emoji.name, emoji.keywords), "json": json.dumps(about)}
    for ending, content in {"png": picture, **{k: v.encode() for k, v in texts.items()}}.items():
        member = tarfile.TarInfo(f"{style}-{emoji.code}.{ending}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
