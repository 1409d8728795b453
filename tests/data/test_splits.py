"""Which files are pictures of the set: one split, no litter, no masks; in folders and archives alike."""

import re
import tarfile
import zipfile
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqm.data import DataConfig, check, open_source
from eqm.data.open_source import files_at
from eqm.data.splits import is_litter, kept_split, splits_among


def opened(path, **settings):
    """The files that are read, and what is said of them."""
    files = files_at(DataConfig(str(path), workers=1, **settings))
    return sorted(files.names), files.class_names, " ".join(files.notes)


@pytest.mark.parametrize(
    ("train", "others"),
    [
        ("train", ("test", "val")),
        ("Training", ("Testing",)),
        ("TRAIN", ("VALID", "TEST")),
        ("train2017", ("val2017",)),
        ("seg_train/seg_train", ("seg_test/seg_test", "seg_pred/seg_pred")),
        ("DIV2K_train_HR", ("DIV2K_valid_HR",)),
        ("train_images", ("test_images", "train_masks")),
        ("training_set", ("test_set",)),
        ("pets/train", ("pets/validation", "pets/ground_truth")),
        ("train/images", ("train/masks", "test/images")),
        ("images/train", ("images/val", "labels/train")),
        ("images", ("masks",)),
        ("JPEGImages", ("SegmentationClass",)),
        ("train", ("test", "preview")),
    ],
)
def test_only_the_training_part_is_read_and_that_is_said(tmp_path, pack, train, others, drawn):
    mine = [f"{train}/{kind}/{k}.png" for kind in ("cat", "dog") for k in range(2)]
    files = drawn(*mine, *(f"{other}/{kind}/1.png" for other in others for kind in ("cat", "cow")))
    path = pack(tmp_path / "pets", files)
    names, classes, notes = opened(path)
    assert names == mine
    assert classes == ("cat", "dog")
    assert "is read, 4 pictures; left out: " in notes or "preview" in notes
    assert len(opened(path, split="all")[0]) == len(files)


def test_another_split_is_chosen_by_its_kind_or_its_own_name(tmp_path, pack, drawn):
    parts = ("train", "Valid", "testing", "ground_truth")
    path = pack(tmp_path / "a", drawn(*(f"{p}/{k}/0.png" for p in parts for k in "ab")))
    for split, part in [
        *(("val", "Valid"), ("validation", "Valid"), ("valid", "Valid"), ("test", "testing")),
        *(("testing", "testing"), ("ground truth", "ground_truth"), ("masks", "ground_truth")),
    ]:
        names, classes, notes = opened(path, split=split)
        assert names == [f"{part}/a/0.png", f"{part}/b/0.png"]
        assert classes == ("a", "b")
        assert f"the split {split} is read" in notes
    with pytest.raises(
        ValueError, match="no split extra, only Valid .2., ground_truth .2., .*: set data.split"
    ):
        opened(path, split="extra")


def test_splits_inside_of_classes_are_found_as_well(tmp_path, drawn, packs):
    kinds = ("bottle", "cable")
    parts = ("train/good", "test/good", "test/broken", "ground_truth/broken")
    packs[0](tmp_path, drawn(*(f"{kind}/{part}/0.png" for kind in kinds for part in parts)))
    names, classes, notes = opened(tmp_path)
    assert names == ["bottle/train/good/0.png", "cable/train/good/0.png"]
    assert classes == kinds
    assert "left out: ground_truth (2), test (4)" in notes
    assert opened(tmp_path / "bottle", split="test")[1] == ("broken", "good")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("test/a/0.png", "test/b/0.png"), r"no split train, only test \(2\): set data.split"),
        (("val/0.png", "test/0.png"), r"no split train, only test \(1\), val \(1\)"),
        (("trainA/0.png", "trainB/0.png"), "several folders of the split train, trainA, trainB"),
        (
            ("cat/0.png", "dog/0.png", "test/0.png"),
            "the folder test beside cat, dog: if it is a class",
        ),
        (("cat/0.png", "masks/0.png"), "the folder masks beside cat: if it is a class"),
    ],
)
def test_what_may_be_a_split_or_a_class_is_refused(tmp_path, pack, names, sentence, drawn):
    path = pack(tmp_path / "a", drawn(*names))
    with pytest.raises(ValueError, match=sentence):
        opened(path)
    assert opened(path, split="all")[0] == sorted(names)


