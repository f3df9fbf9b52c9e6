"""Decodes image files to upright pixels, each with the decoder that suits it.

OpenCV decodes most files, Pillow those that OpenCV cannot decode or decodes wrong; both are strict.
"""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
import pillow_heif
from PIL import Image

from data.images import jpeg, kinds, png, tiff

MAX_PIXELS = 178_000_000
BITS = (8, 10, 12, 14, 16)  # lower bits that may be in use in 16-bit samples
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "HEIF")

_EXPECTED = "expected JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC"
_NAMES = {"MPO": "JPEG", "WEBP": "WebP", "HEIF": "HEIC"}  # instead of Pillow's

# Pillow's names of the accepted pixel layouts.
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_MODES |= {"I;16", "I;16L", "I;16B"}
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {  # by EXIF orientation; those of TIFF and HEIC are applied by the decoders
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}

# Checks for faults that decoders ignore, by format.
_FAULTS = {"JPEG": jpeg.fault, "MPO": jpeg.fault, "PNG": png.fault}

_stderr_lock = threading.Lock()

# One thread per worker process, and only the main image.
pillow_heif.register_heif_opener(
    decode_threads=1, thumbnails=False, depth_images=False, aux_images=False
)


class BadImage(ValueError):
    """Bytes that are not one whole image of an accepted format; the text says why."""


class TooLarge(BadImage):
    """An image of more than `MAX_PIXELS`."""


class Damaged(BadImage):
    """A file of an accepted format that cannot be decoded in full."""


