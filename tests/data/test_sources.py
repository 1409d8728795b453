"""Every kind of data set is opened with its pixels, classes and size, or refused with a sentence."""

import gzip
import io
import json
import logging
import struct
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from eqm.data import DataConfig, batches, check, class_names, open_source, points, split
from eqm.data.decoding import centre_crop, decode
from eqm.data.open_source import files_at
from eqm.randomness import SampleRandom

RANDOM = np.random.default_rng(0)
PIXELS = {
    f"{kind}/{k}.png": RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for kind in ("cat", "dog")
    for k in range(3)
}


def encoded(pixels, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(pixels))


def config(path, **settings):
    return DataConfig(str(path), workers=2, **settings)


def everything(source):
    """All samples of a source as bytes, (N, H, W, C)."""
    rows = torch.arange(len(source))
    images = source.batch(rows, SampleRandom(0, rows))
    assert images.dtype == torch.float32
    return ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def make_folder(path):
    for name, pixels in PIXELS.items():
        save(pixels, path / name)
    return path


def make_zip(path, inside="pets/"):
    with zipfile.ZipFile(path, "w") as archive:
        for name, pixels in PIXELS.items():
            archive.writestr(inside + name, encoded(pixels))
    return path


def make_tars(folder, label=lambda k: ("cls", str(k).encode())):
    folder.mkdir()
    for shard, kind in enumerate(("cat", "dog")):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for k in range(3):
                suffix, content = label(shard)
                members = {"png": encoded(PIXELS[f"{kind}/{k}.png"]), suffix: content}
                for ending, body in members.items():
                    member = tarfile.TarInfo(f"{k:03}.{ending}")
                    member.size = len(body)
                    archive.addfile(member, io.BytesIO(body))
    return folder


def make_parquet(path, names=("cat", "dog"), labels=(0, 0, 0, 1, 1, 1)):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "image": [{"bytes": encoded(p), "path": None} for p in PIXELS.values()],
            "label": list(labels),
        }
    )
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
    noted = json.dumps({"info": {"features": features}})
    table = table.replace_schema_metadata({"huggingface": noted})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:  # as save_to_disk leaves it
        path.mkdir()
        with pa.OSFile(str(path / "a.arrow"), "wb") as file:
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
        (path / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    return path


@pytest.mark.parametrize(
    ("make", "name", "classes"),
    [
        (make_folder, "pets", ("cat", "dog")),
        (make_zip, "pets.zip", ("cat", "dog")),
        (make_tars, "pets", ("0", "1")),
        (lambda p: make_tars(p, lambda k: ("json", b'{"label": %d}' % k)), "pets", ("0", "1")),
        (make_parquet, "pets.parquet", ("cat", "dog")),
        (make_parquet, "pets", ("cat", "dog")),
    ],
)
def test_every_container_gives_the_same_pictures_and_classes(tmp_path, make, name, classes):
    source = open_source(config(make(tmp_path / name)))
    assert (source.name, source.shape, len(source)) == ("pets", (3, 8, 8), 6)
    assert np.array_equal(everything(source), np.stack(list(PIXELS.values())))
    assert np.array_equal(everything(source), np.stack(list(PIXELS.values())))  # now from memory
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert class_names(source) == classes
    report = check(str(tmp_path / name))
    assert (report.images, report.sizes[8, 8], report.broken) == (6, 6, {})
    assert list(report.classes.values()) == [3, 3]


def test_the_hub_gives_the_part_that_is_named(tmp_path, monkeypatch):
    make_parquet(
        (tmp_path / "default/test").mkdir(parents=True) or tmp_path / "default/test/0.parquet"
    )
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, **options: asked.append((name, options["allow_patterns"])) or str(tmp_path),
    )
    source = open_source(config("hf:owner/pets:test"))
    assert asked == [("owner/pets", ["*/test/*.parquet"])]
    assert (source.name, len(source), class_names(source)) == ("pets", 6, ("cat", "dog"))
    with pytest.raises(ValueError, match="pets has 0 tables called train: name another part"):
        open_source(config("hf:owner/pets"))


def test_a_flat_folder_has_no_classes(tmp_path):
    save(PIXELS["cat/0.png"], tmp_path / "a.png")
    save(PIXELS["cat/1.png"], tmp_path / "b.png")
    (tmp_path / "notes.txt").write_text("x")
    source = open_source(config(tmp_path))
    assert (len(source), source.labels, source.num_classes) == (2, None, 0)
    assert check(str(tmp_path)).others == ("notes.txt",)