@pytest.mark.parametrize(
    "classes",
    [
        *(
            ("bus", "car", "train"),
            ("mask", "no_mask"),
            ("valid", "invalid"),
            ("label_0", "label_1"),
        ),
        *(
            ("test_tube", "test_strip"),
            ("bullet-train", "steam-train"),
            ("with_mask", "without_mask"),
        ),
        ("images", "logos"),
    ],
)
def test_classes_that_sound_like_splits_stay_classes(tmp_path, classes, drawn, packs):
    path = packs[0](tmp_path, drawn(*(f"{kind}/0.png" for kind in classes)))
    assert opened(path)[1] == tuple(sorted(classes))


def test_a_split_that_is_not_there_is_refused_everywhere(tmp_path, drawn, packs):
    packs[0](tmp_path / "a", drawn("cat/0.png", "dog/0.png"))
    with pytest.raises(ValueError, match="has no splits; got data.split test: leave it out"):
        opened(tmp_path / "a", split="test")


@given(
    st.lists(
        st.sampled_from(["train", "Test", "val", "cat", "dog", "masks", "images", "test1", "a b"]),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["train", "test", "val", "masks"]),
)
def test_each_file_is_of_one_split_or_said_to_be_left_out(folders, split):
    """For any folders: what is kept, what is counted as left out and the whole agree, or all is refused."""
    names = [f"{'/'.join(folders[:depth])}/{depth}.png" for depth in range(1, len(folders) + 1)]
    names += [f"{folder}/x/9.png" for folder in folders]
    names = sorted(set(names))
    try:
        kept = kept_split("data", names, (), split)
    except ValueError:  # with a sentence that other tests look at
        return
    assert kept.rows == sorted(set(kept.rows))
    if len(kept.rows) < len(names):
        assert any("left out" in note for note in kept.notes)
    for row, path in zip(kept.rows, kept.paths, strict=True):
        rest = iter(PurePosixPath(names[row]).parts[:-1])
        assert all(part in rest for part in path)  # in order, and only splits are gone


LITTER = (
    *(
        "@eaDir/0.png/SYNOFILE_THUMB_M.jpg",
        "__MACOSX/cat/._0.png",
        "cat/._0.png",
        ".thumbnails/0.png",
    ),
    *("cat/.@__thumb/s1000.jpg", "#recycle/0.png", "$RECYCLE.BIN/0.png", "lost+found/0.png"),
    *("@Transcode/0.png", "FOUND.000/0.png", "LOST.DIR/0.png", "cat Previews.lrdata/0/0.png"),
    *("cat/.ipynb_checkpoints/0-checkpoint.png", ".git/logo.png", "cat/.AppleDouble/0.png"),
    *(".Spotlight-V100/0.png", "@Recycle/0.png", "System Volume Information/0.png", "@tmp/0.png"),
    *("#snapshot/cat/0.png", ".Trash-1000/files/0.png", "cat/~$0.png"),
    *(".DS_Store", "cat/Thumbs.db", "dog/desktop.ini", "cat/THUMBS.DB", ".~lock.0.png#"),
)


def test_what_systems_leave_behind_is_skipped_at_every_level(tmp_path, pack, drawn, packs):
    good = ["cat/0.png", "dog/0.png"]
    clean = files_at(DataConfig(str(pack(tmp_path / "clean", drawn(*good)))))
    path = pack(tmp_path / "full", drawn(*good, *LITTER))
    names, classes, notes = opened(path)
    assert (names, classes) == (good, ("cat", "dog"))
    assert "what a system left behind is skipped, " in notes
    if pack is packs[0]:
        assert files_at(DataConfig(str(path))).fingerprint == clean.fingerprint
    for name in LITTER:
        assert is_litter(name)
        assert is_litter(f"pets/cat/{name}")


def test_files_of_systems_beside_tables_tars_and_arrays_are_skipped(tmp_path, drawn, packs):
    packs[2](tmp_path / "a", drawn("cat/0.png", "dog/0.png"))
    (tmp_path / "._a.tar").write_bytes(b"\0\5\x16\7")
    assert len(opened(tmp_path)[0]) == 2
    assert len(opened(f"{tmp_path}/*.tar")[0]) == 2


