"""One image's bytes to pixels, and to what a record holds: the same for conversion and classify.py.

Decided by content, never by name. Every image becomes upright 8-bit RGB: grey is three equal
channels, a palette is looked up, of 16 bits the upper 8 of those in use are kept, alpha is dropped
(not blended), CMYK and YCbCr are converted, the EXIF orientation is applied (of HEIC and AVIF the
format's own, as their standards say), of an animation or several pages the first counts. A PNG's
metadata decides nothing.

What is stored: a larger image is reduced once and becomes a JPEG; one that needs no reduction is
changed as little as can be. An upright grey or RGB JPEG keeps its bytes, what comes without loss
(PNG, GIF, BMP, lossless WebP and TIFF) is stored without loss, anything else becomes a JPEG of
higher quality. JPEGs are written with full chroma: networks see colours at every pixel.

No TensorFlow here: worker processes import this file.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from data.images import decoders, jpeg, kinds, png, tiff, webp
from data.images.decoders import BITS, BadImage, decode_bgr, read_header

ENCODINGS = ("auto", "jpeg", "raw")
RAW_BYTES = 1 << 20  # pixels up to here are stored as they are, fastest to read; more as PNG

# A reduced image has none of the artefacts left that it came with, so that a lower quality does;
# one of its own size is compressed for the second time, which is not to show.
REDUCED_QUALITY = 90
SAME_SIZE_QUALITY = 95

_MAX_JPEG_SIDE = 65_500  # of libjpeg
_CROP_OF_IMAGE = 0.875  # test crops of 224 of 256: K. He et al., arXiv:1512.03385
_LOSSLESS: dict[str, Callable[[bytes, Image.Image], bool]] = {  # by format
    "PNG": lambda data, header: True,
    "GIF": lambda data, header: True,
    "BMP": lambda data, header: True,
    "WEBP": lambda data, header: webp.is_lossless(data),
    "TIFF": lambda data, header: tiff.is_lossless(header),
}


@dataclass(frozen=True)
class Storage:
    """How images are stored; kept in dataset.json and in checkpoints.

    Attributes:
        short_side: Shorter side in pixels, larger images are reduced to it; 0 keeps every size.
        quality: JPEG quality, 1..100; None for `REDUCED_QUALITY` and `SAME_SIZE_QUALITY`.
        encoding: "auto" for JPEG, and no loss where an image comes without loss and needs no
            reduction; "jpeg" for JPEG only; "raw" for centre squares of decoded pixels.
        bits: That the samples of images with 16 bits per channel fill, one of `BITS`.
    """

    short_side: int = 256
    quality: int | None = None
    encoding: str = "auto"
    bits: int = 16

    def __post_init__(self):
        """Refuses what no image can be stored as."""
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}: {self.encoding!r}")
        if self.short_side < 0 or (self.short_side == 0 and self.encoding == "raw"):
            raise ValueError(
                f"short_side must be at least {int(self.encoding == 'raw')} pixels for encoding "
                f"{self.encoding}: {self.short_side}"
            )
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be 1 to 100: {self.quality}")
        if self.bits not in BITS:
            raise ValueError(f"bits must be one of {', '.join(map(str, BITS))}: {self.bits!r}")


def storage_for(image_size: int) -> Storage:
    """How to store images for crops of `image_size` pixels: with room for 7/8 of them, or 256."""
    return Storage(max(256, round(image_size / _CROP_OF_IMAGE)))


@dataclass(frozen=True)
class Stored:
    """One image as a record holds it.

    Attributes:
        encoded: A JPEG or PNG file, or uint8 RGB pixels [height, width, 3].
        format: "JPEG", "PNG" or "RAW".
        height: In pixels.
        width: In pixels.
        mean: Of every channel (RGB) over the pixels, 0..255, before any JPEG encoding.
        mean_of_squares: Of every channel.
    """

    encoded: bytes
    format: str
    height: int
    width: int
    mean: tuple[float, float, float]
    mean_of_squares: tuple[float, float, float]


def decode(data: bytes, bits: int = 16) -> np.ndarray:
    """Decodes an image strictly and in full.

    Args:
        data: A file of one of `decoders.FORMATS`.
        bits: That the samples of a PNG or TIFF with 16 bits per channel fill, one of
            `BITS`: the sample v becomes min(v, 2**bits - 1) >> (bits - 8). Of an RGB TIFF
            whose samples fill all 16, libtiff rounds instead. Other images are what they are.

    Returns:
        uint8 [H, W, 3], RGB, upright.

    Raises:
        BadImage: If the bytes are not an image of an accepted format, are cut short or damaged in
            a way that a decoder can see, or have more than `decoders.MAX_PIXELS`.
    """
    return cv2.cvtColor(decode_bgr(data, read_header(data), bits), cv2.COLOR_BGR2RGB)


def decode_plain(data: bytes) -> np.ndarray:
    """Decodes a JPEG of which every decoder makes the same pixels, as what `store` returns is.

    In half the time that one call of TensorFlow's takes.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), flags), cv2.COLOR_BGR2RGB)


def may_be_deep(head: bytes) -> bool:
    """Whether a file may be an image with 16 bits per channel.

    Args:
        head: Its first `kinds.HEAD` bytes, or more.
    """
    kind = kinds.of(head)
    if kind is None or kind.format not in ("PNG", "TIFF"):
        return False
    return kind.format == "TIFF" or png.bit_depth(head) == 16


def largest_sample(data: bytes) -> int:
    """Returns the largest colour sample of an image with 16 bits per channel.

    Every other file costs a look at its header: it, and what cannot be decoded, gives 0.

    Args:
        data: Any file.

    Returns:
        0..65,535; `bits_for` makes bits of it.
    """
    if not may_be_deep(data):
        return 0
    try:
        header = read_header(data)
        return int(decoders.samples(data, header)[..., :3].max()) if decoders.is_deep(header) else 0
    except BadImage:
        return 0