def write_idx(path, array):
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes((gzip.compress if path.suffix == ".gz" else bytes)(head + array.tobytes()))


def read(path, **settings):
    files = files_at(config(path, **settings))
    return len(files.names), files.class_names, " ".join(files.notes)


@pytest.mark.parametrize("below", ["", "data", "default"])
@pytest.mark.parametrize("name", ["{}-00000-of-00001.parquet", "{}.parquet", "{}/0000.parquet"])
def test_a_split_of_parquet_files_is_read(tmp_path, below, name):
    for part, labels in (("train", (0, 0, 0, 1, 1, 1)), ("test", (1,) * 6)):
        place = tmp_path / below / name.format(part)
        place.parent.mkdir(parents=True, exist_ok=True)
        make_parquet(place, labels=labels)
    (tmp_path / below / "._train.parquet").write_bytes(b"")  # of macOS
    count, classes, notes = read(tmp_path)
    assert (count, classes) == (6, ("cat", "dog"))
    assert "the split train is read, 1 file; left out: test (1)" in notes
    assert read(tmp_path, split="test")[0] == 6
    assert read(tmp_path, split="all")[0] == 12
    with pytest.raises(ValueError, match=r"no split val, only test .1., train .1.: set data.split"):
        read(tmp_path, split="val")
    if "/" in name:
        (tmp_path / below / "more").mkdir()
        make_parquet(tmp_path / below / "more" / "0.parquet")
        assert "1 file beside the folders of splits" in read(tmp_path)[2]


def test_a_saved_data_set_says_which_part_is_read(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    make_parquet(tmp_path / "test")
    with pytest.raises(ValueError, match="no split train, only test: set data.split"):
        read(tmp_path)
    make_parquet(tmp_path / "train")
    assert "the split train is read; left out: test" in read(tmp_path)[2]
    assert "the split test is read; left out: train" in read(tmp_path, split="test")[2]


def test_what_has_no_splits_and_one_place_of_labels_takes_no_other(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), np.uint8))
    for path in ("moons", tmp_path / "a.npy"):
        with pytest.raises(ValueError, match="has no splits; got data.split test: leave it out"):
            open_source(config(path, split="test"))
        with pytest.raises(ValueError, match="has its labels in one place; got data.labels_from x"):
            open_source(config(path, labels_from="x"))


def make_table(path, columns):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    cells = [{"bytes": encoded(p), "path": None} for p in PIXELS.values()]
    table = pa.table({"image": cells} | {k: list(v) if v else cells for k, v in columns.items()})
    images = {name: {"_type": "Image"} for name in ("image", "mask") if name in table.column_names}
    noted = json.dumps({"info": {"features": images}})
    pq.write_table(table.replace_schema_metadata({"huggingface": noted}), path)


@pytest.mark.parametrize(
    ("columns", "settings", "classes", "sentence"),
    [
        ({"label": "abcabc"}, {}, ("a", "b", "c"), ""),
        (
            {"fine_label": "abcdef", "coarse_label": "xxxyyy"},
            {},
            tuple("abcdef"),
            "column fine_label",
        ),
        ({"label": "abcabc", "cls": "xyzxyz"}, {}, ("a", "b", "c"), ""),  # which agree
        ({"category": "abcabc"}, {}, (), "no column `label`, only category: if one holds classes"),
        ({"category": "abcabc"}, {"labels_from": "category"}, ("a", "b", "c"), ""),
        ({"label": "abcabc"}, {"labels": False}, (), ""),
        (
            {"mask": None, "label": "abcabc"},
            {},
            ("a", "b", "c"),
            "of the column image, not of mask",
        ),
    ],
)
def test_the_columns_of_a_table_are_chosen_or_said(tmp_path, columns, settings, classes, sentence):
    make_table(tmp_path / "a.parquet", columns)
    count, found, notes = read(tmp_path / "a.parquet", **settings)
    assert (count, found) == (6, classes)
    assert sentence in notes
    assert bool(sentence) == bool(notes)


@pytest.mark.parametrize(
    ("columns", "labels_from", "sentence"),
    [
        (
            {"label": "abcabc", "class": "xxxyyy"},
            "",
            "labels in the columns label, class, which differ",
        ),
        ({"label": "abcabc"}, "kind", "has no column kind, only label: set data.labels_from"),
    ],
)
def test_columns_that_disagree_are_refused(tmp_path, columns, labels_from, sentence):
    make_table(tmp_path / "a.parquet", columns)
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path / "a.parquet", labels_from=labels_from)


