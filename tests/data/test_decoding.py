"""Pictures of every format and depth are decoded to the values that were stored, and to the size,
turn and channels that their header promises."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, features

from eqm.data.decoding import decode, header, is_picture

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


LOSSLESS = {
    "BMP": "L RGB",
    "GIF": "L",
    "ICO": "RGBA",
    "PPM": "L RGB",
    "PCX": "L RGB",
    "TGA": "L LA RGB RGBA",
}
LOSSLESS |= {
    "WEBP": "RGB RGBA",
    "TIFF": "L LA RGB RGBA CMYK",
    "PNG": "1 L LA RGB RGBA",
    "SGI": "L RGB RGBA",
}
LOSSLESS |= {
    "JPEG2000": "L RGB RGBA",
    "DDS": "L LA RGB RGBA",
    "IM": "L RGB",
    "MSP": "1",
    "XBM": "1",
    "QOI": "RGB RGBA",
}
TURNED = {"PNG": 1, "TIFF": 1, "WEBP": 1, "JPEG": 0}


@given(
    data=st.data(),
    sides=SIDES,
    case=st.sampled_from(
        [(form, mode) for form, modes in LOSSLESS.items() for mode in modes.split()]
    ),
    turn=st.sampled_from(sorted(TURNS)),
)
def test_every_format_gives_back_what_pillow_wrote(data, sides, case, turn):
    form, mode = case
    assume(Image.registered_extensions() and form in Image.SAVE)
    channels = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    stored = samples_of(data, *sides, channels, 8)
    if mode == "1":
        stored = stored // 128 * 255
    picture = Image.fromarray(
        stored.astype(np.uint8).squeeze(-1) if channels == 1 else stored.astype(np.uint8),
        "L" if mode == "1" else mode,
    )
    picture = picture.convert("1") if mode == "1" else picture
    settings = {"JPEG2000": {"irreversible": False}, "WEBP": {"lossless": True, "exact": True}}.get(
        form, {}
    )
    if form == "ICO":
        settings = {"sizes": [picture.size]}
    if form in TURNED:
        settings = settings | {"exif": exif(turn)}
    file = io.BytesIO()
    picture.save(file, form, **settings)
    found, pixels = read(file.getvalue(), 4)
    shown = TURNS[turn](stored) if form in TURNED else stored
    if mode == "CMYK":  # as Pillow converts ink to light
        shown = (255 - shown[..., :3]) * (255 - shown[..., 3:]) / 255
        assert np.abs(pixels[:3] - shown.transpose(2, 0, 1)).max() <= 1
        return
    opacity = shown[..., -1] if mode in ("LA", "RGBA") else np.full(shown.shape[:2], 255)
    colours = shown[..., :1] if mode in ("1", "L", "LA") else shown[..., :3]
    assert np.array_equal(pixels[3], opacity)
    seen = opacity > 0 if form in ("WEBP",) else slice(None)
    assert np.array_equal(
        pixels[:3].transpose(1, 2, 0)[seen], np.broadcast_to(colours, (*shown.shape[:2], 3))[seen]
    )