def bits_for(largest: int) -> int:
    """Returns the bits that samples of 16 bits fill, one of `BITS`.

    Cameras and scanners fill the lower 10, 12 or 14; which, only the whole of a data set tells.

    Args:
        largest: The largest `largest_sample` of a data set; 0 gives 16.
    """
    return next((bits for bits in BITS if 0 < largest < 1 << bits), BITS[-1])


def store(data: bytes, storage: Storage) -> Stored:
    """Decodes an image and makes of it what a record holds.

    An image whose shorter side is longer than `storage.short_side` is reduced to it by area
    interpolation; none is enlarged. Encoding "raw" keeps the centre square, which is smaller where
    the image is. The others keep all of the image:

    - Reduced, it becomes a JPEG of `REDUCED_QUALITY`.
    - An upright grey or RGB JPEG of its own size keeps its own bytes.
    - For encoding "auto", an image of its own size that comes without loss is stored without loss:
      as pixels up to `RAW_BYTES` of them, above as PNG.
    - Anything else of its own size becomes a JPEG of `SAME_SIZE_QUALITY`.

    Args:
        data: A file of one of `decoders.FORMATS`.
        storage: How to store it; its quality stands for both.

    Returns:
        The stored image with its statistics.

    Raises:
        BadImage: As `decode`, and if an image is too long for JPEG.
    """
    header = read_header(data)
    image = decode_bgr(data, header, storage.bits)
    if _keeps_bytes(data, header, image, storage):
        return _with_statistics(data, "JPEG", image)
    if storage.encoding == "raw":
        return prepare_pixels(image, storage)
    if not _fits(image, storage):
        return _as_jpeg(_reduced(image, storage.short_side), storage.quality or REDUCED_QUALITY)
    if storage.encoding == "auto" and _is_lossless(data, header):
        return _as_png(image) if image.nbytes > RAW_BYTES else _as_raw(image)
    return _as_jpeg(image, storage.quality or SAME_SIZE_QUALITY)


def prepare(data: bytes, storage: Storage) -> Stored:
    """Decodes an image to look at it once: as `store` does, but nothing is compressed.

    Args:
        data: A file of one of `decoders.FORMATS`.
        storage: How the images of the training were stored.

    Returns:
        Pixels, reduced or cut as a record's, or the file itself where `store` keeps its bytes.

    Raises:
        BadImage: As `decode`.
    """
    header = read_header(data)
    image = decode_bgr(data, header, storage.bits)
    if _keeps_bytes(data, header, image, storage):
        return _with_statistics(data, "JPEG", image)
    return prepare_pixels(image, storage)


def prepare_pixels(pixels: np.ndarray, storage: Storage) -> Stored:
    """Reduces an image and cuts its centre square, as `store` does; compresses nothing.

    Args:
        pixels: uint8 [H, W, 3], in OpenCV's channel order.
        storage: How the images of the training were stored.
    """
    image = _reduced(pixels, storage.short_side)
    return _as_raw(_centre_square(image) if storage.encoding == "raw" else image)


def _keeps_bytes(data: bytes, header: Image.Image, image: np.ndarray, storage: Storage) -> bool:
    """Whether a record holds the very file."""
    return storage.encoding != "raw" and _fits(image, storage) and _is_plain_jpeg(data, header)


def _fits(image: np.ndarray, storage: Storage) -> bool:
    """Whether it needs no reduction."""
    return storage.short_side == 0 or min(image.shape[:2]) <= storage.short_side


def _is_lossless(data: bytes, header: Image.Image) -> bool:
    """Whether a file holds its pixels as they were before it was written."""
    return header.format in _LOSSLESS and _LOSSLESS[header.format](data, header)


def _as_raw(image: np.ndarray) -> Stored:
    return _with_statistics(cv2.cvtColor(image, cv2.COLOR_BGR2RGB).tobytes(), "RAW", image)


def _as_png(image: np.ndarray) -> Stored:
    return _with_statistics(_encoded(".png", image, []), "PNG", image)


def _with_statistics(encoded: bytes, format: str, image: np.ndarray) -> Stored:
    height, width = image.shape[:2]
    mean, std = (moment.ravel()[::-1] for moment in cv2.meanStdDev(image))
    squares = mean**2 + std**2
    return Stored(encoded, format, height, width, tuple(mean.tolist()), tuple(squares.tolist()))


def _is_plain_jpeg(data: bytes, header: Image.Image) -> bool:
    """Whether every decoder makes the same pixels of the file: upright, 8-bit, grey or RGB."""
    if header.format not in ("JPEG", "MPO") or header.mode not in ("L", "RGB"):
        return False
    return jpeg.is_common(data) and not decoders.is_turned(header)


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


def _as_jpeg(image: np.ndarray, quality: int) -> Stored:
    height, width = image.shape[:2]
    if max(height, width) > _MAX_JPEG_SIDE:  # OpenCV would report it on stderr
        raise BadImage(
            f"more than {_MAX_JPEG_SIDE:,} pixels on a side, too long for JPEG: {width} x {height}"
        )
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _with_statistics(_encoded(".jpg", image, options), "JPEG", image)


def _encoded(extension: str, image: np.ndarray, options: list[int]) -> bytes:
    written, encoded = cv2.imencode(extension, image, options)
    if not written:
        height, width = image.shape[:2]
        raise BadImage(f"cannot be encoded as {extension}: {width} x {height} pixels")
    return encoded.tobytes()