@pytest.mark.parametrize(
    "name",
    ["catalogue", "lost and found", "recycled", "eaDir", "thumbs", "git", "found"],
)
def test_ordinary_names_are_no_litter(name):
    assert not is_litter(f"{name}/{name}.png")


def test_a_class_folder_without_pictures_is_refused_unless_labels_are_off(
    tmp_path, pack, drawn, packs
):
    files = {**drawn("cat/0.png", "dog/0.png"), "cow/": b"", "cow/Thumbs.db": b"x"}
    path = pack(tmp_path / "a", files)
    if pack is not packs[2]:  # which has no empty folders
        with pytest.raises(
            ValueError, match="the class folder cow has no pictures: .* data.labels off"
        ):
            opened(path)
    assert opened(path, labels=False)[:2] == (["cat/0.png", "dog/0.png"], ())
    beside = pack(tmp_path / "b", drawn("cat/0.png", "1.png"))
    with pytest.raises(ValueError, match="1 picture beside class folders, such as 1.png"):
        opened(beside)
    assert opened(beside, labels=False)[:2] == (["1.png", "cat/0.png"], ())


def test_classes_may_be_chosen_though_labels_are_off(tmp_path, drawn, packs):
    packs[0](tmp_path, drawn("cat/0.png", "dog/0.png"))
    source = open_source(DataConfig(str(tmp_path), labels=False, classes=("DOG",), workers=1))
    assert (len(source), source.labels) == (1, None)


@pytest.mark.parametrize(
    ("names", "classes", "sentence"),
    [
        (("cat/persian/0.png", "dog/0.png"), ("cat", "dog"), "such as cat/persian, are no classes"),
        (
            ("a/b/0.png", "a/b/1.png"),
            (),
            "all pictures lie in the folder a/b, so there are no classes",
        ),
        (("1/0.png", "2/0.png", "10/0.png"), ("1", "10", "2"), "each meant by its own number"),
        (
            ("00000/0.png", "01000/1.png"),
            ("00000", "01000"),
            "labels off if they only divide one set",
        ),
        (
            ("part1/0.png", "part2/0.png"),
            ("part1", "part2"),
            "labels off if they only divide one set",
        ),
        (("Cat/0.png", "cat/1.png"), ("Cat", "cat"), "Cat and cat are two classes, though"),
        (("red_fox/0.png", "red-fox/1.png"), ("red-fox", "red_fox"), "are two classes, though"),
        (("a.png", "b.heic", "c.png"), (), "are not read .1., b.heic"),
        (("a.png", "scan", "c.png"), (), "are not read .1., scan"),
    ],
)
def test_what_is_read_in_one_of_several_ways_is_said(
    tmp_path, pack, names, classes, sentence, drawn
):
    found, known, notes = opened(pack(tmp_path / "data", drawn(*names)))
    assert known == classes
    assert len(found) == len([name for name in names if name.endswith("png")])
    assert re.search(sentence, notes), notes


def test_well_formed_data_need_no_word(tmp_path, pack, drawn):
    for names in (
        ("cat/0.png", "dog/0.png"),
        ("0.png", "1.png"),
        tuple(f"{k}/0.png" for k in range(10)),
    ):
        path = pack(tmp_path / str(hash(names)), drawn(*names, "README.md", "LICENSE", ".DS_Store"))
        assert opened(path)[2] == ""


def test_masks_beside_their_pictures_are_left_out(tmp_path, pack, drawn):
    for mask in ("{}_mask.png", "{}.seg.png", "{}-segmentation.jpg", "{}_GT.png"):
        files = drawn(*(f"{k}.png" for k in "abc"), *(mask.format(k) for k in "abc"))
        path = pack(tmp_path / mask.format("x"), files)
        names, _, notes = opened(path)
        assert names == ["a.png", "b.png", "c.png"]
        assert "3 pictures with names such as " in notes
        assert len(opened(path, split="all")[0]) == 6
    few = pack(
        tmp_path / "few", drawn(*(f"{k}.png" for k in range(9)), "face.png", "face_mask.png")
    )
    names, _, notes = opened(few)
    assert len(names) == 11
    assert "are read like the others" in notes


