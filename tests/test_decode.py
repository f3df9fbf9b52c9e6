"""decode: one rule for every kind of image; what is damaged or no image is refused."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
import tensorflow as tf
from corpus import FORMATS, chunk, heic, saved, tiff
from PIL import Image

from data import pipeline
from data.images import decode, workers
from data.images.decode import BITS, BadImage, Storage
from data.images.examples import Example
from data.images.resized import MAX_SIDE, Resized
from data.pipeline import views

# Red above blue, so that every orientation shows.
PIXELS = np.zeros((24, 16, 3), np.uint8)
PIXELS[:12], PIXELS[12:] = (200, 40, 20), (10, 60, 220)
PICTURE = Image.fromarray(PIXELS)


def photograph(seed, height=80, width=100):
    noise = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def written(extension, pixels):
    return cv2.imencode(extension, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


def jpeg(**options):
    return saved(Image.fromarray(photograph(0)), "JPEG", quality=90, **options)


def assert_is_picture(image, expected=PIXELS):
    """Equal but for what lossy formats do along the edge between the colours."""
    assert image.dtype == np.uint8 and image.shape == expected.shape
    difference = np.abs(image.astype(int) - expected)
    assert difference.mean() <= 5 and np.median(difference) <= 3


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_decoded_by_content(format):
    assert_is_picture(decode.decode(saved(PICTURE, format)))


TRANSPARENT = Image.fromarray(np.dstack([PIXELS, np.zeros((24, 16), np.uint8)]))
GREY = np.repeat(np.array(PICTURE.convert("L"))[..., None], 3, axis=2)
SIXTEEN = PIXELS.astype(np.uint16) * 256 + 100
CASES = {
    "transparent HEIC": (lambda: saved(TRANSPARENT, "HEIF", quality=95, chroma=444), PIXELS),
    "grey HEIC": (lambda: saved(PICTURE.convert("L"), "HEIF", quality=95), GREY),
    "10-bit HEIC": (lambda: heic(PIXELS.astype(np.uint16) * 257, chroma=444), PIXELS),
    "palette": (lambda: saved(PICTURE.quantize(8), "PNG"), PIXELS),
    "palette with transparency": (
        lambda: saved(PICTURE.quantize(2), "PNG", transparency=0),
        PIXELS,
    ),
    "GIF with transparency": (lambda: saved(PICTURE.quantize(2), "GIF", transparency=0), PIXELS),
    "16-bit PNG": (lambda: written(".png", SIXTEEN), PIXELS),
    "16-bit TIFF": (lambda: written(".tiff", SIXTEEN), PIXELS),
    "16-bit grey": (lambda: written(".png", GREY[..., 0].astype(np.uint16) * 256), GREY),
    "grey JPEG": (lambda: saved(PICTURE.convert("L"), "JPEG"), GREY),
    "grey with alpha": (lambda: saved(PICTURE.convert("LA"), "PNG"), GREY),
    "CMYK JPEG": (lambda: saved(PICTURE.convert("CMYK"), "JPEG"), PIXELS),
    "CMYK TIFF": (lambda: saved(PICTURE.convert("CMYK"), "TIFF"), PIXELS),
    "transparent PNG": (lambda: saved(TRANSPARENT, "PNG"), PIXELS),
    "transparent WebP": (lambda: saved(TRANSPARENT, "WEBP", exact=True, quality=100), PIXELS),
    "transparent TIFF": (lambda: saved(TRANSPARENT, "TIFF"), PIXELS),
    "transparent 16-bit TIFF": (
        lambda: cv2.imencode(".tiff", np.dstack([SIXTEEN[..., ::-1], SIXTEEN[..., 0] * 0]))[
            1
        ].tobytes(),
        PIXELS,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_stated_rules(case):
    make, expected = CASES[case]
    assert_is_picture(decode.decode(make()), expected)


TURNS = {  # where the first row and column of the stored pixels belong: EXIF 2.32, 4.6.4
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, 3),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, 1),
}


QUARTERS = np.zeros((24, 16, 3), np.uint8)  # all four differ
QUARTERS[:12, :8], QUARTERS[12:, 8:] = (200, 200, 200), (90, 90, 90)


def turned(format, orientation, **options):
    """A file that asks to be turned; a HEIC does so twice, as telephones write it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(QUARTERS), format, exif=exif.tobytes(), **options)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format, orientation):
    image = decode.decode(turned(format, orientation))
    assert_is_picture(image, TURNS[orientation](QUARTERS))