def read_header(data: bytes) -> Image.Image:
    """Reads type and size; decodes no pixel.

    Args:
        data: A file of one of `FORMATS`.

    Returns:
        Pillow's image, not loaded; its size may not be that of the upright image.

    Raises:
        BadImage: If the file is no image, has more than `MAX_PIXELS` or unsupported pixels.
    """
    if not data:
        raise BadImage(f"an empty file, {_EXPECTED}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = Image.open(io.BytesIO(_essential(data)), formats=FORMATS)
    except Image.DecompressionBombError:
        raise TooLarge(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception:  # Pillow's parsers raise exceptions of any type on untrusted bytes
        raise _unopened(data) from None
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise TooLarge(f"more than {MAX_PIXELS:,} pixels: {width} x {height}")
    if header.format == "TIFF" and tiff.is_camera_raw(header):
        raise BadImage(f"a camera's raw file, {_EXPECTED}")
    if header.mode not in _MODES:
        raise BadImage(f"unsupported pixel type: {format_name(header)} {header.mode}")
    return header


def format_name(header: Image.Image) -> str:
    """Returns the common name of an image's format."""
    return _NAMES.get(header.format, header.format)


def is_deep(header: Image.Image) -> bool:
    """Whether an image is a PNG or TIFF, grey or RGB, with 16 bits per channel."""
    if header.format == "TIFF":
        return tiff.is_deep(header)
    return header.format == "PNG" and any(";16" in str(tile.args) for tile in header.tile)


def _unopened(data: bytes) -> BadImage:
    """Returns the error for a file that Pillow cannot open."""
    kind = kinds.detect(data)
    if kind is None:
        return BadImage(f"not an image of a known format, {_EXPECTED}")
    if kind.format is None:
        return BadImage(f"{kind.name}, {_EXPECTED}")
    return Damaged(f"{kind.name} that is cut short, damaged or of an unusual kind")


def _essential(data: bytes) -> bytes:
    """Removes metadata that could make a decoder fail."""
    return png.without_metadata(data) if data.startswith(png.SIGNATURE) else data


def decode_bgr(data: bytes, header: Image.Image, bits: int) -> np.ndarray:
    """Decodes an image in full.

    Args:
        data: The file.
        header: The file's header, from `read_header`.
        bits: Bits in use in 16-bit samples, one of `BITS`.

    Returns:
        uint8 [H, W, 3], in OpenCV's channel order, upright.

    Raises:
        Damaged: If the decoder notices that data is missing or wrong.
    """
    find_fault = _FAULTS.get(header.format)
    if find_fault and (fault := find_fault(data)):
        raise Damaged(f"damaged {format_name(header)}: {fault}")
    if header.format == "TIFF":
        image = _decode_tiff(data, header, bits)
    elif header.format == "HEIF":
        image = _by_pillow(header)
    elif bits < 16 and is_deep(header):
        image = _shallow(data, header, bits)
    else:
        image = _by_opencv(_essential(data), header)
    turn = _UPRIGHT.get(_orientation(header))
    return turn(image) if turn else image


def _decode_tiff(data: bytes, header: Image.Image, bits: int) -> np.ndarray:
    """Decodes a TIFF with the decoder that is right for it.

    OpenCV multiplies colours by alpha, mixes up tiles of 16-bit grey, and supports neither 2 bits
    per sample nor 4-bit grey.
    """
    depth = tiff.bits_per_sample(header)
    if tiff.is_deep(header):
        if bits == 16 and header.mode == "RGB":
            with contextlib.suppress(Damaged):  # OpenCV refuses uncompressed tiles
                return _by_opencv(data, header)
        return _shallow(data, header, bits)
    if header.mode == "RGBA" or depth == 2 or (depth == 4 and header.mode == "L"):
        return _by_pillow(header)
    return _by_opencv(data, header)


def _shallow(data: bytes, header: Image.Image, bits: int) -> np.ndarray:
    """Decodes 16 bits per channel to uint8 [H, W, 3] in OpenCV's channel order."""
    image = upper_bits(samples(data, header), bits)
    if image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    colours = np.ascontiguousarray(image[..., :3])
    if header.format == "TIFF" and image.shape[2] == 4 and tiff.is_premultiplied(header):
        alpha = image[..., 3:]
        parts = colours.astype(np.uint16) * 255 // np.maximum(alpha, 1)
        return np.where(alpha > 0, np.minimum(parts, 255), 0).astype(np.uint8)
    return colours


def upper_bits(deep: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the upper 8 of the bits in use; larger samples become 255.

    Args:
        deep: uint16 of any shape; it is overwritten.
        bits: Bits in use, one of `BITS`.

    Returns:
        uint8 of the same shape: min(sample, 2**bits - 1) >> (bits - 8).
    """
    if bits < BITS[-1]:
        np.minimum(deep, (1 << bits) - 1, out=deep)
    np.right_shift(deep, bits - 8, out=deep)
    return deep.astype(np.uint8)


def samples(data: bytes, header: Image.Image) -> np.ndarray:
    """Decodes an image with 16 bits per channel (`is_deep`) to its samples.

    Args:
        data: The file.
        header: The file's header, from `read_header`.

    Returns:
        uint16 [H, W, C]: C is 1 for grey, or B, G, R, perhaps followed by alpha.

    Raises:
        Damaged: If the decoder notices that data is missing or wrong.
    """
    planes = _planes(data, header)
    if planes:
        channels = [_unreduced(plane, header) for plane in planes]
        image = cv2.merge([*channels[2::-1], *channels[3:]])
    else:
        image = _unreduced(_essential(data), header)
    if header.format == "TIFF" and tiff.is_white_zero(header):
        np.invert(image, out=image)
    return image if image.ndim == 3 else image[..., np.newaxis]


def _planes(data: bytes, header: Image.Image) -> list[bytes]:
    if header.format != "TIFF":
        return []
    try:
        return list(tiff.planes(data, header))
    except Exception:  # as in `read_header`
        raise Damaged(f"cut short or damaged ({format_name(header)})") from None


def _unreduced(data: bytes, header: Image.Image) -> np.ndarray:
    """Decodes to uint16 [H, W] or [H, W, C]; OpenCV must agree with Pillow on the 16 bits."""
    image = _imdecode(data, header, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint16:
        raise Damaged(
            f"damaged {format_name(header)}: expected 16 bits, found {8 * image.itemsize}"
        )
    return image


def _by_opencv(data: bytes, header: Image.Image) -> np.ndarray:
    return _imdecode(data, header, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def _imdecode(data: bytes, header: Image.Image, flags: int) -> np.ndarray:
    try:
        with _quiet():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise Damaged(f"cannot be decoded ({format_name(header)}): {error.err}") from None
    if image is None:
        raise Damaged(f"cut short or damaged ({format_name(header)})")
    return image


def _by_pillow(header: Image.Image) -> np.ndarray:
    """Decodes files that OpenCV cannot decode, or decodes wrong; drops alpha."""
    try:
        with _quiet():
            if header.mode in _PREMULTIPLIED:
                header = header.convert(_PREMULTIPLIED[header.mode])
            return cv2.cvtColor(np.asarray(header.convert("RGB")), cv2.COLOR_RGB2BGR)
    except MemoryError:
        raise
    except Exception:  # as in `read_header`
        raise Damaged(f"cut short or damaged ({format_name(header)})") from None


def is_turned(header: Image.Image) -> bool:
    """Whether the EXIF orientation turns or mirrors the image."""
    return _orientation(header) in _UPRIGHT


def _orientation(header: Image.Image) -> int | None:
    """Reads the EXIF orientation; for an AVIF, Pillow returns the format's own."""
    if header.format in ("TIFF", "HEIF"):
        return None
    try:
        return Image.Image.getexif(header).get(_EXIF_ORIENTATION)  # a PNG's own decodes it all
    except Exception:  # as in `read_header`
        return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences libjpeg and libpng, which write to the process's stderr directly."""
    with _stderr_lock, open(os.devnull, "wb") as nowhere:
        stderr = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
