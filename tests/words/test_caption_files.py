"""Captions beside pictures, in tables, tars and parquet."""

import io
import json
import tarfile

import pytest
from PIL import Image

from eqm.data import DataConfig, captions_of, open_source

TEXTS = ["a red cat", "a blue hat", "a green dog"]


def png():
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "png")
    return content.getvalue()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    for k in range(3):
        (path / f"{k}.png").write_bytes(png())
    return path


def read(path, captions="auto"):
    return captions_of(open_source(DataConfig(str(path), captions=captions)))


def test_texts_beside_pictures_have_one_caption_a_line_and_may_be_missing(folder):
    (folder / "0.txt").write_text("a red cat\n\na cat, red\n")
    (folder / "1.txt").write_text(TEXTS[1])
    assert read(folder) == (("a red cat", "a cat, red"), ("a blue hat",), ())


@pytest.mark.parametrize(
    ("captions", "column"), [("auto", "text"), ("metadata.csv:words", "words")]
)
def test_a_table_names_pictures(folder, captions, column):
    rows = [f'{k}.png,"{text}"' for k, text in enumerate(TEXTS)]
    (folder / "metadata.csv").write_text("\n".join([f"file_name,{column}", *rows]))
    assert read(folder, captions) == tuple((text,) for text in TEXTS)


def test_a_tar_as_img2dataset_writes_it(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for k, text in enumerate(TEXTS):
            about = json.dumps({"caption": text, "url": "x", "key": k}).encode()
            for ending, content in (("png", png()), ("txt", text.encode()), ("json", about)):
                member = tarfile.TarInfo(f"{k:05}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert read(tmp_path / "0.tar") == tuple((text,) for text in TEXTS)


def test_a_column_of_parquet_may_hold_several_captions(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = [{"bytes": png(), "path": None}] * 2
    table = pa.table(
        {"image": images, "caption": [["a cat", "a pet"], ["a hat"]], "note": ["x", "y"]}
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == (("a cat", "a pet"), ("a hat",))
    assert read(tmp_path / "a.parquet", "note") == (("x",), ("y",))


def test_two_places_that_differ_are_asked_about(folder):
    for k, text in enumerate(TEXTS):
        (folder / f"{k}.txt").write_text(text)
        (folder / f"{k}.json").write_text(json.dumps({"caption": "another"}))
    with pytest.raises(ValueError, match="from txt and from json:caption differ"):
        read(folder)
    assert read(folder, "json:caption")[0] == ("another",)


@pytest.mark.parametrize("captions", ["auto", "txt", "labels.csv"])
def test_no_captions_are_one_sentence(folder, captions):
    with pytest.raises(ValueError, match="has no captions"):
        read(folder, captions)