def raw_profile(orientation, size=0):
    """EXIF as ImageMagick writes it into a text: in hexadecimal, after its name and length."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = exif.tobytes() + bytes(size)
    return f"\nexif\n{len(data):8d}\n{data.hex()}\n".encode()


PACKET = b"<x:xmpmeta xmlns:x='adobe:ns:meta/' tiff:Orientation=\"%d\"></x:xmpmeta>"
ORIENTATION_TEXTS = {
    "tEXt": lambda turn: (b"tEXt", b"Raw profile type exif\0" + raw_profile(turn)),
    "zTXt": lambda turn: (
        b"zTXt",
        b"Raw profile type exif\0\0" + zlib.compress(raw_profile(turn)),
    ),
    "XMP": lambda turn: (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PACKET % turn),
}


@pytest.mark.parametrize("text", ORIENTATION_TEXTS)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_orientation_in_a_text_of_a_png_is_applied(text, orientation):
    png = saved(Image.fromarray(QUARTERS), "PNG")
    part = chunk(*ORIENTATION_TEXTS[text](orientation))
    image = decode.decode(png[:33] + part + png[33:])
    np.testing.assert_array_equal(image, TURNS[orientation](QUARTERS))


def test_a_large_text_of_a_png_is_not_read_for_its_orientation():
    png = saved(Image.fromarray(QUARTERS), "PNG")
    packed = zlib.compress(raw_profile(6, 40_000_000))
    part = chunk(b"zTXt", b"Raw profile type exif\0\0" + packed)
    image = decode.decode(png[:33] + part + png[33:])
    np.testing.assert_array_equal(image, QUARTERS)


def test_a_heic_is_turned_by_its_own_orientation_alone():
    data = turned("HEIF", 6, quality=90)
    assert b"irot" in data
    place = data.index(b"irot") + 4
    assert data[place] == 3  # times 90 degrees to the left
    unturned = data[:place] + b"\0" + data[place + 1 :]
    assert_is_picture(decode.decode(unturned), QUARTERS)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "HEIF"])
def test_first_frame_counts(format):
    upside_down = PICTURE.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    data = saved(PICTURE, format, save_all=True, append_images=[upside_down])
    assert_is_picture(decode.decode(data))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_cut_short_is_refused(format, part):
    data = saved(Image.fromarray(photograph(1)), format)
    with pytest.raises(BadImage):
        decode.decode(data[: int(part * len(data))])


NO_IMAGES = {
    "empty": b"",
    "text": b"<html>no image</html>",
    "zeros": bytes(1000),
    "three bytes": b"\xff\xd8\xff",
    "without its end": jpeg()[:-2],
    "another format": saved(PICTURE, "PPM"),
    "floating point": saved(PICTURE.convert("F"), "TIFF"),
    "too many pixels": saved(Image.new("1", (20000, 10000)), "PNG"),
}


@pytest.mark.parametrize("case", NO_IMAGES)
def test_what_is_no_image_is_refused_in_one_line(case):
    with pytest.raises(BadImage) as error:
        decode.decode(NO_IMAGES[case])
    assert "\n" not in str(error.value)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(BadImage, match="pixels"):
        decode.decode(NO_IMAGES["too many pixels"])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_tensorflow_reads_every_jpeg_that_is_let_through(options):
    whole, random, refused = jpeg(**options), np.random.default_rng(0), 0
    decode.decode(whole)
    for _ in range(150):
        data, place = bytearray(whole), int(random.integers(700, len(whole) - 2))
        data[place : place + 2] = bytes([255, random.integers(1, 255)])
        try:
            decode.decode(bytes(data))
        except BadImage:
            refused += 1
            continue
        tf.io.decode_jpeg(bytes(data))
    assert refused > 50


def test_bad_files_leave_stderr_quiet(capfd):
    data = bytearray(jpeg())
    data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xd9"
    decode.decode(bytes(data))
    with pytest.raises(BadImage):
        decode.decode(saved(Image.fromarray(photograph(1)), "PNG")[:2000])
    assert capfd.readouterr().err == ""
    os.write(2, b"restored")
    assert capfd.readouterr().err == "restored"


def test_a_large_heic_is_decoded_within_a_workers_memory(tmp_path):
    path = tmp_path / "large.heic"
    picture = Image.fromarray(photograph(0, 3024, 4032))
    path.write_bytes(
        saved(picture, "HEIF", quality=60, tile_size=512, enc_params={"preset": "ultrafast"})
    )
    example = Example("large.heic", 0, str(path))
    (stored,) = workers.stored([example], Storage(), 1)
    assert (stored.format, stored.height, stored.width) == ("JPEG", 256, 341)
    expected = cv2.resize(np.asarray(picture), (341, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(decode.decode(stored.encoded).astype(int) - expected).mean() < 5


def png_with(*chunks):
    """The picture as PNG with more parts before its pixels."""
    data = saved(PICTURE, "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


METADATA = {
    "large profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2_000_000))),
    "large text": chunk(b"zTXt", b"w\0\0" + zlib.compress(b"node " * 400_000)),
    "large international text": chunk(b"iTXt", b"w\0\1\0\0\0" + zlib.compress(b"node " * 400_000)),
    "much text": chunk(b"tEXt", b"Comment\0" + b"x" * 9_000_000),
    "much EXIF": chunk(b"eXIf", b"MM\0*" + bytes(9_000_000)),
    "damaged profile": chunk(b"iCCP", b"p\0\0" + b"?" * 99),
    "wrong checksum of gAMA": chunk(b"gAMA", struct.pack(">I", 45_455), wrong=1),
    "wrong checksum of tEXt": chunk(b"tEXt", b"Comment\0of a camera", wrong=1),
    "wrong checksum of tRNS": chunk(b"tRNS", bytes(6), wrong=1),
    "wrong checksum of eXIf": chunk(b"eXIf", b"MM\0*", wrong=1),
    "wrong checksum of acTL": chunk(b"acTL", struct.pack(">II", 1, 0), wrong=1),
    "animation without frames": chunk(b"acTL", struct.pack(">II", 2, 0)),
    "short tRNS": chunk(b"tRNS", bytes(3)),
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_of_a_png_does_not_matter(case):
    np.testing.assert_array_equal(decode.decode(png_with(METADATA[case])), PIXELS)


def test_an_animated_png_with_a_damaged_frame_is_its_first_picture():
    second = PICTURE.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    data = bytearray(saved(PICTURE, "PNG", save_all=True, append_images=[second]))
    data[data.index(b"fdAT") + 10] ^= 1
    np.testing.assert_array_equal(decode.decode(bytes(data)), PIXELS)


def test_an_animated_png_with_a_damaged_first_picture_is_refused():
    data = bytearray(saved(PICTURE, "PNG", save_all=True, append_images=[PICTURE.rotate(180)]))
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(BadImage, match="damaged PNG: IDAT is cut short or has a wrong"):
        decode.decode(bytes(data))


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT"])
def test_a_damaged_critical_part_of_a_png_is_refused(kind):
    data = saved(PICTURE.quantize(8), "PNG")
    end = data.index(kind) + 4 + int.from_bytes(data[data.index(kind) - 4 : data.index(kind)])
    damaged = data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]
    with pytest.raises(BadImage, match="PNG"):
        decode.decode(damaged)
    unknown = png_with(chunk(b"QuUx", bytes(9)))
    with pytest.raises(BadImage, match="PNG"):
        decode.decode(unknown)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("photometric", [0, 1, 3])
def test_tiffs_of_few_bits(bits, order, photometric):
    random = np.random.default_rng(bits)
    samples = random.integers(0, 1 << bits, (7, 13), dtype=np.uint8)
    colours = random.integers(0, 256, (3, 1 << bits)).astype(np.uint16)
    grey = samples * np.uint8(255 // ((1 << bits) - 1))
    expected = {
        0: np.repeat(255 - grey[..., None], 3, axis=2),
        1: np.repeat(grey[..., None], 3, axis=2),
        3: colours[:, samples].transpose(1, 2, 0),
    }
    options = {"colours": colours * 257} if photometric == 3 else {}
    data = tiff(samples, bits, photometric, order=order, **options)
    np.testing.assert_array_equal(decode.decode(data), expected[photometric])
    with pytest.raises(BadImage, match="TIFF"):
        decode.decode(data[:30])


DEEP = np.random.default_rng(0).integers(0, 1 << 16, (11, 9, 4), dtype=np.uint16)
LAYOUTS = {  # of 16 bits per channel: the file, and how many of its channels are colours
    "grey PNG": (lambda deep: written(".png", deep[..., 0]), 1),
    "PNG": (lambda deep: written(".png", deep[..., :3]), 3),
    "PNG with alpha": (lambda deep: cv2.imencode(".png", deep[..., [2, 1, 0, 3]])[1].tobytes(), 3),
    "grey PNG with alpha": (lambda deep: grey_png_with_alpha(deep[..., [0, 3]]), 1),
    "interlaced PNG": (lambda deep: interlaced(deep[..., 0]), 1),
    "compressed TIFF": (lambda deep: written(".tiff", deep[..., :3]), 3),
    "compressed grey TIFF": (lambda deep: written(".tiff", deep[..., 0]), 1),
}
for planar in (1, 2):
    for tiles in (False, True):
        for order in "<>":
            name = f"TIFF {planar} {order} {'tiles' if tiles else 'strip'}"
            options = {"planar": planar, "tiles": tiles, "order": order}
            LAYOUTS |= {
                f"grey {name}": (lambda d, o=options: tiff(d[..., 0], **o), 1),
                f"RGB {name}": (lambda d, o=options: tiff(d[..., :3], **o), 3),
                f"RGBX {name}": (lambda d, o=options: tiff(d, extra=0, **o), 3),
                f"RGBA {name}": (lambda d, o=options: tiff(d, extra=2, **o), 3),
            }


def deep_png(colour, rows, interlace=0):
    """A PNG of 16 bits per channel of 9 x 11 pixels."""
    header = struct.pack(">IIBBBBB", 9, 11, 16, colour, 0, 0, interlace)
    data = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def grey_png_with_alpha(deep):
    return deep_png(4, deep)


def interlaced(deep):
    """In the seven passes of Adam7."""
    passes = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2))
    rows = [
        row for y, dy, x, dx in (*passes, (1, 2, 0, 1)) for row in deep[y::dy, x::dx] if row.size
    ]
    return deep_png(0, rows, interlace=1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bits", BITS)
def test_of_16_bits_the_upper_8_of_those_in_use_are_kept(layout, bits):
    make, colours = LAYOUTS[layout]
    deep = DEEP >> (16 - bits)
    deep[0, 0] = 1 << bits if bits < 16 else 65_535  # more than white
    expected = np.minimum(deep, (1 << bits) - 1) >> bits - 8
    expected = expected[..., :3] if colours == 3 else expected[..., [0, 0, 0]]
    found = decode.decode(make(deep), bits).astype(int)
    most = int(bits == 16 and "RGB" in layout + " RGB" * (layout == "compressed TIFF"))
    assert np.abs(found - expected).max() <= most  # libtiff rounds
    assert decode.largest_sample(make(deep)) == deep[..., :colours].max()


@pytest.mark.parametrize("layout", ["grey PNG", "PNG", "PNG with alpha", "interlaced PNG"])
def test_all_16_bits_are_reduced_as_opencv_does(layout):
    data = LAYOUTS[layout][0](DEEP)
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode.decode(data, 16), by_opencv[..., ::-1])
    np.testing.assert_array_equal(decode.decode(data), by_opencv[..., ::-1])


@pytest.mark.parametrize("shape", [(11, 9), (11, 9, 3)])
def test_all_16_bits_of_a_tiff_are_reduced_as_opencv_does(shape):
    deep = DEEP[..., 0] if len(shape) == 2 else DEEP[..., :3]
    data = written(".tiff", deep)
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode.decode(data), by_opencv[..., ::-1])


@pytest.mark.parametrize("bits", BITS)
def test_colours_that_are_multiplied_by_alpha_are_divided_again(bits):
    alpha = np.uint16(1 << bits - 1)  # half
    colours = (DEEP[..., :3] >> (17 - bits)).astype(np.uint16)
    data = tiff(np.dstack([colours, np.full((11, 9), alpha)]), extra=1)
    reduced = (colours >> bits - 8).astype(int) * 255 // 128
    np.testing.assert_array_equal(decode.decode(data, bits), np.minimum(reduced, 255))
    if bits == 16:
        by_pillow = Image.open(io.BytesIO(data)).convert("RGB")
        np.testing.assert_array_equal(decode.decode(data), np.asarray(by_pillow))


def test_white_may_be_zero_in_16_bits():
    data = tiff(DEEP[..., 0], photometric=0)
    expected = (65_535 - DEEP[..., 0]) >> 8
    np.testing.assert_array_equal(decode.decode(data)[..., 1], expected)
    assert decode.largest_sample(data) == 65_535 - DEEP[..., 0].min()


@pytest.mark.parametrize("bits", [8, 12])
def test_bits_change_no_other_image(bits):
    others = [saved(PICTURE, format) for format in FORMATS]
    others += [heic(PIXELS.astype(np.uint16) * 257), saved(PICTURE.convert("CMYK"), "TIFF")]
    for data in others:
        np.testing.assert_array_equal(decode.decode(data, bits), decode.decode(data))
        assert decode.largest_sample(data) == 0


def test_an_image_that_two_decoders_see_differently_is_refused(monkeypatch):
    shallow = np.zeros((11, 9, 3), np.uint8)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: shallow)
    for planar in (1, 2):
        data = tiff(DEEP[..., :3], planar=planar)
        with pytest.raises(BadImage, match="damaged TIFF: expected 16 bits, found 8"):
            decode.decode(data, 12)


def test_the_largest_sample_of_nothing_is_0():
    deep = written(".png", DEEP[..., 0])
    for data in (b"", b"text", deep[:40], deep[:-20], tiff(DEEP[..., 0])[:-60]):
        assert decode.largest_sample(data) == 0
    dark = np.dstack([DEEP[..., :3] >> 6, DEEP[..., 3] | 0xFFF0])
    assert decode.largest_sample(tiff(dark, extra=2)) < 1024  # alpha does not count


def test_the_largest_sample_of_8_bits_costs_no_decoding(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    for format in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF"):
        assert decode.largest_sample(saved(PICTURE, format)) == 0


def test_bits_are_rounded_up():
    largest = (0, 1, 255, 256, 1023, 1024, 2672, 4095, 4096, 16_383, 16_384, 65_535)
    bits = (16, 8, 8, 10, 10, 12, 12, 12, 14, 14, 16, 16)
    assert tuple(map(decode.bits_for, largest)) == bits


def test_stored_pixels_are_those_of_the_bits():
    deep = (DEEP >> 4)[..., :3]
    stored = decode.store(written(".png", deep), Storage(bits=12))
    np.testing.assert_array_equal(pixels_of(stored), deep >> 4)
    prepared = decode.prepare(written(".png", deep), Storage(bits=12))
    assert prepared == stored


def pixels_of(stored):
    if stored.format == "RAW":
        flat = np.frombuffer(stored.encoded, np.uint8)
        return flat.reshape(stored.height, stored.width, 3)
    return decode.decode(stored.encoded)


@pytest.mark.parametrize("encoding", ["auto", "jpeg"])
def test_larger_images_are_reduced_once_by_area(encoding):
    pixels = cv2.cvtColor(photograph(2, 90, 121), cv2.COLOR_RGB2GRAY)
    data = saved(Image.fromarray(pixels), "PNG")
    storage = Storage(short_side=30, quality=100, encoding=encoding)
    stored = decode.store(data, storage)
    assert (stored.format, stored.height, stored.width) == ("JPEG", 30, 40)
    reduced = cv2.resize(pixels, (40, 30), interpolation=cv2.INTER_AREA)
    assert np.abs(decode.decode(stored.encoded) - reduced[..., None].astype(float)).max() <= 2
    prepared = decode.prepare(data, storage)
    np.testing.assert_array_equal(pixels_of(prepared), np.repeat(reduced[..., None], 3, axis=2))
    assert (prepared.format, prepared.mean) == ("RAW", stored.mean)


def tables_and_sampling(data):
    """What tells a JPEG's quality and chroma: its quantization tables, its sampling factors."""
    image = Image.open(io.BytesIO(data))
    return image.quantization, [layer[1:3] for layer in image.layer]