@pytest.mark.parametrize("column", ["image", "Image", "IMG"])
@pytest.mark.parametrize("first", ["bytes", "path"])
def test_cells_of_pictures_are_known_by_their_fields_in_any_order_and_case(tmp_path, column, first):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    fields = sorted([("bytes", pa.binary()), ("path", pa.string())], reverse=first == "path")
    cells = pa.array([{"bytes": encoded(p)} for p in PIXELS.values()], pa.struct(fields))
    pq.write_table(pa.table({column: cells, "Label": list("abcabc")}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[:2] == (6, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("cell", "kind"),
    [("/etc/passwd", "string"), ([b"x"], "list"), ({"image": {"bytes": b"x"}}, "struct<image")],
)
def test_a_column_called_image_without_pictures_is_refused_by_its_type(tmp_path, cell, kind):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"image": [cell]}), tmp_path / "a.parquet")
    with pytest.raises(
        ValueError, match=rf"it has image \({kind}.*save the pictures in it as encoded"
    ):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_have_two_splits(tmp_path, suffix):
    for part, count in (("train", 4), ("t10k", 2)):
        images = RANDOM.integers(0, 256, (count, 5, 4), dtype=np.uint8)
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", images)
    (tmp_path / f"._train-images-idx3-ubyte{suffix}").write_bytes(b"")  # of macOS
    train = open_source(config(tmp_path))
    assert len(train) == 4
    assert f"the split train is read; left out: t10k-images-idx3-ubyte{suffix}" in " ".join(
        train.notes
    )
    assert len(open_source(config(tmp_path, split="test"))) == 2
    with pytest.raises(ValueError, match="has the splits train and test; got data.split val"):
        open_source(config(tmp_path, split="val"))
    write_idx(tmp_path / f"letters-train-images-idx3-ubyte{suffix}", images)
    with pytest.raises(ValueError, match="holds letters-train-images-idx3-ubyte, train-images"):
        open_source(config(tmp_path))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_give_both_parts(tmp_path, suffix):
    images = RANDOM.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    for part, rows in (("train", slice(4)), ("t10k", slice(4, 6))):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", images[rows])
        labels = np.arange(6, dtype=np.uint8)[rows] % 2
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", labels)
    train = open_source(config(tmp_path))
    assert train.data.dtype == torch.uint8
    assert np.array_equal(everything(train)[..., 0], images[:4])
    test = open_source(config(tmp_path / f"t10k-images-idx3-ubyte{suffix}"))
    assert np.array_equal(everything(test)[..., 0], images[4:])
    assert test.labels.tolist() == [0, 1]


def test_an_npy_takes_its_labels_from_beside_and_may_hold_points(tmp_path):
    images = RANDOM.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "a-labels.npy", [0, 1, 1, 0])
    source = open_source(config(tmp_path / "a.npy"))
    assert np.array_equal(everything(source), images)
    assert source.labels.tolist() == [0, 1, 1, 0]
    np.save(tmp_path / "b.npy", images[:, :2, 0, 0] / 255)
    assert open_source(config(tmp_path / "b.npy")).shape == (2,)
    assert points("spirals").fingerprint == open_source(config("spirals")).fingerprint


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("given", ["L", "RGB", "RGBA"])
def test_arrays_take_the_channels_that_pictures_would(tmp_path, given, channels):
    pixels = RANDOM.integers(0, 256, (3, 8, 8, 4), dtype=np.uint8)
    pictures = [Image.fromarray(rgba).convert(given) for rgba in pixels]
    (tmp_path / "pictures").mkdir()
    for k, picture in enumerate(pictures):
        picture.save(tmp_path / "pictures" / f"{k}.png")
    array = np.stack([np.asarray(picture) for picture in pictures])
    np.save(tmp_path / "bytes.npy", array)
    np.save(tmp_path / "floats.npy", array / np.float32(127.5) - 1)
    expected = everything(open_source(config(tmp_path / "pictures", channels=channels))).astype(int)
    for name in ("bytes.npy", "floats.npy"):
        found = everything(open_source(config(tmp_path / name, channels=channels)))
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1  # Pillow rounds twice


def test_pictures_beside_an_archive_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(PIXELS["cat/0.png"]))
    for name in ("manifest.json", "state.json"):  # not ours
        (tmp_path / name).write_text('{"name": "icons"}')
    assert len(open_source(config(tmp_path))) == 1
    for name in ("old.tar", "old.parquet"):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=f"such as a.png, beside {name}"):
            open_source(config(tmp_path))
        (tmp_path / name).unlink()


