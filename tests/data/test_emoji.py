"""Emoji with captions: packages as npm has them, but small, drawn into tars and read again."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from dataclasses import replace

import pytest
import torch
from PIL import Image

from eqm.cli.main import main
from eqm.data import DataConfig, MissingDataError, emoji, emoji_download, open_source
from eqm.randomness import SampleRandom

CODES = [f"1f{number:03x}" for number in range(0x300, 0x318)]


def package(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def icon_set(colour):
    """Squares of one colour in the middle of a transparent icon."""
    square = {"body": f'<path fill="{colour}" d="M8 8h16v16H8z"/>'}
    chars = {f"{code}-fe0f": code for code in CODES} | {"1f1e6": "letter", "1f3f3": "turned"}
    icons = dict.fromkeys(CODES, square) | {"letter": square}
    turned = {"turned": {"parent": CODES[0], "rotate": 1}}
    about = {"icons": icons, "aliases": turned, "width": 32, "height": 32}
    return package(
        {"icons.json": json.dumps(about).encode(), "chars.json": json.dumps(chars).encode()}
    )


def names():
    entries = [
        {"hexcode": code.upper(), "label": f"thing {code}", "tags": ["thing", "odd"], "subgroup": 0}
        for code in CODES
    ]
    entries += [
        {"hexcode": "1F1E6", "label": "letter", "tags": []},  # no subgroup
        {"hexcode": "1F3F4", "label": "flag", "tags": [], "subgroup": 1},
    ]
    groups = [{"order": 0, "key": "things"}, {"order": 1, "key": "country-flag"}]
    return package(
        {
            "en/data.json": json.dumps(entries).encode(),
            "en/messages.json": json.dumps({"subgroups": groups}).encode(),
        }
    )


def webps():
    page = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    page.paste((255, 0, 255, 255), (64, 64, 192, 192))
    buffer = io.BytesIO()
    page.save(buffer, "WEBP", lossless=True)
    return package({f"assets/{code}.webp": buffer.getvalue() for code in CODES[:12]})


@pytest.fixture
def npm(monkeypatch, tmp_path):
    """Packages of 24 emoji; EQM_DATA is an empty folder."""
    monkeypatch.setenv("EQM_DATA", str(tmp_path))
    colours = {"noto": "#f00", "twemoji": "#0f0", "openmoji": "#00f", "fluent": "#000"}
    content = {style: icon_set(colour) for style, colour in colours.items()} | {"3d": webps()}
    served = {}

    def known(about, data):
        served[about.url] = data
        return replace(about, sha256=hashlib.sha256(data).hexdigest())

    styles = {style: known(about, content[style]) for style, about in emoji_download.STYLES.items()}
    monkeypatch.setattr(emoji_download, "STYLES", styles)
    monkeypatch.setattr(emoji_download, "NAMES", known(emoji_download.NAMES, names()))
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO(served[url]))
    return served


def first(source):
    return source.batch(torch.arange(len(source)), SampleRandom(0, torch.arange(len(source))))


def test_emoji_are_drawn_on_white_with_captions(npm, capsys):
    with pytest.raises(MissingDataError, match="eqm data download emoji"):
        open_source(DataConfig("emoji"))
    assert main(["data", "download", "emoji"]) == 0
    assert "108 emoji" in capsys.readouterr().out  # 4 x 24 + 12: no letter, no flag, nothing turned
    source = open_source(DataConfig("emoji", size=32, split="all", labels_from="style"))
    assert len(source) == 108
    assert source.shape == (3, 32, 32)
    assert "CC-BY-SA-4.0 (openmoji)" in source.metadata["license"]
    pictures = first(source)
    assert (pictures[:, :, 2, 2] == 1).all()
    centre = {"noto": (1, -1, -1), "twemoji": (-1, 1, -1), "openmoji": (-1, -1, 1)}
    centre |= {"fluent": (-1, -1, -1), "3d": (1, -1, 1)}
    for row, captions in enumerate(source.captions):
        style = source.class_names[source.labels[row]]
        assert tuple(pictures[row, :, 16, 16].tolist()) == centre[style]
        assert captions[0].startswith(f"{style}: thing 1f3")
        assert captions[0].endswith(", odd")
        assert len(set(captions)) == 4


def test_held_out_pairs_are_of_known_emoji_in_known_styles(npm):
    emoji_download.download_emoji(emoji.emoji_folder(), say=lambda sentence: None)

    def pairs(split):
        return [captions[1] for captions in open_source(DataConfig("emoji", split=split)).captions]

    train, test = pairs("train"), pairs("test")
    assert len(set(train) | set(test)) == len(train) + len(test) == 108
    seen = Counter(caption.partition(": ")[2] for caption in train)
    held = Counter(caption.partition(": ")[2] for caption in test)
    assert 2 <= len(test) <= 16
    assert max(held.values()) == 1  # one style at most of an emoji
    assert all(seen[name] >= 3 for name in held)
    assert {caption.partition(":")[0] for caption in train} == set(emoji_download.STYLES)


def test_the_choice_of_held_out_pairs_never_changes():
    styles = {
        code: list(emoji_download.STYLES)
        for code in ("1f431", "1f436", "1f600", "1f34e", "2764", "1f697")
    }
    styles["1f34e"] = ["noto", "3d"]
    assert sorted(emoji_download.held_out(styles)) == [
        ("fluent", "1f431"),
        ("noto", "1f600"),
    ]  # by sha256sum


def test_a_changed_or_missing_package_is_refused(npm, monkeypatch):
    about = replace(emoji_download.NAMES, sha256="0" * 64)
    with pytest.raises(ValueError, match="must have the SHA-256 0000"):
        emoji_download.fetch(about)

    def fails(url, timeout):
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib.request.urlopen", fails)
    with pytest.raises(ValueError, match=r"cannot fetch https://registry.*timed out"):
        emoji_download.fetch(about)


def test_wrong_settings_and_damaged_tars_are_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EQM_DATA", str(tmp_path))
    (tmp_path / "emoji").mkdir()
    (tmp_path / "emoji" / "train.tar").write_bytes(b"no tar at all")
    for settings, error in (
        ({}, "cannot read"),
        ({"split": "val"}, "splits train, test and all"),
        ({"labels_from": "cls"}, "style, name, code, group"),
    ):
        with pytest.raises(ValueError, match=error):
            open_source(DataConfig("emoji", **settings))
    assert main(["data", "download", "faces"]) == 2
    assert "emoji" in capsys.readouterr().err


def test_captions_say_style_name_and_what_else_is_known():
    assert (
        emoji.caption("3d", "red apple", ["apple", "fruit", "red fruit"]) == "3d: red apple, fruit"
    )
    assert emoji.caption("noto", "cat", []) == "noto: cat"