def expected_tables(quality):
    return tables_and_sampling(saved(PICTURE, "JPEG", quality=quality, subsampling=0))


@pytest.mark.parametrize("encoding", ["auto", "jpeg"])
@pytest.mark.parametrize("quality", [None, 77])
def test_jpegs_have_full_chroma_and_a_quality_each(encoding, quality):
    data = saved(Image.fromarray(photograph(2)), "WEBP", quality=80)
    reduced = decode.store(data, Storage(40, quality, encoding))
    same_size = decode.store(data, Storage(0, quality, encoding))
    expected = quality or decode.REDUCED_QUALITY, quality or decode.SAME_SIZE_QUALITY
    for stored, of in zip((reduced, same_size), expected, strict=True):
        assert stored.format == "JPEG"
        assert tables_and_sampling(stored.encoded) == expected_tables(of)
    assert (decode.REDUCED_QUALITY, decode.SAME_SIZE_QUALITY) == (90, 95)


WITHOUT_LOSS = {
    "PNG": lambda image: saved(image, "PNG"),
    "BMP": lambda image: saved(image, "BMP"),
    "TIFF": lambda image: saved(image, "TIFF"),
    "LZW TIFF": lambda image: saved(image, "TIFF", compression="tiff_lzw"),
    "lossless WebP": lambda image: saved(image, "WEBP", lossless=True),
    "lossless WebP with EXIF": lambda image: saved(
        image, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"
    ),
    "moving lossless WebP": lambda image: saved(
        image, "WEBP", lossless=True, save_all=True, append_images=[image.rotate(180)]
    ),
}
WITH_LOSS = {
    "CMYK JPEG": lambda image: saved(image.convert("CMYK"), "JPEG"),
    "WebP": lambda image: saved(image, "WEBP"),
    "WebP with alpha": lambda image: saved(TRANSPARENT, "WEBP", quality=50),
    "moving WebP": lambda image: saved(
        image, "WEBP", save_all=True, append_images=[image.rotate(180)]
    ),
    "AVIF": lambda image: saved(image, "AVIF"),
    "HEIC": lambda image: saved(image, "HEIF"),
    "JPEG TIFF": lambda image: saved(image, "TIFF", compression="jpeg"),
}


