"""decode: one rule for every kind of image; what is damaged or no image is refused."""

import io
import os

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import decode
from data.decode import BadImage, Storage

# Red above blue, so that every orientation shows.
PIXELS = np.zeros((24, 16, 3), np.uint8)
PIXELS[:12], PIXELS[12:] = (200, 40, 20), (10, 60, 220)
PICTURE = Image.fromarray(PIXELS)
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF"]


def photograph(seed, height=80, width=100):
    noise = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


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


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format, orientation):
    quarters = np.zeros((24, 16, 3), np.uint8)  # all four differ
    quarters[:12, :8], quarters[12:, 8:] = (200, 200, 200), (90, 90, 90)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode.decode(saved(Image.fromarray(quarters), format, exif=exif))
    assert_is_picture(image, TURNS[orientation](quarters))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
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


def test_larger_images_are_reduced_once_by_area():
    pixels = cv2.cvtColor(photograph(2, 90, 121), cv2.COLOR_RGB2GRAY)
    data = saved(Image.fromarray(pixels), "PNG")
    stored = decode.store(data, Storage(short_side=30, quality=100))
    assert (stored.format, stored.height, stored.width) == ("JPEG", 30, 40)
    reduced = cv2.resize(pixels, (40, 30), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(decode.decode(stored.encoded) - reduced[..., None]).max() <= 2


def test_statistics_are_those_of_the_stored_pixels_in_rgb_order():
    pixels = photograph(2, 30, 40).astype(float)
    data = saved(Image.fromarray(photograph(2, 30, 40)), "PNG")
    stored = decode.store(data, Storage())
    np.testing.assert_allclose(stored.mean, pixels.mean(axis=(0, 1)))
    np.testing.assert_allclose(stored.mean_of_squares, (pixels**2).mean(axis=(0, 1)))


@pytest.mark.parametrize("short_side", [0, 80, 256])
def test_a_plain_jpeg_that_is_small_enough_keeps_its_bytes(short_side):
    for data in (jpeg(), jpeg(progressive=True), saved(PICTURE.convert("L"), "JPEG")):
        assert decode.store(data, Storage(short_side)).encoded is data


def test_tensorflow_makes_the_same_pixels_of_stored_bytes():
    stored = decode.store(jpeg(), Storage())
    pixels = tf.io.decode_jpeg(stored.encoded, channels=3, dct_method="INTEGER_ACCURATE")
    np.testing.assert_array_equal(pixels, decode.decode(jpeg()))


def test_other_images_of_their_own_size_become_jpegs_without_subsampling():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    stored = decode.store(saved(Image.fromarray(noise), "PNG"), Storage(0, quality=100))
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
        decode.store(strip, Storage())
    assert capfd.readouterr().err == ""
    assert decode.store(strip, Storage(2, encoding="raw")).width == 2
    longest = saved(Image.new("L", (65_500, 2)), "PNG")
    assert decode.store(longest, Storage()).width == 65_500


def test_raw_is_the_centre_square():
    pixels = photograph(3, 40, 60)
    stored = decode.store(saved(Image.fromarray(pixels), "PNG"), Storage(40, encoding="raw"))
    assert (stored.format, stored.height, stored.width) == ("RAW", 40, 40)
    image = np.frombuffer(stored.encoded, np.uint8).reshape(40, 40, 3)
    np.testing.assert_array_equal(image, pixels[:, 10:50])


@pytest.mark.parametrize(
    "wrong",
    [{"encoding": "png"}, {"short_side": -1}, {"short_side": 0, "encoding": "raw"}, {"quality": 0}],
)
def test_wrong_storage_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Storage(**wrong)
