"""Labels beside pictures: right, refused or said, in folders, zips and tars."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqm.data import DataConfig
from eqm.data.archives import folder
from eqm.data.open_source import files_at


def labels_of(path, **settings):
    """The class of each picture by name, as far as there are classes, and the notes."""
    files = files_at(DataConfig(str(path), workers=1, **settings))
    notes = " ".join(files.notes)
    if files.labels is None:
        return None, notes
    named = [files.class_names[k] for k in files.labels.tolist()]
    return dict(zip(files.names, named, strict=True)), notes


def text(value):
    return json.dumps(value).encode()


def table(rows, *, separator=",", encoding="utf-8"):
    file = io.StringIO()
    csv.writer(file, delimiter=separator).writerows(rows)
    return file.getvalue().encode(encoding)


CHUNKS = ("00000/img00000000.png", "00000/img00000001.png", "00001/img00000002.png")


def test_a_dataset_json_has_the_labels_and_its_folders_are_no_classes(tmp_path, pack, drawn):
    labels = text({"labels": [[CHUNKS[2], 0], [CHUNKS[0], 1], [CHUNKS[1], 0]]})
    path = pack(tmp_path / "a", {**drawn(*CHUNKS), "dataset.json": labels})
    found, notes = labels_of(path)
    assert found == dict(zip(CHUNKS, "100", strict=True))
    assert "the labels are those of dataset.json" in notes
    none = pack(tmp_path / "b", {**drawn(*CHUNKS), "dataset.json": text({"labels": None})})
    found, notes = labels_of(none)
    assert found is None
    assert "dataset.json says that there are no labels" in notes


def labelled(columns, labels, names=("a.png", "b.png", "c.png"), **how):
    """A table of names and labels."""
    return table([columns, *zip(names, labels, strict=True)], **how)


RECORDS = [
    {"image": f"{name}.png", "category": word} for name, word in zip("abc", "xyy", strict=True)
]
TABLES = [
    ("dataset.json", text({"labels": [["a.png", 0], ["b.png", 1], ["c.png", 0]]}), "010"),
    ("dataset.json", text({"labels": {"a.png": 0, "b.png": 1, "c.png": 0}}), "010"),
    (
        "dataset.json",
        b"\xef\xbb\xbf" + text({"labels": [["./a.png", 1], ["b.png", 0], ["c.png", 0]]}),
        "100",
    ),
    ("metadata.csv", labelled(("file_name", "label"), "xyx"), "xyx"),
    ("metadata.csv", labelled(("file_name", "label"), "101"), "101"),
    ("metadata.csv", labelled(("File Name", "Label"), ("0.0", "1.0", "0.0")), "010"),
    (
        "metadata.tsv",
        labelled(("label", "file"), ("a.png", "b.png", "c.png"), "xyx", separator="\t"),
        "xyx",
    ),
    (
        "metadata.csv",
        labelled(("file_name", "label"), "xyx", separator=";", encoding="utf-8-sig"),
        "xyx",
    ),
    (
        "labels.csv",
        labelled(("id", "Class Name"), "xyx", "abc", separator="\t", encoding="utf-16"),
        "xyx",
    ),
    (
        "metadata.jsonl",
        b'{"file_name": "a.png", "label": 1}\n\n{"file_name": "b.png", "label": 0}\r\n'
        b'{"file_name": "c.png", "label": 0}',
        "100",
    ),
    ("labels.json", text(RECORDS), "xyy"),
]


@pytest.mark.parametrize(("name", "content", "expected"), TABLES)
def test_tables_of_names_and_labels_are_read(tmp_path, pack, name, content, expected, drawn):
    for at in ("", "pets/"):  # names are those below the folder of the table
        names = [f"{at}{k}.png" for k in "abc"]
        path = pack(tmp_path / f"data{len(at)}", {**drawn(*names), f"{at}{name}": content})
        found, notes = labels_of(path)
        assert found == dict(zip(names, expected, strict=True))
        assert f"the labels are those of {name}: " in notes
        assert labels_of(path, labels=False)[0] is None


def test_each_split_has_its_own_table(tmp_path, pack, drawn):
    files = drawn("train/0.png", "train/1.png", "test/0.png", "test/1.png")
    files["train/metadata.csv"] = table([("file_name", "label"), ("0.png", "x"), ("1.png", "y")])
    files["test/metadata.csv"] = table([("file_name", "label"), ("0.png", "y"), ("1.png", "x")])
    path = pack(tmp_path / "a", files)
    assert labels_of(path)[0] == {"train/0.png": "x", "train/1.png": "y"}
    assert labels_of(path, split="test")[0] == {"test/0.png": "y", "test/1.png": "x"}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "dataset.json",
            text({"labels": [["a.png", 0]]}),
            "1 of 2 pictures have no label in dataset.json, .* b.png",
        ),
        (
            "dataset.json",
            text({"labels": [["a.png", 0.5], ["b.png", 1]]}),
            "dataset.json must be .* a word; got 0.5",
        ),
        (
            "dataset.json",
            text({"labels": [["a.png", [1, 0]], ["b.png", [0, 1]]]}),
            "must be a whole number or a word",
        ),
        (
            "dataset.json",
            text({"labels": [["a.png", True], ["b.png", False]]}),
            "must be a whole number or a word",
        ),
        (
            "dataset.json",
            text({"labels": [["a.png", 0], ["a.png", 1], ["b.png", 1]]}),
            "two labels for a.png: 0 and 1",
        ),
        (
            "dataset.json",
            text({"labels": [["a.png", -1], ["b.png", 0]]}),
            "labels must lie in 0..999,999; got -1",
        ),
        (
            "dataset.json",
            text({"labels": [["a.png", 10**20], ["b.png", 0]]}),
            "labels must lie in 0..999,999",
        ),
        ("dataset.json", b'{"labels": [', "dataset.json must be JSON"),
        ("dataset.json", b"\xff\xfe\0", "dataset.json must be JSON"),
        ("dataset.json", b"[" * 100_000, "dataset.json must be JSON"),
        (
            "metadata.csv",
            b"file_name,label\na.png,\nb.png,x",
            "1 of 2 pictures have no label in metadata.csv",
        ),
        (
            "metadata.csv",
            b"file_name,label\na.png,x",
            "1 of 2 pictures have no label in metadata.csv",
        ),
        (
            "metadata.csv",
            b"file_name,label,class\na.png,x,y\nb.png,y,y",
            "has labels in label, class, which differ",
        ),
        ("metadata.csv", b"file_name,label\na.png,\xe9", "metadata.csv must be text in UTF-8"),
        (
            "metadata.csv",
            b'file_name,label\n"' + b"x" * 200_000,
            "metadata.csv is no readable table",
        ),
        ("metadata.jsonl", b'{"file_name": "a.png"', "metadata.jsonl must be JSON"),
        ("a.cls", b"cat", "the label in a.cls must be a whole number; got 'cat'"),
        (
            "a.cls",
            b"1",
            "1 of 2 pictures have no label in a .cls file, the first is b.png: add a .cls for each",
        ),
        ("a.json", text({"label": True}), "the label in a.json must be a whole number or a word"),
        (
            "a.json",
            text({"label": 0}),
            "1 of 2 pictures have no label in a .json file, the first is b.png",
        ),
    ],
)
def test_labels_that_are_damaged_or_missing_are_refused(
    tmp_path, pack, name, content, sentence, drawn
):
    path = pack(tmp_path / "data", {**drawn("a.png", "b.png"), name: content})
    with pytest.raises(ValueError, match=sentence):
        labels_of(path)
    assert labels_of(path, labels=False)[0] is None


@pytest.mark.parametrize("ending", ["cls", "CLS", "cls2", "Cls"])
def test_class_files_beside_pictures_are_read_in_any_case(tmp_path, pack, ending, drawn):
    files = drawn("0.png", "1.JPG", "2.png")
    files |= {f"{k}.{ending}": f" {k % 2}\n".encode() for k in range(3)}
    found, notes = labels_of(pack(tmp_path / "a", files))
    assert found == {"0.png": "0", "1.JPG": "1", "2.png": "0"}
    assert (".cls2" in notes or "of cls2" in notes) == (ending == "cls2")


def test_json_beside_pictures_may_have_words_and_other_keys(tmp_path, pack, drawn):
    files = drawn("0.png", "1.png") | {f"{k}.json": text({"label": w}) for k, w in enumerate("xy")}
    assert labels_of(pack(tmp_path / "a", files))[0] == {"0.png": "x", "1.png": "y"}
    files |= {f"{k}.json": text({"breed": w}) for k, w in enumerate("yx")}
    path = pack(tmp_path / "b", files)
    found, notes = labels_of(path)
    assert found is None
    assert (
        "the .json files beside pictures are not read: if they hold labels, set data.labels_from"
        in notes
    )
    assert labels_of(path, labels_from="json:breed")[0] == {"0.png": "y", "1.png": "x"}


def test_places_that_disagree_are_refused_and_an_option_decides(tmp_path, pack, drawn):
    names = ("cat/0.png", "dog/1.png", "dog/2.png")
    files = drawn(*names) | {
        "metadata.csv": table([("file_name", "label"), *zip(names, "xxy", strict=True)])
    }
    path = pack(tmp_path / "a", files)
    with pytest.raises(
        ValueError,
        match="metadata.csv and from folders differ, first for dog/1.png: set",
    ):
        labels_of(path)
    assert set(labels_of(path, labels_from="folders")[0].values()) == {"cat", "dog"}
    assert list(labels_of(path, labels_from="metadata.csv")[0].values()) == ["x", "x", "y"]
    assert list(labels_of(path, labels_from="Metadata.csv:Label")[0].values()) == ["x", "x", "y"]
    files = drawn("0.png", "1.png") | {"0.cls": b"0", "1.cls": b"1", "0.cls2": b"0", "1.cls2": b"0"}
    path = pack(tmp_path / "b", files)
    with pytest.raises(ValueError, match="from cls and from cls2 differ"):
        labels_of(path)
    assert list(labels_of(path, labels_from="cls")[0].values()) == ["0", "1"]
    table_of_one = {"metadata.csv": b"file_name,label\na.png,1"}
    other = pack(tmp_path / "c", drawn("a.png", "b.png") | table_of_one)
    for place in ("nowhere.csv", "metadata.csv:colour", "txt", "folders", "names"):
        sentence = "no labels in|no column|no class folders|have no class in their names"
        with pytest.raises(ValueError, match=sentence):
            labels_of(other, labels_from=place)


def test_places_that_agree_give_the_numbers_of_the_files_and_the_names_of_the_folders(
    tmp_path, pack, drawn
):
    names = ("cat/0.png", "dog/1.png")
    beside = {"cat/0.cls": b"1", "dog/1.cls": b"0"}
    files = files_at(DataConfig(str(pack(tmp_path / "a", drawn(*names) | beside))))
    assert files.labels.tolist() == [1, 0]
    assert files.class_names == ("dog", "cat")
    listed = {"dataset.json": text({"labels": [[names[0], 1], [names[1], 0]]})}
    assert labels_of(pack(tmp_path / "b", drawn(*names) | listed))[0] == dict(
        zip(names, ("cat", "dog"), strict=True)
    )


def test_a_list_of_classes_names_the_numbers(tmp_path, pack, drawn):
    files = drawn("0.png", "1.png") | {"0.cls": b"0", "1.cls": b"1"}
    for name, lines in (
        ("classes.txt", "cat\ndog\ncow"),
        ("labels.txt", "0 cat\n1 dog"),
        ("names.txt", "\ufeffcat\r\ndog\r\n"),
    ):
        path = pack(tmp_path / name, files | {name: lines.encode()})
        found, notes = labels_of(path)
        assert found == {"0.png": "cat", "1.png": "dog"}
        assert f"the names of the classes are those of {name}" in notes
    for lines in (b"cat", b"cat\nCat"):
        found, notes = labels_of(pack(tmp_path / f"{len(lines)}", files | {"classes.txt": lines}))
        assert found == {"0.png": "0", "1.png": "1"}
        assert "classes.txt does not name the classes" in notes


def test_a_list_of_classes_names_folders_by_their_numbers(tmp_path, pack, drawn):
    files = drawn(*(f"{k}/0.png" for k in range(12)))
    listed = {"classes.txt": "\n".join(f"kind {k}" for k in range(12)).encode()}
    found, notes = labels_of(pack(tmp_path / "a", files | listed))
    assert found == {f"{k}/0.png": f"kind {k}" for k in range(12)}
    assert (
        "the names of the classes are those of classes.txt: kind 0, kind 1, kind 2 and 9" in notes
    )
    first = drawn("1/0.png", "2/0.png") | {"classes.txt": b"cat\ndog"}
    found, notes = labels_of(pack(tmp_path / "b", first))
    assert found == {"1/0.png": "1", "2/0.png": "2"}
    assert "2 different names and the classes go up to 2" in notes


def test_files_with_labels_that_belong_to_no_picture_or_to_one_twice(tmp_path, pack, drawn):
    found, notes = labels_of(pack(tmp_path / "a", drawn("0.png", "1.png") | {"7.cls": b"0"}))
    assert found is None
    assert "7.cls is not read, as no picture has that name" in notes
    twice = drawn("0.png") | {"0.cls": b"0", "0.CLS": b"1"}
    with pytest.raises(ValueError, match=r"0.C?.*, 0.* belong to one picture: remove one"):
        labels_of(pack(tmp_path / "b", twice))
    rows = [("file_name", "label"), ("0.png", "x"), ("1.png", "y"), ("2.png", "y"), ("9.png", "y")]
    files = drawn("train/0.png", "train/1.png", "test/2.png") | {"labels.csv": table(rows)}
    found, notes = labels_of(pack(tmp_path / "c", files))
    assert found == {"train/0.png": "x", "train/1.png": "y"}
    assert "labels.csv names pictures that are not there (1), 9.png" in notes


def test_a_label_in_a_later_json_file_is_not_overlooked(tmp_path, pack, drawn):
    files = drawn("0.png", "1.png") | {"0.json": text({"x": 1}), "1.json": text({"label": 1})}
    with pytest.raises(ValueError, match="1 of 2 pictures have no label in a .json file"):
        labels_of(pack(tmp_path / "a", files))


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("cat.0.png", "cat.1.png", "dog.0.png", "dog.1.png"), ("cat", "dog")),
        (("0_00001.png", "0_00002.png", "1_00003.png", "1_00004.png"), ("0", "1")),
        (
            ("x/great_shark_1.png", "x/great_shark_2.png", "x/cow (1).png", "x/cow (2).png"),
            ("cow", "great_shark"),
        ),
    ],
)
def test_classes_in_names_are_said_and_read_if_asked(tmp_path, pack, names, classes, drawn):
    path = pack(tmp_path / "a", drawn(*names))
    found, notes = labels_of(path)
    assert found is None
    assert (
        f"the names begin with {', '.join(classes)}: if these are classes, set data.labels_from names"
        in notes
    )
    found, _ = labels_of(path, labels_from="names")
    assert set(found.values()) == set(classes)
    assert all(name.rpartition("/")[2].startswith(kind) for name, kind in found.items())


def test_what_may_hold_labels_and_is_not_read_is_said(tmp_path, pack, drawn):
    train = table([("image_id", "breed"), ("0", "x"), ("1", "y")])
    path = pack(tmp_path / "a", drawn("0.png", "1.png") | {"train.csv": train})
    found, notes = labels_of(path)
    assert found is None
    assert "train.csv is not read: if it holds labels, set data.labels_from" in notes
    with pytest.raises(
        ValueError, match=r"no column `label`, only breed: .* data.labels_from train.csv:COLUMN"
    ):
        labels_of(path, labels_from="train.csv")
    assert labels_of(path, labels_from="train.csv:breed")[0] == {"0.png": "x", "1.png": "y"}
    captions = pack(tmp_path / "b", drawn("0.png", "1.png") | {"0.txt": b"3", "1.txt": b"4"})
    found, notes = labels_of(captions)
    assert found is None
    assert "the .txt files beside pictures are not read" in notes
    assert labels_of(captions, labels_from="txt")[0] == {"0.png": "3", "1.png": "4"}
    metadata = table([("file_name", "text"), ("0.png", "a cat"), ("1.png", "a dog")])
    found, notes = labels_of(
        pack(tmp_path / "c", drawn("0.png", "1.png") | {"metadata.csv": metadata})
    )
    assert found is None
    assert "metadata.csv has no column `label`, only text" in notes


def test_entries_that_lead_elsewhere_name_no_picture(tmp_path, pack, drawn):
    """No entry is opened: it only says which of the pictures that are there it means."""
    rows = [
        ("file_name", "label"),
        ("../0.png", "x"),
        ("/etc/passwd", "x"),
        ("0.png", "y"),
        ("1.png", "z"),
    ]
    path = pack(tmp_path / "a", drawn("0.png", "1.png") | {"metadata.csv": table(rows)})
    assert labels_of(path)[0] == {"0.png": "y", "1.png": "z"}


def test_names_of_files_are_compared_in_one_unicode_form(tmp_path, drawn, packs):
    composed, spread = (
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png",
        "cafe\N{COMBINING ACUTE ACCENT}.png",
    )
    rows = [("file_name", "label"), (composed, "x"), ("1.png", "y")]
    path = packs[1](tmp_path / "a", drawn(spread, "1.png") | {"metadata.csv": table(rows)})
    assert labels_of(path)[0] == {spread: "x", "1.png": "y"}


def test_a_table_of_very_many_bytes_is_refused_before_it_is_read(tmp_path, pack, drawn):
    large = b"file_name,label\n" + b"b.png,y\n" * 600_000  # for one picture
    path = pack(tmp_path / "a", drawn("a.png") | {"metadata.csv": large})
    with pytest.raises(ValueError, match="metadata.csv has more than 4,195,328 bytes: move it"):
        labels_of(path)


@given(
    st.dictionaries(
        st.text("abcdefgh-_.", min_size=1, max_size=6).filter(lambda n: n[0] not in ".~"),
        st.sampled_from(["x", "y", "z"]),
        min_size=2,
        max_size=6,
    ),
    st.booleans(),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_table_gives_each_picture_its_own_label(
    tmp_path_factory, drawn, packs, words, endings, separator, encoding
):
    names = {f"{name}.png": word for name, word in words.items()}
    if len({name.casefold() for name in names}) < len(names):
        return
    rows = [
        ("file_name", "label"),
        *((n if endings else n[:-4], word) for n, word in names.items()),
    ]
    path = tmp_path_factory.mktemp("table")
    packs[0](
        path, drawn(*names) | {"metadata.csv": table(rows, separator=separator, encoding=encoding)}
    )
    files = folder(path, DataConfig(split="all"))
    found = dict(
        zip(files.names, (files.class_names[k] for k in files.labels.tolist()), strict=True)
    )
    assert found == names


def test_shards_pair_only_files_of_one_archive(tmp_path, drawn, packs):
    tmp_path.joinpath("data").mkdir()
    for shard, number in enumerate((b"1", b"0")):
        packs[2](tmp_path / f"data/{shard}", drawn("0.png") | {"0.cls": number})
    files = files_at(DataConfig(str(tmp_path / "data")))
    assert files.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list_attr.txt", b"2\nMale Young\na.png 1 -1\nb.png -1 1\n"),
        ("labels.txt", b"a.png 0\nb.png 1\n"),
        ("train.txt", b"photos/a.png\n"),
        ("labels.XLSX", b"PK"),
    ],
)
def test_lists_of_pictures_that_are_not_read_are_said(tmp_path, pack, name, content, drawn):
    files = {**drawn("a.png", "b.png"), name: content, "readme.txt": b"a set of b.png"}
    found, notes = labels_of(pack(tmp_path / "a", files))
    assert found is None
    assert f"{name} is not read: if it holds labels, save it as a .csv" in notes
    assert "readme" not in notes


@pytest.mark.parametrize("missing", ["", " ", "nan", "NaN"])
def test_a_missing_value_of_a_table_is_no_class(tmp_path, pack, missing, drawn):
    rows = labelled(["file_name", "label"], ["x", missing, "y"])
    path = pack(tmp_path / "a", {**drawn("a.png", "b.png", "c.png"), "metadata.csv": rows})
    with pytest.raises(ValueError, match=r"1 of 3 pictures have no label .* the first is b\.png"):
        labels_of(path)