@pytest.mark.parametrize("case", WITHOUT_LOSS)
def test_what_comes_without_loss_and_fits_is_stored_without_loss(case):
    pixels = photograph(4, 60, 90)
    stored = decode.store(WITHOUT_LOSS[case](Image.fromarray(pixels)), Storage(60))
    assert (stored.format, stored.height, stored.width) == ("RAW", 60, 90)
    np.testing.assert_array_equal(pixels_of(stored), pixels)
    assert decode.store(saved(PICTURE, "PNG"), Storage(60, encoding="jpeg")).format == "JPEG"


@pytest.mark.parametrize("case", WITH_LOSS)
def test_what_comes_with_loss_becomes_a_jpeg(case):
    data = WITH_LOSS[case](Image.fromarray(photograph(4, 60, 90)))
    assert decode.store(data, Storage()).format == "JPEG"
    assert decode.prepare(data, Storage()).format == "RAW"


def test_a_gif_is_stored_without_loss():
    palette = PICTURE.quantize(2)
    stored = decode.store(saved(palette, "GIF"), Storage())
    np.testing.assert_array_equal(pixels_of(stored), np.asarray(palette.convert("RGB")))


def test_from_1_mib_of_pixels_on_png_is_smaller():
    side = 592
    assert 3 * side * (side - 2) <= decode.RAW_BYTES < 3 * side * side
    for width, format in ((side - 2, "RAW"), (side, "PNG")):
        pixels = photograph(5, side, width)
        stored = decode.store(saved(Image.fromarray(pixels), "BMP"), Storage(0))
        assert (stored.format, stored.height, stored.width) == (format, side, width)
        np.testing.assert_array_equal(pixels_of(stored), pixels)
        mean = pixels.mean(axis=(0, 1))
        np.testing.assert_allclose(stored.mean, mean)


