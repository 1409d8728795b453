"""Files made to fill the memory, to hang, or to lead out of the data set are refused at once, by a sentence."""

import gzip
import io
import os
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from eqm.data import DataConfig, check, open_source
from eqm.randomness import SampleRandom
from eqm.reading import LARGEST


def encoded():
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


GOOD = encoded()
MANY = 2 << 30
"""Bytes that nothing may take."""


def opened(path, **settings):
    """The pictures at a path, decoded, without much memory."""
    source = open_source(DataConfig(str(path), workers=2, **settings))
    rows = torch.arange(min(len(source), 4))
    tracemalloc.start()
    try:
        batch = source.batch(rows, SampleRandom(0, rows))
        assert tracemalloc.get_traced_memory()[1] < 300 << 20
    finally:
        tracemalloc.stop()
    return source, batch


def in_folder(path, content, name="a.png"):
    (path / name).write_bytes(content)
    return path


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def flat_png(width, height, bits, colour):
    """A PNG whose pixels are all 0, written row by row."""
    row, squeeze = bytes(1 + width * {0: 1, 2: 3}[colour] * bits // 8), zlib.compressobj(9)
    pixels = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return GOOD[:8] + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("sides", [(100_000, 1), (1, 100_000)])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_strip_is_cropped_before_it_is_enlarged(tmp_path, sides, bits):
    in_folder(tmp_path, flat_png(*sides, bits, 0))
    _, batch = opened(tmp_path, size=512)
    assert batch.shape == (1, 1, 512, 512)
    assert (batch == -1).all()


def _small_file_of_a_large_picture(path):
    return in_folder(path, flat_png(6000, 6000, 8, 2))


def _above_the_limit_of_pillow(path):
    whole = bytearray(GOOD)
    whole[16:24] = struct.pack(">II", 20_000, 20_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    return in_folder(path, bytes(whole))


def _text_that_unpacks(path):
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 << 20)))
    return in_folder(path, GOOD[:33] + text + GOOD[33:])


def _many_scans(path):
    file = io.BytesIO()
    Image.new("L", (2000, 2000)).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    return in_folder(path, whole[:-2] + scan * 1000 + whole[-2:], "a.jpg")


def _large_gif(path):
    file = io.BytesIO()
    Image.new("P", (4, 4)).save(file, "GIF")
    whole = file.getvalue()
    return in_folder(path, whole[:6] + b"\xff" * 4 + whole[10:], "a.gif")


def _pipe(path):
    os.mkfifo(path / "a.png")
    return path


def _zeros(path):
    (path / "a.png").symlink_to("/dev/zero")
    return path


def _bomb_in_a_zip(path):
    with zipfile.ZipFile(path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(LARGEST + 1))
    return path / "a.zip"


def _zip_that_says_too_little(path):
    whole = bytearray(_bomb_in_a_zip(path).read_bytes())
    for kind, place in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        start = whole.index(kind) + place
        whole[start : start + 4] = struct.pack("<I", 100)
    (path / "a.zip").write_bytes(whole)
    return path / "a.zip"


def _members_that_overlap(path):
    with zipfile.ZipFile(path / "a.zip", "w") as archive:
        for name in ("a.png", "b.png"):
            archive.writestr(name, GOOD)
    whole = bytearray((path / "a.zip").read_bytes())
    second = whole.rindex(b"PK\1\2") + 42
    whole[second : second + 4] = bytes(4)
    (path / "a.zip").write_bytes(whole)
    return path / "a.zip"