def test_sixteen_bits_keep_their_range(tmp_path):
    grey = np.array([[0, 1, 257], [30_000, 65_534, 65_535]], np.uint16)
    (tmp_path / "a.png").write_bytes(encoded(grey))
    (tmp_path / "b.png").write_bytes(encoded(grey))
    source = open_source(config(tmp_path))
    image = source.batch(torch.tensor([1]), SampleRandom(0, torch.tensor([0])))[0, 0]
    torch.testing.assert_close(image, torch.from_numpy(grey.astype(np.float32)) / 32767.5 - 1)
    np.save(tmp_path / "c.npy", grey[None])
    torch.testing.assert_close(open_source(config(tmp_path / "c.npy")).data[0, 0], image)


def test_the_centre_crop_is_that_of_adm():
    """Against the steps of guided-diffusion's center_crop_arr, written out for one picture."""
    picture = Image.fromarray(RANDOM.integers(0, 256, (50, 75, 3), dtype=np.uint8))
    halved = picture.resize((37, 25), Image.Resampling.BOX)  # 25 is less than 2 x 16: no more
    fitted = halved.resize((24, 16), Image.Resampling.BICUBIC)
    expected = np.asarray(fitted)[:, 4:20]
    assert np.array_equal(np.asarray(centre_crop(picture, 16)), expected)


def test_a_crop_to_half_the_size_is_the_mean_of_four_pixels():
    pixels = np.random.default_rng(0).integers(0, 64, (16, 16), np.uint8) * 4  # means are whole
    means = pixels.reshape(8, 2, 8, 2).astype(int).mean((1, 3))
    assert np.array_equal(np.asarray(centre_crop(Image.fromarray(pixels), 8)), means)


def test_16_bits_stay_in_range_where_the_filter_overshoots():
    pixels = np.zeros((24, 24), np.uint16)
    pixels[:, 12:] = 65535
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    decoded = decode(file, 1, 17)
    assert (decoded.min(), decoded.max()) == (0, 255)


def test_transparent_pixels_become_white_and_exif_rotates():
    clear = np.zeros((4, 4, 4), np.uint8)
    assert (decode(io.BytesIO(encoded(clear)), 3, 0) == 255).all()
    assert (decode(io.BytesIO(encoded(clear)), 4, 0) == 0).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (6, 4)).save(file, "JPEG", exif=exif)
    assert decode(io.BytesIO(file.getvalue()), 1, 0).shape == (1, 6, 4)


