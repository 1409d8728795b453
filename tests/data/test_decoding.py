"""Pictures of every format and depth are decoded to the values that were stored, and to the size,
turn and channels that their header promises."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from eqm.data import DataConfig, check, open_source
from eqm.data.decoding import decode, header, is_picture
from eqm.randomness import SampleRandom

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
TURNS = {  # what a viewer must do to stored rows, for each EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def exif(turn):
    """A TIFF header with one tag, the orientation."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, turn, 0, 0)


def png(samples, bits, colour, before=(), after=()):
    """A PNG of samples (H, W, C), with chunks before and after the pixels."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width, _ = samples.shape
    rows = b"".join(b"\0" + packed(row, bits, ">") for row in samples)
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *before, (b"IDAT", zlib.compress(rows)), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def packed(row, bits, order):
    if bits >= 8:
        kind = row.dtype.kind if row.dtype.kind == "f" else "i" if row.min() < 0 else "u"
        return row.astype(f"{order}{kind}{bits // 8}").tobytes()
    if bits < 8:
        each = np.unpackbits(row.reshape(-1, 1).astype(np.uint8), axis=1)[:, 8 - bits :]
        return np.packbits(each).tobytes()


def tiff(samples, bits, black_is_zero=1, form=1, turn=1, order="<", pages=1):
    """A TIFF of samples (H, W, C), not compressed."""
    height, width, channels = samples.shape
    body = b"".join(packed(row, bits, order) for row in samples)
    photometric = 2 if channels >= 3 else black_is_zero
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: None, 274: turn}
    tags |= {277: channels, 278: height, 279: len(body), 339: form}
    if channels in (2, 4):
        tags[338] = 2
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for page in range(pages):
        size = 2 + 12 * len(tags) + 4
        many = len(out) + size  # where the bits of every channel stand
        start = many + 2 * channels
        out += struct.pack(order + "H", len(tags))
        for tag, value in sorted(tags.items()):
            value = start if tag == 273 else value
            if tag in (258, 339) and channels > 2:
                out += struct.pack(
                    order + "HHII", tag, 3, channels, many if tag == 258 else start - 2 * channels
                )
            elif tag in (258, 339) and channels == 2:
                out += struct.pack(order + "HHIHH", tag, 3, 2, value, value)
            else:
                out += struct.pack(order + "HHII", tag, 4, 1, value)
        out += struct.pack(order + "I", 0 if page == pages - 1 else start + len(body))
        out += struct.pack(order + "H", bits) * channels + body
    return out


def read(content, channels=1, span=()):
    """The decoded picture, after its header was found to agree with it."""
    pixels = decode(io.BytesIO(content), channels, 0, span)
    found = header(io.BytesIO(content), span)
    assert pixels.shape == (channels, found.height, found.width)
    return found, pixels


def samples_of(data, height, width, channels, bits):
    values = st.integers(0, 2**bits - 1)
    count = height * width * channels
    drawn = data.draw(st.lists(values, min_size=count, max_size=count))
    return np.array(drawn).reshape(height, width, channels)


@given(
    data=st.data(),
    sides=SIDES,
    bits=st.sampled_from([1, 2, 4, 8, 16]),
    turn=st.sampled_from(sorted(TURNS)),
)
def test_a_grey_png_has_its_values_turn_and_transparency(data, sides, bits, turn):
    stored = samples_of(data, *sides, 1, bits)
    clear = data.draw(st.none() | st.sampled_from(stored.flatten().tolist()))
    chunks = [] if clear is None else [(b"tRNS", struct.pack(">H", clear))]
    noted = [(b"eXIf", exif(turn))]
    behind = data.draw(st.booleans())
    content = png(stored, bits, 0, chunks + noted * (not behind), noted * behind)
    shown = TURNS[turn](stored[..., 0])
    grey, seen = shown * 255 / (2**bits - 1), shown != clear
    found, pixels = read(content, 4)
    assert found.channels == (1 if clear is None else 4)
    np.testing.assert_allclose(pixels[0], grey, atol=1e-4)
    assert np.array_equal(pixels[3], 255 * seen)
    np.testing.assert_allclose(read(content)[1][0], np.where(seen, grey, 255), atol=1e-4)


@given(
    data=st.data(), sides=SIDES, bits=st.sampled_from([8, 16]), colour=st.sampled_from([2, 4, 6])
)
def test_a_png_of_colours_or_opacity_has_its_values(data, sides, bits, colour):
    channels = {2: 3, 4: 2, 6: 4}[colour]
    stored = samples_of(data, *sides, channels, bits)
    found, pixels = read(png(stored, bits, colour), 4)
    assert found.channels == (3 if colour == 2 else 4)
    expected = stored * 255 / (2**bits - 1)
    colours = np.broadcast_to(expected[..., : 1 if colour == 4 else 3], (*sides, 3))
    assert np.abs(pixels[:3] - colours.transpose(2, 0, 1)).max() < 1  # 16 bits are cut to 8
    assert np.abs(pixels[3] - (255 if colour == 2 else expected[..., -1])).max() < 1


@given(
    data=st.data(),
    sides=SIDES,
    bits=st.sampled_from([1, 2, 4, 8]),
    turn=st.sampled_from(sorted(TURNS)),
)
def test_a_png_of_a_palette_has_its_colours(data, sides, bits, turn):
    stored = samples_of(data, *sides, 1, bits)
    palette = samples_of(data, 1, 2**bits, 3, 8)[0]
    opacity = samples_of(data, 1, 2**bits, 1, 8)[0, :, 0]
    some = data.draw(st.booleans())
    chunks = [(b"PLTE", packed(palette, 8, ">"))] + [(b"tRNS", packed(opacity, 8, ">"))] * some
    found, pixels = read(png(stored, bits, 3, chunks, [(b"eXIf", exif(turn))]), 4)
    assert found.channels == (4 if some else 3)
    shown = TURNS[turn](stored[..., 0])
    assert np.array_equal(pixels[:3], palette[shown].transpose(2, 0, 1))
    assert np.array_equal(pixels[3], opacity[shown] if some else np.full(shown.shape, 255))


@given(
    data=st.data(),
    sides=SIDES,
    bits=st.sampled_from([1, 2, 4, 8, 16]),
    black_is_zero=st.booleans(),
    order=st.sampled_from("<>"),
    turn=st.sampled_from(sorted(TURNS)),
    pages=st.integers(1, 3),
)
def test_a_grey_tiff_has_its_values_turn_and_black_end(
    data, sides, bits, black_is_zero, order, turn, pages
):
    assume(black_is_zero or order == "<" or bits < 16)  # which Pillow refuses
    stored = samples_of(data, *sides, 1, bits)
    found, pixels = read(
        tiff(stored, bits, int(black_is_zero), turn=turn, order=order, pages=pages)
    )
    assert found.several == (pages > 1)
    share = TURNS[turn](stored[..., 0]) / (2**bits - 1)
    expected = 255 * (share if black_is_zero else 1 - share)
    np.testing.assert_allclose(pixels[0], expected, atol=1e-4)


@given(
    data=st.data(),
    sides=SIDES,
    order=st.sampled_from("<>"),
    kind=st.sampled_from(["i1", "i2", "i4", "f4"]),
)
def test_values_without_known_black_and_white_need_a_range(data, sides, order, kind):
    stored = samples_of(data, *sides, 1, 7) - (64 if kind != "f4" else 0.5)
    content = tiff(
        stored.astype(kind), 8 * int(kind[1]), form=3 if kind == "f4" else 2, order=order
    )
    for look in (lambda: header(io.BytesIO(content)), lambda: decode(io.BytesIO(content), 1, 0)):
        with pytest.raises(ValueError, match="set data.range"):
            look()
    _, pixels = read(content, span=(-40, 60))
    expected = (stored[..., 0].astype(float) + 40).clip(0, 100) * 2.55
    np.testing.assert_allclose(pixels[0], expected, atol=1e-3)
    _, reverse = read(content, span=(60, -40))
    np.testing.assert_allclose(reverse, 255 - pixels, atol=1e-3)


@given(data=st.data(), sides=SIDES, kind=st.sampled_from(["png", "tiff", "pgm"]))
def test_a_range_says_what_is_white_in_twelve_bits(data, sides, kind):
    stored = samples_of(data, *sides, 1, 12)
    if kind == "pgm":  # whose header says it
        content = b"P5 %d %d 4095\n" % (sides[1], sides[0]) + packed(stored, 16, ">")
        pixels = read(content)[1]
    else:
        make = png if kind == "png" else tiff
        content = make(stored, 16, 0 if kind == "png" else 1)
        np.testing.assert_allclose(read(content)[1][0], stored[..., 0] / 257, atol=1e-4)
        pixels = read(content, span=(0, 4095))[1]
    np.testing.assert_allclose(pixels[0], stored[..., 0] * 255 / 4095, atol=5e-3)


MODES = {
    **{"BMP": "L RGB", "DDS": "L LA RGB RGBA", "GIF": "L", "ICO": "RGBA", "JPEG2000": "L RGB RGBA"},
    **{"MSP": "1", "PCX": "L RGB", "PNG": "1 L LA RGB RGBA", "PPM": "L RGB", "QOI": "RGB RGBA"},
    **{"SGI": "L RGB RGBA", "TGA": "L LA RGB RGBA", "TIFF": "L LA RGB RGBA CMYK"},
    **{"WEBP": "RGB RGBA", "XBM": "1"},
}
"""Formats that keep values, and the modes in which Pillow writes them."""
TURNED = ("PNG", "TIFF", "WEBP", "JPEG", "MPO", "AVIF")
SETTINGS = {
    "JPEG2000": {"irreversible": False},
    "WEBP": {"lossless": True, "exact": True},
    "JPEG": {"quality": 95},
    "MPO": {"quality": 95, "save_all": True},
}


def written(form, mode, values, turn):
    """The file that Pillow writes of values (H, W, C), or skips the test."""
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {form}")
    plain = "L" if mode == "1" else mode
    sides = values.shape[1], values.shape[0]
    picture = Image.frombytes(plain, sides, values.astype(np.uint8).tobytes()).convert(mode)
    settings = SETTINGS.get(form, {}) | ({"sizes": [sides]} if form == "ICO" else {})
    file = io.BytesIO()
    prefix = b"Exif\0\0" if form in ("JPEG", "MPO") else b""
    noted = {"exif": prefix + exif(turn)} if form in TURNED else {}
    picture.save(file, form, **settings, **noted)
    return file.getvalue()


@settings(max_examples=10)
@pytest.mark.parametrize(
    ("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes.split()]
)
@given(data=st.data(), sides=SIDES, turn=st.sampled_from(sorted(TURNS)))
def test_every_format_that_keeps_values_gives_them_back(form, mode, data, sides, turn):
    channels = 4 if mode == "CMYK" else len(mode)
    stored = samples_of(data, *sides, channels, 8)
    stored = stored // 128 * 255 if mode == "1" else stored
    pixels = read(written(form, mode, stored, turn), 4)[1].transpose(1, 2, 0)
    shown = TURNS[turn](stored) if form in TURNED else stored
    colours, opacity = shown[..., : 1 if channels < 3 else 3], np.full(shown.shape[:2], 255)
    if mode == "CMYK":  # shares of ink, as Pillow turns them into light
        colours = (255 - colours) * (255 - shown[..., 3:]) / 255
    elif mode in ("LA", "RGBA"):
        opacity = shown[..., -1]
    assert np.array_equal(pixels[..., 3], opacity)
    assert np.abs(pixels[..., :3] - colours).max() <= (mode == "CMYK")


@pytest.mark.parametrize("turn", sorted(TURNS))
@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("MPO", "RGB"), ("AVIF", "RGB")],
)
def test_formats_that_lose_detail_keep_the_colour_of_every_quarter(form, mode, turn):
    if form == "AVIF":
        pytest.importorskip("PIL._avif")
    light = np.array([[[20, 40, 60], [230, 30, 50]], [[40, 220, 60], [90, 80, 210]]])
    quarters = light[..., :1] if mode == "L" else light
    if mode == "CMYK":
        quarters = np.dstack([255 - light, np.zeros((2, 2), int)])
    content = written(form, mode, quarters.repeat(32, 0).repeat(48, 1), turn)
    found, pixels = read(content, 3)
    assert found.channels == len(mode) if mode != "CMYK" else found.channels == 3
    middles = pixels[:, pixels.shape[1] // 4 :: pixels.shape[1] // 2]
    middles = middles[:, :, pixels.shape[2] // 4 :: pixels.shape[2] // 2].transpose(1, 2, 0)
    expected = TURNS[turn](light[..., :1] if mode == "L" else light)
    assert np.abs(middles - expected).max() < 8


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_read_and_the_header_says_so(form):
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "lime", "blue")]
    for count in (1, 3):
        file = io.BytesIO()
        frames[0].save(file, form, save_all=True, append_images=frames[1:count], lossless=True)
        found, pixels = read(file.getvalue(), 3)
        assert found.several == (count > 1)
        assert pixels[:, 0, 0].tolist() == [255, 0, 0]


def test_every_format_that_pillow_decodes_counts_as_a_picture():
    names = (
        "a.jfif b.JFIF c.mpo d.apng e.tga f.qoi g.jpg h.TIF i.webp j.pnm k.jpx l.ico m.pfm n.psd"
    )
    assert all(map(is_picture, names.split()))
    # Pillow hands the first two to Ghostscript, and does not decode the others.
    others = "a.eps b.ps c.pdf d.mpg e.h5 f.hdf g.wmf h.txt png i.png.txt"
    assert not any(map(is_picture, others.split()))


def opened(path, **settings):
    source = open_source(DataConfig(str(path), **settings))
    rows = torch.arange(len(source))
    return source, source.batch(rows, SampleRandom(0, rows))


def test_how_far_deep_values_reach_is_said_and_the_range_scales_them(tmp_path):
    stored = np.array([[0, 1000, 4000]])[..., None]
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(png(stored // (k + 1), 16, 0))
    source, _ = opened(tmp_path)
    (note,) = source.notes
    assert note.endswith(
        "the values of 3 of 3 pictures of more than 8 bits reach from 0 to 4000 of 65535: "
        "if 4095 is white in them, set data.range 0 4095"
    )
    assert check(str(tmp_path)).notes == source.notes
    source, images = opened(tmp_path, range=(0, 4000))
    assert not source.notes
    torch.testing.assert_close(images[0, 0, 0], torch.tensor([-1.0, -0.5, 1.0]))
    source, images = opened(tmp_path, range=(0, 2000))
    assert "those outside data.range 0 2000 are clipped" in source.notes[0]
    assert images[0].max() == 1
    assert source.fingerprint != opened(tmp_path)[0].fingerprint


@pytest.mark.parametrize("settings", [{}, {"size": 4, "channels": 1}])
def test_pictures_of_signed_values_need_the_range_and_animations_are_said(tmp_path, settings):
    stored = np.arange(-8, 8).reshape(4, 4, 1)
    (tmp_path / "a.tif").write_bytes(tiff(stored, 16, form=2, pages=2))
    with pytest.raises(ValueError, match="set data.range"):
        opened(tmp_path, **settings)
    source, images = opened(tmp_path, range=(-8, 7), **settings)
    torch.testing.assert_close(images.flatten(), torch.linspace(-1, 1, 16))
    assert "several pages or frames, such as a.tif: the first is used" in source.notes[0]