def test_frames_are_prepared_as_images():
    pixels = photograph(6, 90, 120)
    data = saved(Image.fromarray(pixels), "PNG")
    storages = Storage(30), Storage(30, encoding="raw"), Storage(0), Storage(256)
    for storage in (*storages, Resized(64, 70)):
        frame = decode.prepare_pixels(pixels[..., ::-1].copy(), storage)
        assert frame == decode.prepare(data, storage)
        assert frame.format == "RAW"


def test_statistics_are_those_of_the_stored_pixels_in_rgb_order():
    pixels = photograph(2, 30, 40).astype(float)
    data = saved(Image.fromarray(photograph(2, 30, 40)), "PNG")
    stored = decode.store(data, Storage())
    np.testing.assert_allclose(stored.mean, pixels.mean(axis=(0, 1)))
    np.testing.assert_allclose(stored.mean_of_squares, (pixels**2).mean(axis=(0, 1)))


@pytest.mark.parametrize("short_side", [0, 80, 256])
@pytest.mark.parametrize("encoding", ["auto", "jpeg"])
def test_a_plain_jpeg_that_is_small_enough_keeps_its_bytes(short_side, encoding):
    storage = Storage(short_side, encoding=encoding)
    for data in (jpeg(), jpeg(progressive=True), saved(PICTURE.convert("L"), "JPEG")):
        assert decode.store(data, storage).encoded is data
        assert decode.prepare(data, storage).encoded is data