def test_one_picture_of_each_sample_is_read_or_none(tmp_path, drawn, packs):
    plain = packs[2](tmp_path / "a", drawn("0.png", "0.depth.png", "1.png", "1.depth.png"))
    names, _, notes = opened(plain)
    assert names == ["0.png", "1.png"]
    assert "2 pictures with names such as 0.depth.png are left out" in notes
    for pair in (("0.input.png", "0.target.png"), ("0.png", "0.jpg")):
        path = packs[2](tmp_path / "b", drawn(*pair))
        with pytest.raises(ValueError, match=f"{pair[0]}, {pair[1]} belong to one sample"):
            opened(path)
        assert len(opened(path, split="all")[0]) == 2
    dotted = packs[2](
        tmp_path / "c", drawn("cat.0.png", "cat.1.png", "IMG.2020.01.01.png", "v1.5.png")
    )
    assert len(opened(dotted)[0]) == 4


def shards(packs, drawn, folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        packs[2](folder / name, drawn(f"{name}-0.png".replace("/", "-")))
        assert (folder / name).exists(), k
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("train-000.tar", "train-001.tar", "val-000.tar", "test-000.tar"),
        ("train/000.tar", "train/001.tar", "test/000.tar"),
        (
            "pets-train-000-of-002.tar",
            "pets-train-001-of-002.tar",
            "pets-validation-000-of-001.tar",
        ),
        ("train_0.tar", "train_1.tar", "more.tar"),
    ],
)
def test_shards_of_the_split_are_read(tmp_path, names, packs, drawn):
    folder = shards(packs, drawn, tmp_path / "data", *names)
    mine = sorted(f"{name}-0.png".replace("/", "-") for name in names if "train" in name)
    for where in (folder, f"{folder}/**/*.tar"):
        found, _, notes = opened(where)
        assert found == mine
        assert "the split train is read, 2 files; left out: " in notes
        assert len(opened(where, split="all")[0]) == len(names)
    assert len(opened(folder / names[-1])[0]) == 1  # asked for by its name


def test_shards_of_other_splits_only_are_taken_only_if_asked_for(tmp_path, packs, drawn):
    folder = shards(packs, drawn, tmp_path / "data", "test-000.tar", "test-001.tar")
    with pytest.raises(ValueError, match=r"no split train, only test \(2\)"):
        opened(folder)
    assert len(opened(folder, split="test")[0]) == 2
    assert len(opened(f"{folder}/test-*.tar")[0]) == 2


def test_braces_expand_as_in_a_shell_and_missing_shards_are_named(tmp_path, packs, drawn):
    shards(
        packs,
        drawn,
        tmp_path,
        "a/000.tar",
        "a/001.tar",
        "b/000.tar",
        "b/002.tar",
        "b/8.tar",
        "b/9.tar",
        "b/10.tar",
    )
    for pattern, count in [
        *(("a/{000..001}.tar", 2), ("{a,b}/000.tar", 2), ("a/*.tar", 2), ("*/00?.tar", 4)),
        *(("**/*.tar", 7), ("b/{8..10}.tar", 3), ("{a/{000..001},b/000}.tar", 3)),
    ]:
        assert len(opened(f"{tmp_path}/{pattern}")[0]) == count, pattern
    with pytest.raises(ValueError, match=r"there is no .*/b/001.tar, 1 of 3 files: check"):
        opened(f"{tmp_path}/b/{{000..002}}.tar")
    with pytest.raises(ValueError, match="there is no .*nothing-000.tar"):
        opened(f"{tmp_path}/nothing-{{000..009}}.tar")
    for pattern in ("{0..99999999999}", "{a,b}" * 40, "{0..99999}{0..99999}"):
        with pytest.raises(ValueError, match="stands for more than 100,000 files"):
            opened(f"{tmp_path}/{pattern}.tar")


def test_an_empty_picture_is_said_and_counts_as_broken(tmp_path, drawn, packs):
    packs[0](tmp_path, {**drawn("a.png", "c.png"), "b.png": b""})
    report = check(DataConfig(str(tmp_path), workers=1))
    assert "some pictures have no bytes (1), b.png" in " ".join(report.notes)
    assert (report.images, list(report.broken)) == (2, ["b.png"])


