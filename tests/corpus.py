"""Image files as strangers have them: sound ones, odd ones, damaged ones, and what is no image.

`write(folder)` makes them all. Their outcome is the same everywhere: conversion stores the sound
and the odd ones and rejects the others; so do the doctor and classify.py.
"""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pillow_heif
from PIL import Image

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "HEIF")
SUFFIXES = ("jpg", "png", "gif", "bmp", "webp", "tif", "avif", "heic")
EXTENSIONS = dict(zip(FORMATS, SUFFIXES, strict=True))
CUTS = (0.01, 0.1, 0.5, 0.95)  # parts of a file that are left

pillow_heif.register_heif_opener()


def write(folder):
    """Writes the corpus.

    Args:
        folder: An existing folder.

    Returns:
        Two sets of file names: those that are images, those that are not.
    """
    sound, bad = _sound(), _bad()
    for name, data in {**sound, **bad}.items():
        (folder / name).write_bytes(data)
    os.symlink("nowhere.jpg", folder / "link to nowhere.jpg")
    os.symlink("link to itself.jpg", folder / "link to itself.jpg")
    return set(sound), set(bad) | {"link to nowhere.jpg", "link to itself.jpg"}


def picture(seed=0, height=60, width=80):
    """Smooth coloured noise, another for each seed: a Pillow image."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))


def saved(image, format, **options):
    """The bytes of a Pillow image's file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def written(extension, pixels):
    """The bytes of OpenCV's file of pixels."""
    return cv2.imencode(extension, pixels)[1].tobytes()


def tiff(
    pixels,
    bits=16,
    photometric=None,
    *,
    planar=1,
    tiles=False,
    extra=None,
    colours=None,
    order="<",
    more=(),
):
    """The bytes of a TIFF that nobody compresses, which Pillow and OpenCV would not write.

    Args:
        pixels: [H, W] or [H, W, C] of samples; in tiles, at most 256 x 256.
        bits: Per sample: 2, 4, 8 or 16; below 8 for one channel.
        photometric: 0: white is zero, 1: grey, 2: RGB, 3: palette; None for grey or RGB.
        planar: 1 for the samples of a pixel together, 2 for one channel after the other.
        tiles: One tile for each channel or for all, in place of one strip.
        extra: The last channel: 0 anything, 1 alpha that colours are multiplied by, 2 alpha.
        colours: uint16 [3, 2**bits], of a palette.
        order: "<" for the smaller byte first, or ">".
        more: Other entries of 16 bits, by tag.
    """
    pixels = np.atleast_3d(pixels)
    height, width, channels = pixels.shape
    if tiles:
        pixels = np.pad(pixels, ((0, 256 - height), (0, 256 - width), (0, 0)))
    parts = [pixels] if planar == 1 else np.split(pixels, channels, axis=2)
    parts = [_samples(part, bits, order) for part in parts]
    places = np.cumsum([8] + [len(part) for part in parts]).tolist()
    entries = {256: [width], 257: [height], 258: [bits] * channels, 259: [1], 277: [channels]}
    entries |= {262: [photometric if photometric is not None else 1 + (channels > 2)]}
    entries |= {284: [planar]}
    offsets, counts, size = (324, 325, {322: [256], 323: [256]}) if tiles else (273, 279, {})
    entries |= {offsets: places[:-1], counts: [len(part) for part in parts]} | size
    entries |= {} if tiles else {278: [height]}
    entries |= dict(more)
    entries |= {} if extra is None else {338: [extra]}
    entries |= {} if colours is None else {320: np.ravel(colours).tolist()}
    rows, values, after = b"", b"", places[-1] + 2 + 12 * len(entries) + 4
    for tag, numbers in sorted(entries.items()):
        letter, kind = ("I", 4) if tag in (offsets, counts) else ("H", 3)
        content = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        rows += struct.pack(f"{order}HHI", tag, kind, len(numbers))
        rows += content.ljust(4, b"\0")[:4] if len(content) <= 4 else b""
        if len(content) > 4:
            rows += struct.pack(f"{order}I", after + len(values))
            values += content
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, places[-1])
    directory = struct.pack(f"{order}H", len(entries)) + rows + bytes(4) + values
    return start + b"".join(parts) + directory


def _samples(pixels, bits, order):
    if bits >= 8:
        return pixels.astype(f"{order}u{bits // 8}").tobytes()
    single = np.unpackbits(pixels.astype(np.uint8), axis=2)[..., -bits:]
    return np.packbits(single.reshape(len(pixels), -1), axis=1).tobytes()


def heic(pixels, **options):
    """The bytes of a HEIC file of 10 bits, of pixels uint16 [H, W, 3]."""
    file, (height, width, _) = io.BytesIO(), pixels.shape
    image = pillow_heif.from_bytes("RGB;16", (width, height), pixels.tobytes())
    image.save(file, quality=90, **options)
    return file.getvalue()