def test_tensorflow_makes_the_same_pixels_of_stored_bytes():
    stored = decode.store(jpeg(), Storage())
    pixels = tf.io.decode_jpeg(stored.encoded, channels=3, dct_method="INTEGER_ACCURATE")
    np.testing.assert_array_equal(pixels, decode.decode(jpeg()))


def test_other_images_of_their_own_size_become_jpegs_without_subsampling():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    storage = Storage(0, quality=100, encoding="jpeg")
    stored = decode.store(saved(Image.fromarray(noise), "PNG"), storage)
    assert np.abs(decode.decode(stored.encoded).astype(int) - noise).max() <= 4
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode.store(saved(PICTURE, "JPEG", exif=exif), Storage())
    assert (turned.height, turned.width) == (16, 24)
    assert "exif" not in Image.open(io.BytesIO(turned.encoded)).info
    cmyk = decode.store(saved(PICTURE.convert("CMYK"), "JPEG"), Storage())
    assert Image.open(io.BytesIO(cmyk.encoded)).mode == "RGB"


def test_images_too_long_for_jpeg_are_refused_quietly(capfd):
    strip = saved(Image.new("L", (65_501, 2)), "PNG")
    with pytest.raises(BadImage, match="65,500 pixels on a side.*65501 x 2"):
        decode.store(strip, Storage(encoding="jpeg"))
    assert capfd.readouterr().err == ""
    assert decode.store(strip, Storage()).format == "RAW"
    assert decode.store(strip, Storage(2, encoding="raw")).width == 2
    longest = saved(Image.new("L", (65_500, 2)), "PNG")
    assert decode.store(longest, Storage(encoding="jpeg")).width == 65_500