@pytest.mark.parametrize("where", ["s3://bucket/{0..9}.tar", "https://host/a.tar", "pipe://x"])
def test_addresses_on_the_network_are_not_searched_on_the_disk(where):
    with pytest.raises(ValueError, match="is an address on the network: download it"):
        opened(where)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_in_an_archive_is_refused(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped,
        tarfile.open(tmp_path / "a.tar", "w") as tarred,
    ):
        for _ in range(2):
            zipped.writestr("cat/0.png", b"x")
            tarred.addfile(tarfile.TarInfo("cat/0.png"))
    for name in ("a.zip", "a.tar"):
        with pytest.raises(ValueError, match="holds cat/0.png 2 times: pack it again"):
            opened(tmp_path / name)


def test_names_with_backslashes_are_folders_in_a_zip(tmp_path, drawn, packs):
    path = packs[1](tmp_path / "a", drawn("cat\\0.png", "dog\\0.png", "train\\x"))
    assert opened(path)[1] == ("cat", "dog")


def test_splits_are_told_by_more_than_one_name():
    assert splits_among({"train", "test"}) == {"train": "train", "test": "test"}
    assert splits_among({"cat", "dog"}) == {}
    assert splits_among({"test", "control"}) == {}


@pytest.mark.parametrize("ending", ["HEIC", "CR2", "MOV", "heic", "Svg"])
def test_files_of_other_formats_are_said_in_any_case(tmp_path, pack, drawn, ending):
    files = {**drawn("IMG_1.JPG"), f"IMG_2.{ending}": b"x", "LICENSE": b"x"}
    _, _, notes = opened(pack(tmp_path / "a", files))
    assert f"files that do not end as pictures do are not read (1), IMG_2.{ending}" in notes


@pytest.mark.parametrize("other", ["./a.png", "b/../a.png", ".//a.png"])
def test_one_path_spelt_in_two_ways_is_refused(tmp_path, drawn, packs, other):
    for pack in packs[1:]:
        path = pack(tmp_path / "a", drawn("a.png", other))
        with pytest.raises(ValueError, match="2 times: pack it again"):
            opened(path)


def test_archives_may_name_files_from_the_folder_above(tmp_path, drawn, packs):
    for pack in packs[1:]:
        path = pack(tmp_path / "a", drawn("../pets/cat/0.png", "../pets/dog/0.png"))
        assert opened(path)[1] == ("cat", "dog")


@pytest.mark.parametrize("word", ["depth", "superpixels", "normal"])
def test_pictures_that_go_with_others_are_said(tmp_path, pack, drawn, word):
    names = [f"{k}{end}.png" for k in range(3) for end in ("", f"_{word}")]
    found, _, notes = opened(pack(tmp_path / "a", drawn(*names)))
    assert found == sorted(names)
    assert (
        f"3 pictures with names such as 0_{word}.png, beside pictures without the last word"
        in notes
    )
    _, _, notes = opened(
        pack(tmp_path / "b", drawn("cat.png", "cat_a.png", "cat_12.png", "dog.png"))
    )
    assert "read like the others" not in notes


def test_masks_beside_views_from_one_side_are_left_out(tmp_path, pack, drawn):
    names = ["leftImg8bit/train/a.png", "leftImg8bit/test/a.png", "gtFine/train/a.png"]
    found, classes, _ = opened(pack(tmp_path / "a", drawn(*names)))
    assert (found, classes) == (names[:1], ())


def test_links_in_a_tar_that_lead_out_are_said(tmp_path, drawn, packs):
    path = packs[2](tmp_path / "a", drawn("a.png"))
    with tarfile.open(path, "a") as archive:
        for name, kind in (("b.png", tarfile.SYMTYPE), ("c.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "../a.png"
            archive.addfile(member)
    names, _, notes = opened(path)
    assert names == ["a.png"]
    assert "links that lead to no file in the tar are not read (2), b.png, c.png" in notes


@pytest.mark.parametrize("word", ["fold", "Split_", "part-", "Camera ", "seq"])
def test_numbered_folders_that_may_only_divide_a_set_are_said(tmp_path, pack, drawn, word):
    _, _, notes = opened(pack(tmp_path / "a", drawn(f"{word}0/a.png", f"{word}1/a.png")))
    assert "if they only divide one set" in notes