def _sound():
    files = {f"plain.{EXTENSIONS[format]}": saved(picture(), format) for format in FORMATS}
    files |= {f"a {format}.jpg": saved(picture(1), format) for format in FORMATS}
    files |= {
        f"turned {number}.jpg": saved(picture(number), "JPEG", exif=_turned(number))
        for number in range(10)  # 0 and 9 mean nothing
    }
    files |= {
        f"{height} x {width}.png": saved(picture(2, height, width), "PNG")
        for height, width in ((1, 1), (1, 900), (900, 1), (3, 2), (2000, 40))
    }
    image, deep = picture(3), np.array(picture(4)).astype(np.uint16) * 257
    alpha = np.dstack([np.array(image), np.full((60, 80), 128, np.uint8)])
    jpeg = saved(image, "JPEG")
    files |= {
        "progressive.jpg": saved(image, "JPEG", progressive=True),
        "restart markers.jpg": saved(image, "JPEG", restart_marker_blocks=2),
        "not subsampled.jpg": saved(image, "JPEG", subsampling=0, quality=100),
        "worst quality.jpg": saved(image, "JPEG", quality=1),
        "grey.jpg": saved(image.convert("L"), "JPEG"),
        "cmyk.jpg": saved(image.convert("CMYK"), "JPEG"),
        "much exif.jpg": saved(image, "JPEG", exif=b"Exif\0\0" + bytes(60_000)),
        "broken exif.jpg": saved(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "profile.jpg": saved(image, "JPEG", icc_profile=bytes(200)),
        "comment.jpg": saved(image, "JPEG", comment=b"\xff\xd9 is not the end"),
        "an end too early.jpg": jpeg[:-500] + b"\xff\xd9",  # grey from there; none complains
        "garbage after the end.jpg": jpeg + b"<?php echo 1; ?>" + bytes(999),
        "two in one.jpg": jpeg + saved(picture(5), "JPEG"),
        "JPEG by its content.png": jpeg,
        "PNG by its content.jpg": saved(image, "PNG"),
        "WebP by its content.jpeg": saved(image, "WEBP"),
        "UPPER CASE.JPG": jpeg,
        "lossless.webp": saved(image, "WEBP", lossless=True),
        "interlaced.gif": saved(image.quantize(16), "GIF", interlace=True),
        "palette.png": saved(image.quantize(8), "PNG"),
        "one bit.png": saved(image.convert("1"), "PNG"),
        "grey.png": saved(image.convert("L"), "PNG"),
        "grey with alpha.png": saved(image.convert("LA"), "PNG"),
        "alpha.png": saved(Image.fromarray(alpha), "PNG"),
        "alpha.webp": saved(Image.fromarray(alpha), "WEBP"),
        "alpha.tif": saved(Image.fromarray(alpha), "TIFF"),
        "16 bits.png": written(".png", deep),
        "16 bits.tif": written(".tiff", deep),
        "16 bits grey.png": written(".png", deep[..., 0]),
        "16 bits alpha.png": written(".png", np.dstack([deep, deep[..., 0]])),
        "compressed.tif": saved(image, "TIFF", compression="tiff_lzw"),
        "cmyk.tif": saved(image.convert("CMYK"), "TIFF"),
        "12 bits.png": written(".png", deep >> 4),
        "planes of 16 bits.tif": tiff(deep, planar=2),
        "tiles of 16 bits.tif": tiff(deep, tiles=True),
        "4 bits.tif": tiff(np.array(image.convert("L")) >> 4, bits=4),
        "2 bits, white is 0.tif": tiff(np.array(image.convert("L")) >> 6, bits=2, photometric=0),
        "alpha.heic": saved(Image.fromarray(alpha), "HEIF"),
        "grey.heic": saved(image.convert("L"), "HEIF"),
        "10 bits.heic": heic(deep),
        "turned.heic": saved(image, "HEIF", exif=_turned(6).tobytes()),
        "tiled.heic": saved(picture(3, 200, 300), "HEIF", tile_size=64),
        "another brand.heic": _branded(saved(image, "HEIF"), b"mif1"),
        "text in it.png": _png_with(b"tEXt", b"Comment\0" + b"x" * 9999),
        "unknown part.png": _png_with(b"quUx", bytes(100)),
        "large profile.png": _png_with(b"iCCP", b"p\0\0" + zlib.compress(bytes(2_000_000))),
        "large text.png": _png_with(b"zTXt", b"w\0\0" + zlib.compress(b"node " * 400_000)),
        "damaged profile.png": _png_with(b"iCCP", b"p\0\0" + bytes(9)),
        "wrong checksum of gAMA.png": _png_with(b"gAMA", struct.pack(">I", 45_455), wrong=1),
        "wrong checksum of tRNS.png": _png_with(b"tRNS", bytes(6), wrong=1),
        "short tRNS.png": _png_with(b"tRNS", bytes(3)),
        "half an animation.png": _png_with(b"acTL", struct.pack(">II", 2, 0)),
        "spaces  in   its name .jpg": jpeg,
        "-rf.jpg": jpeg,
        "$(touch hacked).jpg": jpeg,
        "%s%n{0}.jpg": jpeg,
        "na\u00efve \u732b \U0001f408.jpg": jpeg,
        "two\nlines, and a comma.jpg": jpeg,
        "quote'\".jpg": jpeg,
        os.fsdecode(b"latin-1 \xe9.jpg"): jpeg,
        "x" * 240 + ".jpg": jpeg,
    }
    frames = [picture(6), picture(7)]
    files |= {
        f"moving.{EXTENSIONS[format]}": saved(
            frames[0], format, save_all=True, append_images=frames[1:]
        )
        for format in ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")
    }
    return files


def _bad():
    files = {}
    for format in FORMATS:
        whole = saved(picture(8), format)
        for part in CUTS:
            name = f"{100 * part:g} percent.{EXTENSIONS[format]}"
            files[name] = whole[: int(part * len(whole))]
    jpeg, png = (saved(picture(9), format) for format in ("JPEG", "PNG"))
    scan, heif = jpeg.index(b"\xff\xda"), saved(picture(9), "HEIF")
    palette = saved(picture(9).quantize(8), "PNG")
    colours = palette.index(b"PLTE") + 5
    files |= {
        "empty.jpg": b"",
        "three bytes.jpg": b"\xff\xd8\xff",
        "no end.jpg": jpeg[:-2],
        "header only.jpg": jpeg[:scan],
        "bogus marker.jpg": jpeg[: scan + 300] + b"\xff\xc0" + jpeg[scan + 302 :],
        "zeros.jpg": bytes(5000),
        "noise.jpg": np.random.default_rng(0).bytes(5000),
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "text.png": b"not an image\n" * 40,
        "script.gif": b"GIF89a/*<script>alert(1)</script>*/=1;",
        "program.png": b"\x7fELF" + bytes(900),
        "archive.jpg": b"PK\x03\x04" + bytes(900),
        "pickle.png": b"\x80\x04\x95\x20\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93.",
        "vector.png": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "document.jpg": b"%PDF-1.7\n" + bytes(900),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "another format.png": saved(picture(), "PPM"),
        "HEIC without pixels.heic": heif[:24] + bytes(400),
        "sequence without pixels.avif": b"\0\0\0\x18ftypavis\0\0\0\0avismif1" + bytes(300),
        "film.jpg": b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + bytes(300),
        "film.heic": b"RIFF\xff\0\0\0AVI LIST" + bytes(300),
        "layers.png": b"8BPS\0\1" + bytes(300),
        "camera.tif": b"II*\0\x10\0\0\0CR\2\0" + bytes(300),
        "wrong colours.png": palette[:colours] + b"!" + palette[colours + 1 :],
        "icon.png": saved(picture(), "ICO"),
        "floating point.tif": saved(picture().convert("F"), "TIFF"),
        "wide and high.jpg": _sized_jpeg(jpeg, 65_500, 65_500),
        "no height.jpg": _sized_jpeg(jpeg, 0, 80),
        "bomb.png": _png(20_000, 20_000, zlib.compress(bytes(20_000 * 2501), 9)),
        "thin bomb.png": _png(1 << 30, 1, zlib.compress(bytes(1000))),
        "no pixels.png": _png(0, 0, zlib.compress(b"")),
        "wrong checksum.png": png[:-20] + bytes([png[-20] ^ 1]) + png[-19:],
        "no data.png": png[: png.index(b"IDAT") - 4] + png[-12:],
        "signature only.png": png[:8],
        "wrong length.png": png[:8] + b"\xff\xff\xff\xff" + png[12:],
        "bomb.gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20),
        "bomb.bmp": b"BM" + struct.pack("<IHHIIiiHH", 54, 0, 0, 54, 40, 50_000, 50_000, 1, 24),
        "loop.tif": b"II*\0" + struct.pack("<IHI", 8, 0, 8),
        "bomb.webp": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6,
    }
    return files


def _turned(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def _sized_jpeg(jpeg, height, width):
    """A JPEG whose header says another size."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def _branded(data, brand):
    """An ISO base media file of another major brand."""
    return data[:8] + brand + data[12:]


def chunk(kind, data, wrong=0):
    """A part of a PNG, whose checksum is right where `wrong` is 0."""
    checksum = zlib.crc32(kind + data) ^ wrong
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _png(width, height, data):
    """A PNG of one bit per pixel, whatever its data."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _png_with(kind, data, wrong=0):
    """A sound PNG with one more part."""
    png = saved(picture(10), "PNG")
    return png[:33] + chunk(kind, data, wrong) + png[33:]