def test_raw_is_the_centre_square():
    pixels = photograph(3, 40, 60)
    stored = decode.store(saved(Image.fromarray(pixels), "PNG"), Storage(40, encoding="raw"))
    assert (stored.format, stored.height, stored.width) == ("RAW", 40, 40)
    np.testing.assert_array_equal(pixels_of(stored), pixels[:, 10:50])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sides", [(211, 97), (64, 333), (31, 57), (70, 70), (90, 17)])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_resized_pixels_are_those_of_an_antialiased_filter(interpolation, sides, format):
    """Enlarged or reduced to the shorter side, rounded once, and never through another JPEG."""
    data = saved(Image.fromarray(photograph(7, *sides)), format)
    stored = decode.prepare(data, Resized(64, 70, interpolation))
    photo, shorter = Image.open(io.BytesIO(data)), min(sides)
    size = [int(70 * side / shorter) for side in photo.size]
    exact = tf.image.resize(np.asarray(photo), size[::-1], interpolation, antialias=True)
    expected = pixels_of(stored)
    assert stored.format == "RAW" and min(stored.height, stored.width) == 70
    np.testing.assert_allclose(expected, np.clip(exact, 0, 255), rtol=0, atol=0.51)
    # torchvision's centre crop; odd margins may be rounded by a pixel otherwise
    (view,) = pipeline.views_of([stored], size=64, crops=1)[0]
    top, left = ((side - 64) // 2 for side in expected.shape[:2])
    np.testing.assert_array_equal(view, expected[top : top + 64, left : left + 64])
    corner = pipeline.views_of([stored], size=64, crops=10)[0, 3]
    np.testing.assert_array_equal(corner, expected[-64:, -64:])


@pytest.mark.parametrize("crop, short_side", [(224, 256), (299, 342), (227, 256), (224, 235)])
def test_crops_of_any_size_are_cut_out_of_what_was_resized_once(crop, short_side):
    how = Resized(crop, short_side, "bicubic", 12)
    assert how.at(crop) is how
    sides = range(1, 1000)
    others = [how.at(side) for side in sides]
    shorter = np.array([other.short_side for other in others])
    cut = [views.crop_side(each, side) for each, side in zip(shorter, sides, strict=True)]
    assert [int(each) for each in cut] == list(sides)
    np.testing.assert_allclose(shorter, np.array(sides) * short_side / crop, atol=1.5)
    assert {(other.interpolation, other.bits) for other in others} == {("bicubic", 12)}


def test_what_would_be_too_long_after_resizing_is_refused():
    data = saved(Image.fromarray(photograph(8, 1, 300)), "PNG")
    with pytest.raises(BadImage, match=f"more than {MAX_SIDE:,} pixels .* becomes 76800 x 256"):
        decode.prepare(data, Resized(224, 256))


@pytest.mark.parametrize(
    "wrong", [(224, 223), (224, 257), (0, 1), (224, 256, "nearest"), (224, 256, "bicubic", 9)]
)
def test_wrong_resizing_is_refused(wrong):
    with pytest.raises(ValueError, match="^expected .*, received "):
        Resized(*wrong)


def test_storage_of_before_goes_on_working():
    old = {"short_side": 40, "quality": 95, "encoding": "jpeg"}
    stored = decode.store(saved(Image.fromarray(photograph(3)), "PNG"), Storage(**old))
    assert (stored.format, stored.height, Storage(**old).bits) == ("JPEG", 40, 16)
    assert tables_and_sampling(stored.encoded) == expected_tables(95)
    assert decode.storage_for(224) == Storage(256, None, "auto", 16)
    assert decode.storage_for(299).short_side == 342


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoding": "png"},
        {"short_side": -1},
        {"short_side": 0, "encoding": "raw"},
        {"quality": 0},
        {"bits": 11},
    ],
)
def test_wrong_storage_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Storage(**wrong)