def _link_in_a_zip(path):
    with zipfile.ZipFile(path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("a.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return path / "a.zip"


def _tar(path, kind, size, *, length):
    head = tarfile.TarInfo("a.png")
    head.type, head.size = kind, size
    with (path / "a.tar").open("wb") as file:
        file.write(head.tobuf(tarfile.GNU_FORMAT))
        file.truncate(length)
    return path / "a.tar"


def _npy(path, shape, descr="|u1", content=b"x" * 99):
    with (path / "a.npy").open("wb") as file:
        form = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, form)
        file.write(content)
    return path / "a.npy"


def _deep_header(path):
    (path / "a.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"(" * 9000)
    return path / "a.npy"


def _long_header(path):
    (path / "a.npy").write_bytes(b"\x93NUMPY\2\0" + b"\xff" * 4)
    os.truncate(path / "a.npy", 6 << 30)
    return path / "a.npy"


def _npz(path, **arrays):
    np.savez_compressed(path / "a.npz", **arrays)
    return path / "a.npz"


def _claim_in_an_npz(path):
    inner = _npy(path, (10**12,), "<f8").read_bytes()
    with zipfile.ZipFile(path / "a.npz", "w") as archive:
        archive.writestr("images.npy", inner)
    return path / "a.npz"


def _idx(path, name, content):
    (path / name).write_bytes(content)
    return path / name


def _npy_header(path, text):
    (path / "a.npy").write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text)
    return path / "a.npy"


SIDES = struct.pack(">III", 300, 1024, 1024)
ZEROS = np.zeros((70, 1024, 1024), np.uint8)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_small_file_of_a_large_picture, "would take 144,000,000 in memory: shrink it"),
        (
            _above_the_limit_of_pillow,
            "more than 89,478,485 pixels, .*: shrink it, or cut it into tiles",
        ),
        (_many_scans, "it has 1,00. scans, which would take long"),
        (_large_gif, "more than 89,478,485 pixels"),
        (_text_that_unpacks, "Decompressed data too large"),
        (_pipe, "must be a regular file; it is a folder, a device or a pipe"),
        (_zeros, "a.png leads out of .*: copy the file into it, or set data.outside"),
        (_bomb_in_a_zip, "134,217,729 bytes, more than the 134,217,728 .*: unpack the archive"),
        (_zip_that_says_too_little, "Bad CRC-32"),
        (_members_that_overlap, "is not a whole zip file .b.png lies inside another file"),
        (_link_in_a_zip, "it is a link: pack the file itself"),
        (
            lambda path: _tar(path, tarfile.XHDTYPE, MANY, length=2 * MANY),
            "says that 2,147,483,648 bytes",
        ),
        (lambda path: _tar(path, tarfile.REGTYPE, MANY, length=2 * MANY), "unpack the archive"),
        (lambda path: _tar(path, tarfile.GNUTYPE_SPARSE, 99, length=9999), "is not a whole.* tar"),
        (lambda path: _tar(path, tarfile.FIFOTYPE, 0, length=9999), "no pictures in"),
        (lambda path: _npy(path, (10**12, 8, 8)), "its header says uint8 .*, but 99 are there"),
        (lambda path: _npy(path, (-4, -8)), "its header says uint8 .-4, -8"),
        (lambda path: _npy(path, (10**12,), "|S0"), "it holds Python objects or nothing at all"),
        (lambda path: _npy(path, (4,), "|O"), "it holds Python objects or nothing at all"),
        (lambda path: _npy(path, (2**62, 2**62, 0)), "is not a readable .npy"),
        (_deep_header, r"\(its header is damaged\)"),
        (lambda path: _npy_header(path, b"os.system('true')"), r"\(its header is damaged\)"),
        (lambda path: _npy_header(path, b"{'descr': [('a', 1)]}"), r"\(its header is damaged\)"),
        (_long_header, "its header is too long"),
        (lambda path: _npz(path, a=ZEROS, b=ZEROS, c=ZEROS, d=ZEROS), "would unpack to 293,60"),
        (_claim_in_an_npz, "8,000,000,000,000 bytes, but 99 are there"),
        (
            lambda path: _idx(path, "a-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12),
            "it holds 0",
        ),
        (
            lambda path: _idx(path, "a-images-idx3-ubyte", b"\0\0\x08\xff" + b"\1" * 999),
            "not an IDX",
        ),
        (
            lambda path: _idx(
                path, "a-images-idx3-ubyte.gz", gzip.compress(b"\0\0\x08\x03" + SIDES)
            ),
            "would unpack to 314,572,800",
        ),
    ],
)
def test_hostile_files_are_refused(tmp_path, make, sentence):
    (tmp_path / "data").mkdir()
    path = make(tmp_path / "data")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=sentence):
            open_source(DataConfig(str(path), workers=2))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "kind", ["folder", "data.npz", "data.npy", "data.zip", "data.tar", "data.png"]
)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_devices_and_pipes_as_a_data_set_are_refused(tmp_path, kind, make):
    make(tmp_path / kind)
    with pytest.raises(ValueError, match="it is a device or a pipe"):
        open_source(DataConfig(str(tmp_path / kind)))


def test_links_that_multiply_are_refused(tmp_path):
    for k in range(30):
        (tmp_path / f"{k}").mkdir()
        (tmp_path / f"{k}/a.png").write_bytes(GOOD)
        for name in ("x", "y"):
            (tmp_path / f"{k}/{name}").symlink_to(f"../{(k + 1) % 30}")
    with pytest.raises(ValueError, match="to one folder by more than 20 paths"):
        open_source(DataConfig(str(tmp_path)))


