"""Small good models and data sets, and hostile files made of them, for tools/fuzz.py."""

import io
import json
import os
import random
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from eqm.cli.main import main
from eqm.models import MLP, MLPConfig, UNet, UNetConfig, save_pretrained

HOSTILE_JSON = [
    *(None, True, -1, 0, 1, 3, 10**9, 10**12, 10**25, 1.5, float("nan"), float("inf"), -1e308),
    *("", "x", "../..", "/etc/passwd", "hf:no/such", "9" * 5000, "a\x1b[31m\nb", "é\u202e"),
    *([], [1], [[]], [1, "x"], [10**9] * 3, {}, {"x": 1}, [[[[[[]]]]]]),
]
HOSTILE_TEXTS = [
    *(b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe{", b"{}" * 2, b"[" * 100_000),
    *(b'{"format": "eqm"}', b'{"a": 1, "a": 2}', b"NaN", b"9" * 10_000, b"\0" * 100),
]


def make(folder: Path, rng: random.Random) -> None:
    """Fills the folder, and makes it the current one. The same generator makes the same files."""
    os.chdir(folder)
    torch.manual_seed(0)
    _models()
    _pictures(rng)
    _arrays(rng)
    _archives(rng)
    _broken_models(rng)
    Path("notes.txt").write_text("keep me")
    Path("empty").mkdir()
    Path("home").mkdir()
    Path("tmp").mkdir()
    for name, text in {
        "raises.py": "raise KeyError('x')",
        "syntax.py": "def",
        "exits.py": "import sys; sys.exit(3)",
        "fine.py": "x = 1",
    }.items():
        Path(name).write_text(text)
    Path("latin.py").write_bytes(b"x = '\xe9'")


def _models() -> None:
    def net(channels: int, classes: int) -> UNet:
        network = UNet(
            UNetConfig(shape=(channels, 8, 8), num_classes=classes, width=4, multipliers=(1,))
        )
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.1)
        return network

    about = {"sampling": {"step_size": 0.1}, "data": {"classes": ["cat", "dog"]}}
    save_pretrained(net(1, 2), "model", metadata=about)
    save_pretrained(net(3, 0), "colour", metadata={"sampling": {"step_size": 0.25}})
    save_pretrained(MLP(MLPConfig(shape=(2,), width=8)), "points")
    small = (
        "--model.width",
        "4",
        "--model.multipliers",
        "1",
        "--images",
        "64",
        "--eval-every",
        "32",
    )
    more = (
        "--batch-size",
        "16",
        "--checkpoint-every",
        "32",
        "--optimizer.ema-sigma-rel",
        "0.05",
        "0.1",
    )
    for arguments in (
        ("train", "digits", *small, *more, "--output", "run"),
        ("detect", "model", "digits:0", "--normal", "digits:0-99", "--score", "loss", "--save"),
        (
            "eval",
            "digits",
            "--reference",
            "digits",
            "--count",
            "32",
            "--save-reference",
            "stats.safetensors",
        ),
    ):
        assert main(arguments) == 0, arguments


def _picture(rng: random.Random, mode: str = "L", size: tuple[int, int] = (8, 8)) -> Image.Image:
    noise = Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))
    return noise.convert(mode)


def _png(rng: random.Random) -> bytes:
    file = io.BytesIO()
    _picture(rng).save(file, "png")
    return file.getvalue()


