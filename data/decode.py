"""One image's bytes to pixels, and to what a record holds: the same for conversion and classify.py.

Decided by content, never by name. Every image becomes upright 8-bit RGB: grey is three equal
channels, a palette is looked up, of 16 bits the upper 8 are kept, alpha is dropped (not blended),
CMYK and YCbCr are converted, the EXIF orientation is applied, of an animation or several pages
the first counts. No TensorFlow here: worker processes import this file.
"""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from data import jpeg

MAX_PIXELS = 178_000_000
_MAX_JPEG_SIDE = 65_500  # of libjpeg
_CROP_OF_IMAGE = 0.875  # test crops of 224 of 256: K. He et al., arXiv:1512.03385
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF")
ENCODINGS = ("jpeg", "raw")

# Pillow's names of pixel layouts for which the rules above say what becomes of them.
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_MODES |= {"I;16", "I;16L", "I;16B"}
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {  # by EXIF orientation; TIFF's is applied by the decoders
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}

_stderr_lock = threading.Lock()


class BadImage(ValueError):
    """Bytes that are not one whole image of an accepted format; the text says why."""


class TooLarge(BadImage):
    """An image of more than `MAX_PIXELS`."""


class Damaged(BadImage):
    """A file of an accepted format, of which the decoder makes no whole image."""


@dataclass(frozen=True)
class Storage:
    """How images are stored; kept in dataset.json and in checkpoints.

    Attributes:
        short_side: Shorter side in pixels, larger images are reduced to it; 0 keeps every size.
        quality: JPEG quality, 1..100.
        encoding: "jpeg", or "raw" for centre squares of decoded pixels.
    """

    short_side: int = 256
    quality: int = 95
    encoding: str = "jpeg"

    def __post_init__(self):
        """Refuses what no image can be stored as."""
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}: {self.encoding!r}")
        if self.short_side < 0 or (self.short_side == 0 and self.encoding == "raw"):
            raise ValueError(
                f"short_side must be at least {int(self.encoding == 'raw')} pixels for encoding "
                f"{self.encoding}: {self.short_side}"
            )
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be 1 to 100: {self.quality}")


def storage_for(image_size: int) -> Storage:
    """How to store images for crops of `image_size` pixels: with room for 7/8 of them, or 256."""
    return Storage(max(256, round(image_size / _CROP_OF_IMAGE)))


@dataclass(frozen=True)
class Stored:
    """One image as a record holds it.

    Attributes:
        encoded: A JPEG file, or uint8 RGB pixels [height, width, 3].
        format: "JPEG" or "RAW".
        height: In pixels.
        width: In pixels.
        mean: Of every channel (RGB) over the pixels, 0..255, before JPEG encoding.
        mean_of_squares: Of every channel.
    """

    encoded: bytes
    format: str
    height: int
    width: int
    mean: tuple[float, float, float]
    mean_of_squares: tuple[float, float, float]


def decode(data: bytes) -> np.ndarray:
    """Decodes an image strictly and in full.

    Args:
        data: A file of one of `FORMATS`.

    Returns:
        uint8 [H, W, 3], RGB, upright.

    Raises:
        BadImage: If the bytes are not an image of an accepted format, are cut short or damaged in
            a way that a decoder can see, or have more than `MAX_PIXELS`.
    """
    return cv2.cvtColor(_decode_bgr(data, read_header(data)), cv2.COLOR_BGR2RGB)