@pytest.mark.parametrize("what", ["a.png", "cat"])
def test_links_out_of_a_folder_are_followed_only_if_allowed(tmp_path, what):
    (tmp_path / "else/cat").mkdir(parents=True)
    for name in ("a.png", "cat/a.png"):
        (tmp_path / "else" / name).write_bytes(GOOD)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / what).symlink_to(tmp_path / "else" / what)
    with pytest.raises(ValueError, match=f"{what} leads out of .*set data.outside"):
        open_source(DataConfig(str(tmp_path / "data")))
    assert len(open_source(DataConfig(str(tmp_path / "data"), outside=True))) == 1
    (tmp_path / "whole").symlink_to("else/cat")  # the data set itself may be a link
    assert len(open_source(DataConfig(str(tmp_path / "whole")))) == 1


def test_cells_of_a_table_stay_in_its_folder_unless_allowed(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "data").mkdir()
    for path in (tmp_path / "secret.png", tmp_path / "data/in.png"):
        path.write_bytes(GOOD)
    (tmp_path / "data/link.png").symlink_to("../secret.png")
    cells = [
        "in.png",
        str(tmp_path / "secret.png"),
        "../secret.png",
        "link.png",
        "hf://owner/x.png",
    ]
    table = pa.table({"image": [{"bytes": None, "path": cell} for cell in cells]})
    parquet.write_table(table, tmp_path / "data/t.parquet")
    path = str(tmp_path / "data/t.parquet")
    assert check(path).broken.keys() == {f"row {k}" for k in (1, 2, 3, 4)}
    assert check(DataConfig(path, outside=True)).broken.keys() == {"row 4"}


def test_links_in_a_tar_stand_for_its_members_and_nothing_else(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("x/a.png")
        member.size = len(GOOD)
        archive.addfile(member, io.BytesIO(GOOD))
        for name, kind, target in (
            ("x/b.png", tarfile.LNKTYPE, "x/a.png"),
            ("x/c.png", tarfile.SYMTYPE, "a.png"),
            ("x/d.png", tarfile.SYMTYPE, "../../etc/passwd"),
            ("x/e.png", tarfile.CHRTYPE, ""),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
    source = open_source(DataConfig(str(tmp_path / "a.tar")))
    assert source.files.names == ["x/a.png", "x/b.png", "x/c.png"]
    _, batch = opened(tmp_path / "a.tar")
    assert torch.equal(batch[1], batch[0])
    assert torch.equal(batch[2], batch[0])


def test_a_tiff_of_very_many_pages_and_a_circle_of_pages_open_at_once(tmp_path):
    white = Image.new("L", (1, 1), 255)
    white.save(tmp_path / "a.tif", save_all=True, append_images=[white] * 300)
    file = io.BytesIO()
    white.save(file, "TIFF")
    circle = bytearray(file.getvalue())
    (first,) = struct.unpack("<I", circle[4:8])
    (tags,) = struct.unpack("<H", circle[first : first + 2])
    end = first + 2 + 12 * tags
    circle[end : end + 4] = struct.pack("<I", first)
    in_folder(tmp_path, bytes(circle), "b.tif")
    source, batch = opened(tmp_path)
    assert (batch == 1).all()
    assert "several pages or frames, such as a.tif: the first is used" in " ".join(source.notes)


def test_the_first_look_at_a_hostile_file_takes_little_memory(tmp_path):
    """The memory that libraries take outside Python is seen by the system alone."""
    (tmp_path / "strip").mkdir()
    in_folder(tmp_path / "strip", flat_png(100_000, 1, 8, 2))
    (tmp_path / "large").mkdir()
    _small_file_of_a_large_picture(tmp_path / "large")
    code = (
        "import resource, sys\n"
        "from eqm.data import DataConfig, open_source\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "import torch, eqm.data.open_source\n"
        "from eqm.randomness import SampleRandom\n"
        "before, rows = peak(), torch.arange(1)\n"
        "for path in sys.argv[1:]:\n"
        "    try: open_source(DataConfig(path, size=256)).batch(rows, SampleRandom(0, rows))\n"
        "    except ValueError: pass\n"
        "print(peak() - before)\n"
    )
    paths = [str(tmp_path / "strip"), str(tmp_path / "large")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150