def test_flips_depend_on_the_position(tmp_path):
    images = RANDOM.integers(0, 256, (200, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    source = open_source(config(tmp_path / "a.npy", flip=True))
    rows = torch.arange(200)
    batch = source.batch(rows, SampleRandom(3, rows))
    plain = replace(source, flip=False).batch(rows, SampleRandom(3, rows))
    flipped = (batch == plain.flip(-1)).flatten(1).all(1)
    assert ((batch == plain).flatten(1).all(1) ^ flipped).all()
    assert 60 < flipped.sum() < 140
    assert torch.equal(source.batch(rows[7:9], SampleRandom(3, rows[7:9])), batch[7:9])
    assert torch.equal(
        source.batch(rows, SampleRandom(3, rows)), batch
    )  # the data are as they were


def test_subsets_are_even_and_disjoint_and_have_own_fingerprints(tmp_path):
    whole = open_source(config(make_folder(tmp_path)))
    seen, val_data = split(whole, 1 / 3)
    assert (len(seen), val_data.labels.tolist()) == (4, [0, 1])
    both = np.concatenate([everything(seen), everything(val_data)])
    assert sorted(map(bytes, both)) == sorted(map(bytes, everything(whole)))
    prints = {whole.fingerprint, seen.fingerprint, val_data.fingerprint}
    assert len(prints) == 3
    assert split(whole, 1 / 3)[0].fingerprint == seen.fingerprint
    dogs = open_source(config(tmp_path, classes=("dog",)))
    assert (len(dogs), dogs.num_classes, class_names(dogs)) == (3, 1, ("dog",))
    assert np.array_equal(everything(dogs), everything(whole)[3:])
    assert open_source(config(tmp_path, labels=False)).labels is None


def test_broken_pictures_are_replaced_by_their_own_class_and_named(tmp_path, caplog):
    make_folder(tmp_path)
    (tmp_path / "cat/1.png").write_bytes(encoded(PIXELS["cat/1.png"])[:90])
    (tmp_path / "dog/2.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        source = open_source(config(tmp_path))
        images = everything(source)
    assert set(source.broken) == {"cat/1.png", "dog/2.png"}
    assert "cat/1.png" in caplog.text
    assert source.broken["dog/2.png"] == "it is no picture, or of an unknown format"
    assert np.array_equal(images[1], PIXELS["cat/2.png"])
    assert np.array_equal(images[5], PIXELS["dog/0.png"])
    kept = source.subset(torch.tensor([1, 0]), torch.tensor([0, 0]), 1, ("cat",))
    assert np.array_equal(everything(kept)[0], PIXELS["cat/0.png"])  # not cat/2, of another part
    assert check(str(tmp_path)).broken.keys() == source.broken.keys()
    with pytest.raises(ValueError, match=r"cannot read cat/1.png"):
        everything(open_source(config(tmp_path, broken="fail", size=8, channels=3)))


def test_errors_of_every_decoder_mean_a_broken_picture(tmp_path):
    pytest.importorskip("PIL._avif")
    whole = encoded(PIXELS["cat/0.png"], "AVIF")
    torn = whole.replace(b"av01", b"av00")  # of which Pillow makes a RuntimeError
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        for name, content in (("0.avif", whole), ("1.avif", torn), ("2.avif", whole)):
            archive.writestr(name, content)
        at = archive.getinfo("2.avif").header_offset + 60
    body = bytearray((tmp_path / "a.zip").read_bytes())
    body[at : at + 40] = b"x" * 40  # of which lzma makes an error of its own
    (tmp_path / "a.zip").write_bytes(body)
    assert set(check(str(tmp_path / "a.zip")).broken) == {"1.avif", "2.avif"}


def test_circular_links_are_ignored_and_dead_links_are_broken_pictures(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "cat/more").symlink_to("..")
    (tmp_path / "dog/more").symlink_to("../cat")
    (tmp_path / "dog/9.png").symlink_to("9.png")
    source = open_source(config(tmp_path))
    assert class_names(source) == ("cat", "dog")
    assert torch.bincount(source.labels).tolist() == [3, 7]
    assert set(source.broken) == {"dog/9.png"}


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_batches_that_are_loaded_ahead_are_the_batches(tmp_path, cache_mb):
    source = open_source(config(make_folder(tmp_path), flip=True, cache_mb=cache_mb))
    settings = {"seed": 5, "batch_size": 4, "device": torch.device("cpu")}
    ahead = batches(source, position=0, **settings)
    whole = [next(ahead) for _ in range(4)]
    ahead.close()
    again = next(batches(source, position=8, **settings))
    assert torch.equal(again.data, whole[2].data)
    assert torch.equal(again.labels, whole[2].labels)
    halves = [
        next(batches(source, position=8, rank=rank, world_size=2, **settings)) for rank in (0, 1)
    ]
    assert torch.equal(torch.cat([half.data for half in halves]), again.data)
    assert torch.equal(halves[1].random.uniform("gamma"), again.random[2:].uniform("gamma"))


def test_errors_of_the_loading_thread_are_raised_in_training(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "cat/1.png").write_bytes(b"")
    source = open_source(config(tmp_path, broken="fail", size=8, channels=3))
    with pytest.raises(ValueError, match="cannot read cat/1.png"):
        list(batches(source, seed=0, position=0, batch_size=6, device=torch.device("cpu")))


def _mixed_sizes(path):
    save(PIXELS["cat/0.png"], path / "a.png")
    save(PIXELS["cat/0.png"][:5], path / "b.png")


def _mixed_channels(path):
    save(PIXELS["cat/0.png"], path / "a.png")
    save(PIXELS["cat/0.png"][..., 0], path / "b.png")


def _loose(path):
    save(PIXELS["cat/0.png"], path / "cat/a.png")
    save(PIXELS["cat/0.png"], path / "b.png")


def _empty_class(path):
    make_folder(path)
    (path / "fish").mkdir()


def _all_broken(path):
    (path / "a.png").write_bytes(b"none")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "no pictures in"),
        (_mixed_sizes, r"2 sizes, from 8x5 \(b.png\) to 8x8 \(a.png\): set data.size"),
        (_mixed_channels, r"channels: 1 \(b.png\), 3 \(a.png\): set data.channels"),
        (_loose, "1 picture beside class folders, such as b.png"),
        (_empty_class, "the class folder fish has no pictures"),
        (_all_broken, "1 of 1 pictures cannot be read, the first is a.png"),
    ],
)
def test_unusable_folders_are_refused(tmp_path, make, sentence):
    make(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        open_source(config(tmp_path))


def test_unusable_files_are_refused(tmp_path):
    whole = make_zip(tmp_path / "a.zip").read_bytes()
    (tmp_path / "torn.zip").write_bytes(whole[: len(whole) // 2])
    tar = (make_tars(tmp_path / "tars") / "0.tar").read_bytes()
    (tmp_path / "torn.tar").write_bytes(tar[:700])
    with tarfile.open(tmp_path / "tars/0.tar") as archive:
        second = archive.getmembers()[1].offset
    (tmp_path / "ended.tar").write_bytes(tar[:second])
    (tmp_path / "bent.tar").write_bytes(tar[:second] + b"x" + tar[second + 1 :])
    (tmp_path / "words").mkdir()
    make_tars(tmp_path / "labels", lambda k: ("cls", b"cat"))
    (tmp_path / "x-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + bytes(12) + b"x")
    (tmp_path / "notes.txt").write_text("x")
    make_parquet(tmp_path / "range.parquet", labels=(0, 0, 0, 1, 1, 2))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    np.savez(tmp_path / "gap.npz", images=np.zeros((2, 4, 4), np.uint8), labels=[0, 2])
    np.savez(tmp_path / "low.npz", images=np.zeros((2, 4, 4), np.uint8), labels=[0, -1])
    np.savez(tmp_path / "high.npz", images=np.zeros((2, 4, 4), np.uint8), labels=[0, 2**32 - 1])
    make_tars(tmp_path / "high", lambda k: ("cls", b"99999999999999999999"))
    make_tars(tmp_path / "half", lambda k: ("json", b'{"label": 0.5}'))
    make_tars(tmp_path / "infinite", lambda k: ("json", b'{"label": Infinity}'))
    make_parquet(tmp_path / "high.parquet", names=(), labels=(0, 0, 0, 1, 1, 2**32 - 1))
    make_parquet(tmp_path / "lists.parquet", labels=([0], [0, 1], [0], [1], [1], [1]))
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "complex.npy", np.ones((2, 2), complex))
    (tmp_path / "gap.npy").write_bytes((tmp_path / "gap.npz").read_bytes())
    for name, sentence in [
        ("words.npy", "must hold real numbers; got words"),
        ("complex.npy", "must hold real numbers; got complex numbers"),
        ("gap.npy", "not a readable .npy of a plain array .it is an .npz"),
        ("high.npz", r"labels must lie in 0..999,999; got 0..4294967295"),
        ("high.parquet", r"labels must lie in 0..999,999; got 0..4294967295"),
        ("high", r"labels must lie in 0..999,999; got 99999999999999999999..9"),
        ("half", "the label in 000.json must be a whole number"),
        ("infinite", "000.json must be JSON"),
        ("lists.parquet", "column label must hold whole numbers or words; it holds list<"),
        ("torn.zip", "is not a whole zip"),
        ("torn.tar", "is not a whole, uncompressed tar"),
        ("ended.tar", "is not a whole, uncompressed tar"),
        ("bent.tar", "is not a whole, uncompressed tar"),
        ("labels", "the label in 000.cls must be a whole number; got 'cat'"),
        ("x-images-idx3-ubyte", "must hold 0 bytes"),
        ("notes.txt", "is none of .npz"),
        ("range.parquet", r"labels must be in 0..1; got 0..2"),
        ("torn.parquet", "cannot be read"),
        ("gap.npz", "1 of 3 classes have no pictures: 1"),
        ("low.npz", r"labels must lie in 0..999,999; got -1..0"),
        ("nowhere", "there is no"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            open_source(config(tmp_path / name))
    with pytest.raises(ValueError, match=r"one of checkerboard, .*, digits, .*; got 'cats'"):
        open_source(config("cats"))
    with pytest.raises(ValueError, match="has no class 'cow': its classes are 0, 1"):
        open_source(config("moons", classes=("cow",)))


@pytest.mark.needs("/usr/share/datasets/fashion-mnist")
def test_fashion_mnist_is_as_debian_installs_it():
    test = open_source(config("fashion-mnist-test"))
    assert (len(test), test.shape, test.num_classes) == (10_000, (1, 28, 28), 10)
    assert test.labels.bincount().tolist() == [1000] * 10