def _huge_png(width: int, height: int) -> bytes:
    """A PNG whose header claims these sides; its pixels are compressed zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min(width * height + height, 1 << 24)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _pictures(rng: random.Random) -> None:
    for name in (
        "pictures/cat",
        "pictures/dog",
        "flat",
        "mixed",
        "colours",
        "deep/a",
        "deep/b",
        "bad",
    ):
        Path(name).mkdir(parents=True)
    for k in range(6):
        _picture(rng).save(f"pictures/{('cat', 'dog')[k % 2]}/{k}.png")
        _picture(rng).save(f"flat/{k}.png")
        _picture(rng, "RGB").save(f"colours/{k}.png")
    _picture(rng).save("deep/a/x.png")
    _picture(rng).save("deep/b/x.png")
    _picture(rng).point(lambda value: 255 * (value > 127)).save("mask.png")
    for name, mode, size in [
        *(
            ("mixed/a.png", "RGB", (8, 8)),
            ("mixed/b.png", "RGBA", (9, 7)),
            ("mixed/c.bmp", "L", (20, 3)),
        ),
        *(
            ("mixed/d.gif", "P", (8, 8)),
            ("mixed/e.tif", "L", (8, 8)),
            ("mixed/f.jpg", "CMYK", (8, 8)),
        ),
        *(("one.png", "1", (8, 8)), ("wide.png", "L", (3000, 1)), ("dot.png", "L", (1, 1))),
    ]:
        _picture(rng, mode, size).save(name)
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 64).save("sixteen.png")
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save("float.tif")
    frames = [_picture(rng) for _ in range(3)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    good = _png(rng)
    for name, content in {
        "cut.png": good[:40],
        "zero.png": b"",
        "text.png": b"no picture",
        "noise.jpg": rng.randbytes(500),
        "long.png": _huge_png(100_000, 1),
        "large.png": _huge_png(100_000, 100_000),
        "medium.png": _huge_png(8000, 8000),
        "lies.ppm": b"P6 999999999 999999999 255\n",
        "lies.pgm": b"P5 8 -8 255\n" + bytes(64),
        "fits.gif": b"GIF89a\xff\xff\xff\xff" + rng.randbytes(60),
        "flips.tif": b"II*\0\x08\0\0\0\xff\xff" + rng.randbytes(300),
        "a\x1b[31m\nb\u202e.png": good,
        "crc.png": good[:30] + b"\xff" + good[31:],
        "webp.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 " + rng.randbytes(60),
    }.items():
        Path("bad", name).write_bytes(content)
    Path(os.fsdecode(b"bad/\xff.png")).write_bytes(good)
    Path("flat/cut.png").write_bytes(good[:40])
    os.mkfifo("pipe.png")
    Path("stuck").mkdir()
    os.mkfifo("stuck/pipe.png")
    _picture(rng).save("stuck/a.png")
    for link, target in {
        "endless.png": "/dev/zero",
        "endless.npz": "/dev/zero",
        "loop.png": "loop.png",
        "nowhere.png": "none",
        "deep/c": "..",
    }.items():
        Path(link).symlink_to(target)
    Path("folder.png").mkdir()
    Path("folder.npz").mkdir()


def _arrays(rng: random.Random) -> None:
    images = np.frombuffer(rng.randbytes(32 * 64), np.uint8).reshape(32, 8, 8)
    labels = np.arange(32) % 2
    np.savez("images.npz", images=images, labels=labels)
    np.savez("arr.npz", arr_0=images[..., None])
    np.save("images.npy", images)
    for name, arrays in {
        "pickle.npz": {"images": np.array([{"a": 1}, [2]], object)},
        "words.npz": {"images": np.array(["a", "b"])},
        "complex.npz": {"images": images + 1j},
        "nan.npz": {"images": np.full((4, 1, 8, 8), np.nan, np.float32)},
        "inf.npz": {"images": np.full((4, 1, 8, 8), np.inf)},
        "none.npz": {"images": images[:0]},
        "scalar.npz": {"images": np.array(3)},
        "more.npz": {"images": images, "labels": labels[:5]},
        "negative.npz": {"images": images, "labels": labels - 5},
        "classes.npz": {"images": images, "labels": labels * 10**9},
        "floats.npz": {"images": images, "labels": labels + 0.5},
        "many.npz": {"a": images, "b": images},
        "nothing.npz": {},
        "struct.npz": {"images": np.zeros(4, [("a", "u1"), ("b", "f4")])},
        "stats.npz": {"mu": np.zeros(3), "sigma": np.eye(4)},
        "dates.npz": {"images": np.zeros((4, 8, 8), "datetime64[s]")},
        "times.npz": {"mu": np.full(64, np.nan), "sigma": np.eye(64)},
        "wide.npz": {"images": np.zeros((2, 1, 8, 8), np.float64), "x" * 200: labels},
    }.items():
        np.savez(Path("bad", name), **arrays)
    whole = Path("images.npz").read_bytes()
    header = (
        b"\x93NUMPY\x01\0v\0"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }".ljust(117)
    )
    npy = {
        "huge.npy": header.replace(b"%s", b"1000000,1000000,1000000"),
        "minus.npy": header.replace(b"%s", b"-1,8,8") + bytes(64),
        "python.npy": header.replace(b"(%s)", b"__import__('os')"),
        "nested.npy": header.replace(b"%s", b"(" * 60),
        "cut.npz": whole[: len(whole) // 2],
        "flip.npz": whole[:60] + b"\xff\xff\xff\xff" + whole[64:],
        "text.npz": b"PK no zip",
        "magic.npy": b"\x93NUMPY\x09\0",
        "zero.npy": b"",
    }
    for name, content in npy.items():
        Path("bad", name).write_bytes(content)
    with zipfile.ZipFile("bad/bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": "|u1", "fortran_order": False, "shape": (1 << 24, 8, 8)}
        )
        with file.open("images.npy", "w", force_zip64=True) as member:
            member.write(head.getvalue())
            for _ in range(1024):
                member.write(bytes(1 << 20))
    with zipfile.ZipFile("bad/lies.npz", "w") as file:
        file.writestr("images.npy", npy["huge.npy"])
        file.writestr("labels.npy", b"x")
    Path("idx").mkdir()
    idx = struct.pack(">IIII", 0x803, 32, 8, 8) + images.tobytes()
    Path("idx/train-images-idx3-ubyte").write_bytes(idx)
    Path("idx/train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 32) + bytes(32))
    Path("bad/cut-idx3-ubyte").write_bytes(idx[:100])
    Path("bad/lies-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 2**32 - 1, 2**31, 8))
    Path("bad/idx-dims").write_bytes(struct.pack(">I", 0x8FF) + bytes(1100))


def _archives(rng: random.Random) -> None:
    good = _png(rng)
    with zipfile.ZipFile("pictures.zip", "w") as file:
        for k in range(4):
            file.writestr(f"{'cat' if k % 2 else 'dog'}/{k}.png", _png(rng))
    whole = Path("pictures.zip").read_bytes()
    for name, members in {
        "escape.zip": {"../../out.png": good, "/abs.png": good, "a\\b.png": good},
        "empty.zip": {},
        "text.zip": {"a.txt": b"x"},
        "labels.zip": {"a.png": good, "dataset.json": b'{"labels": [["a.png", 1e30]]}'},
        "json.zip": {"a.png": good, "dataset.json": b"[" * 100_000},
        "list.zip": {"a.png": good, "dataset.json": b'{"labels": {"a.png": [1]}}'},
        "names.zip": {"x" * 3000 + ".png": good, "a\x1b[2J\n.png": good},
        "large.zip": {"a.png": _huge_png(100_000, 100_000), "b.png": good},
    }.items():
        with zipfile.ZipFile(Path("bad", name), "w") as file:
            for member, content in members.items():
                file.writestr(member, content)
    with zipfile.ZipFile("bad/bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        with file.open("a.png", "w", force_zip64=True) as member:
            for _ in range(1024):
                member.write(bytes(1 << 20))
        file.writestr("b.png", good)
    encrypted = bytearray(whole)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = encrypted.find(signature)
        while at >= 0:
            encrypted[at + offset] |= 1
            at = encrypted.find(signature, at + 4)
    Path("bad/locked.zip").write_bytes(encrypted)
    Path("bad/cut.zip").write_bytes(whole[:-30])
    Path("bad/flip.zip").write_bytes(whole[:50] + b"\xff" * 20 + whole[70:])
    Path("bad/no.zip").write_bytes(b"no zip")
    Path("shards").mkdir()
    for shard in ("shards/000.tar", "shards/001.tar"):
        with tarfile.open(shard, "w") as tar:
            for k in range(3):
                for name, content in ((f"{k}.png", _png(rng)), (f"{k}.cls", str(k % 2).encode())):
                    about = tarfile.TarInfo(name)
                    about.size = len(content)
                    tar.addfile(about, io.BytesIO(content))
    tar_bytes = Path("shards/000.tar").read_bytes()
    for name, content in {
        "cut.tar": tar_bytes[:1300],
        "flip.tar": tar_bytes[:600] + b"\xff" * 600 + tar_bytes[1200:],
        "cls.tar": tar_bytes.replace(b"\n1", b"x").replace(b"0.cls", b"0.txt"),
        "no.tar": b"no tar",
        "size.tar": tar_bytes[:124] + b"77777777777\0" + tar_bytes[136:],
    }.items():
        Path("bad", name).write_bytes(content)
    for name in ("cut.parquet", "cut.arrow"):
        Path("bad", name).write_bytes(b"PAR1" + rng.randbytes(200) + b"PAR1")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return
    for name, columns in {
        "table.parquet": {"image": [good] * 4, "label": [0, 1, 0, 1]},
        "bad/words.parquet": {"image": ["a", "b"], "label": ["x", "y"]},
        "bad/paths.parquet": {"image": [{"bytes": None, "path": "/etc/passwd"}] * 2},
        "bad/none.parquet": {"image": [None, good], "label": [None, 1]},
        "bad/text.parquet": {"text": ["a"]},
        "bad/rows.parquet": {"image": pa.array([], pa.binary())},
        "bad/label.parquet": {"image": [good] * 2, "label": [10**15, -1]},
    }.items():
        pq.write_table(pa.table(columns), name)


def _leaves(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _leaves(value[key], (*path, key))


def _mutated(value, rng: random.Random):
    """The JSON value with one part replaced, removed, or repeated inside."""
    value = json.loads(json.dumps(value))
    path = rng.choice(list(_leaves(value))[1:])
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    match rng.randrange(6):
        case 0:
            del parent[path[-1]]
        case 1 if isinstance(parent, dict):
            parent[f"{path[-1]}x"] = parent.pop(path[-1])
        case _:
            parent[path[-1]] = rng.choice(HOSTILE_JSON)
    return value


def _broken_models(rng: random.Random) -> None:
    """Copies of good folders in which one JSON file or one file of weights is damaged."""
    Path("broken").mkdir()
    made = 0
    for good in ("model", "model", "model", "run", "points"):
        for file in sorted(path for path in Path(good).rglob("*") if path.is_file()):
            if file.suffix not in (".json", ".jsonl", ".safetensors") or "pictures" in file.parts:
                continue
            for _ in range(6 if file.name in ("config.json", "detector.json") else 2):
                copy = Path("broken", f"{made:03}")
                made += 1
                shutil.copytree(good, copy)
                target = copy / file.relative_to(good)
                target.write_bytes(_damaged(file, rng))
    whole = Path("stats.safetensors").read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    head = json.loads(whole[8 : 8 + size])
    for k in range(6):
        about = json.loads(head["__metadata__"]["about"])
        text = json.dumps(head | {"__metadata__": {"about": json.dumps(_mutated(about, rng))}})
        Path(f"bad/stats{k}.safetensors").write_bytes(
            struct.pack("<Q", len(text)) + text.encode() + whole[8 + size :]
        )


def _damaged(file: Path, rng: random.Random) -> bytes:
    whole = file.read_bytes()
    if file.suffix == ".safetensors":
        size = struct.unpack("<Q", whole[:8])[0]
        head = json.loads(whole[8 : 8 + size])
        text = json.dumps(_mutated(head, rng), allow_nan=True).encode()
        return rng.choice(
            [
                *(b"", whole[: len(whole) // 2], whole[:4], rng.randbytes(200)),
                struct.pack("<Q", 1 << 62) + whole[8:],
                struct.pack("<Q", len(text)) + text + whole[8 + size :],
                whole[: 8 + size] + b"\xff" * (len(whole) - 8 - size),  # NaN
            ]
        )
    if rng.random() < 0.2 or file.suffix == ".jsonl":
        return rng.choice([*HOSTILE_TEXTS, whole[: len(whole) // 2]])
    return json.dumps(_mutated(json.loads(whole), rng)).encode()