def decode_plain(data: bytes) -> np.ndarray:
    """Decodes a JPEG of which every decoder makes the same pixels, as what `store` returns is.

    In half the time that one call of TensorFlow's takes.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), flags), cv2.COLOR_BGR2RGB)


def store(data: bytes, storage: Storage) -> Stored:
    """Decodes an image and makes of it what a record holds.

    It is reduced to `storage.short_side` by area interpolation, never enlarged. An upright grey or
    RGB JPEG that needs no reduction keeps its own bytes; anything else of its own size is encoded
    without chroma subsampling. Raw squares are smaller than `short_side` where the image is.

    Args:
        data: A file of one of `FORMATS`.
        storage: How to store it.

    Returns:
        The stored image with its statistics.

    Raises:
        BadImage: As `decode`.
    """
    header = read_header(data)
    image = _decode_bgr(data, header)
    small = storage.short_side == 0 or min(image.shape[:2]) <= storage.short_side
    if storage.encoding == "jpeg" and small and _is_plain_jpeg(data, header):
        return _with_statistics(data, "JPEG", image)
    return store_pixels(image, storage)


def store_pixels(pixels: np.ndarray, storage: Storage) -> Stored:
    """Makes of an image what a record holds of it, as `store` does.

    Args:
        pixels: uint8 [H, W, 3], in OpenCV's channel order.
        storage: How to store it.

    Raises:
        BadImage: If it is too long for JPEG.
    """
    image = _reduced(pixels, storage.short_side)
    if storage.encoding == "raw":
        image = _centre_square(image)
        return _with_statistics(cv2.cvtColor(image, cv2.COLOR_BGR2RGB).tobytes(), "RAW", image)
    encoded = _jpeg(image, storage.quality, subsampled=image is not pixels)
    return _with_statistics(encoded, "JPEG", image)


def _with_statistics(encoded: bytes, format: str, image: np.ndarray) -> Stored:
    height, width = image.shape[:2]
    mean, std = (moment.ravel()[::-1] for moment in cv2.meanStdDev(image))
    squares = mean**2 + std**2
    return Stored(encoded, format, height, width, tuple(mean.tolist()), tuple(squares.tolist()))


def read_header(data: bytes) -> Image.Image:
    """Reads type and size; decodes no pixel.

    Args:
        data: A file of one of `FORMATS`.

    Returns:
        Pillow's image, not loaded; its size may not be that of the upright image.

    Raises:
        BadImage: If it is none, has more than `MAX_PIXELS` or pixels of a kind not accepted.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise TooLarge(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception:  # Pillow's parsers meet strangers' bytes and raise whatever they trip over
        raise BadImage(f"not an image of a known format ({', '.join(FORMATS)})") from None
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise TooLarge(f"more than {MAX_PIXELS:,} pixels: {width} x {height}")
    if header.mode not in _MODES:
        raise BadImage(f"unsupported pixel type: {header.format} {header.mode}")
    return header


def _decode_bgr(data: bytes, header: Image.Image) -> np.ndarray:
    """Decodes in full to upright uint8 [H, W, 3] in OpenCV's channel order."""
    if header.format in ("JPEG", "MPO"):
        if fault := jpeg.fault(data):
            raise Damaged(f"damaged JPEG: {fault}")
    if header.format == "TIFF" and header.mode == "RGBA":
        return _drop_alpha(header)
    try:
        with _quiet():
            flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise Damaged(f"cannot be decoded: {error.err}") from None
    if image is None:
        raise Damaged(f"cut short or damaged ({header.format})")
    turn = _UPRIGHT.get(_orientation(header))
    return turn(image) if turn else image


def _drop_alpha(header: Image.Image) -> np.ndarray:
    """Decodes a TIFF with alpha, by which OpenCV would multiply the colours."""
    try:
        with _quiet():
            return cv2.cvtColor(np.asarray(header.convert("RGB")), cv2.COLOR_RGB2BGR)
    except Exception:  # as in `read_header`
        raise Damaged("cut short or damaged (TIFF)") from None


def is_turned(header: Image.Image) -> bool:
    """Whether the EXIF orientation asks to turn or to mirror the image."""
    return _orientation(header) in _UPRIGHT


def _is_plain_jpeg(data: bytes, header: Image.Image) -> bool:
    """Whether every decoder makes the same pixels of the file: upright, 8-bit, grey or RGB."""
    if header.format not in ("JPEG", "MPO") or header.mode not in ("L", "RGB"):
        return False
    return jpeg.is_common(data) and not is_turned(header)


def _orientation(header: Image.Image) -> int | None:
    """Reads the EXIF orientation, as which Pillow also gives an AVIF's own."""
    if header.format == "TIFF":
        return None
    try:
        return Image.Image.getexif(header).get(_EXIF_ORIENTATION)  # a PNG's own decodes it all
    except Exception:  # as in `read_header`
        return None


def _reduced(image: np.ndarray, short_side: int) -> np.ndarray:
    """Reduces the shorter side to `short_side`; returns `image` itself where it is no longer."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    if not 0 < short_side < shorter:
        return image
    size = [max(short_side, round(side * short_side / shorter)) for side in (width, height)]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _centre_square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _jpeg(image: np.ndarray, quality: int, *, subsampled: bool) -> bytes:
    height, width = image.shape[:2]
    if max(height, width) > _MAX_JPEG_SIDE:  # OpenCV would report it on stderr
        raise BadImage(
            f"more than {_MAX_JPEG_SIDE:,} pixels on a side, too long for JPEG: {width} x {height}"
        )
    factor = "420" if subsampled else "444"
    sampling = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{factor}")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    written, encoded = cv2.imencode(".jpg", image, options)
    if not written:
        raise BadImage(f"cannot be encoded as JPEG: {width} x {height} pixels")
    return encoded.tobytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences libjpeg and libpng, which write to the process's stderr without asking anyone."""
    with _stderr_lock, open(os.devnull, "wb") as nowhere:
        stderr = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
