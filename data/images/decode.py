"""Decodes an image file and encodes it for a record; the same for conversion and classify.py.

The content of a file decides, never its name. Every image becomes upright 8-bit RGB. Grey becomes
three equal channels; palettes are looked up; 16-bit samples keep the upper 8 of the bits in use;
alpha is dropped, not blended; CMYK and YCbCr are converted; the EXIF orientation is applied (for
HEIC and AVIF the format's own, as their standards say). Only the first frame or page of a file is
used. Metadata of a PNG is ignored.

A larger image is reduced once and stored as a JPEG. An image that needs no reduction is changed as
little as possible: an upright grey or RGB JPEG keeps its bytes, lossless formats (PNG, GIF, BMP,
lossless WebP and TIFF) are stored without loss, anything else becomes a JPEG of higher quality.
JPEGs are written with full chroma: networks see colours at every pixel.

No TensorFlow here: worker processes import this file.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from data.images import decoders, jpeg, kinds, png, tiff, webp
from data.images.decoders import BITS, BadImage, decode_bgr, read_header
from data.images.resized import Resized, resize

ENCODINGS = ("auto", "jpeg", "raw")
RAW_BYTES = 1 << 20  # pixels up to this size are stored raw, fastest to read; more as PNG

# Reducing an image removes its artefacts, so a lower quality suffices. An image of its own size is
# compressed for the second time, which must not show.
REDUCED_QUALITY = 90
SAME_SIZE_QUALITY = 95

_MAX_JPEG_SIDE = 65_500  # limit of libjpeg
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
        short_side: Shorter side in pixels, to which larger images are reduced; 0 keeps every size.
        quality: JPEG quality, 1..100; None for `REDUCED_QUALITY` and `SAME_SIZE_QUALITY`.
        encoding: "auto" for JPEG, but lossless for images of lossless formats that need no
            reduction; "jpeg" for JPEG only; "raw" for centre squares of decoded pixels.
        bits: Bits in use in images with 16 bits per channel, one of `BITS`.
    """

    short_side: int = 256
    quality: int | None = None
    encoding: str = "auto"
    bits: int = 16

    def __post_init__(self):
        """Checks the values."""
        if self.encoding not in ENCODINGS:
            raise ValueError(
                f"expected encoding {' or '.join(ENCODINGS)}, received {self.encoding!r}"
            )
        if self.short_side < 0 or (self.short_side == 0 and self.encoding == "raw"):
            raise ValueError(
                f"expected short_side of at least {int(self.encoding == 'raw')} pixels for "
                f"encoding {self.encoding}, received {self.short_side}"
            )
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"expected quality from 1 to 100, received {self.quality}")
        if self.bits not in BITS:
            raise ValueError(
                f"expected bits out of {', '.join(map(str, BITS))}, received {self.bits!r}"
            )


def storage_for(image_size: int) -> Storage:
    """Returns the storage for crops of 7/8 of the shorter side, which is at least 256 pixels."""
    return Storage(max(256, round(image_size / _CROP_OF_IMAGE)))


@dataclass(frozen=True)
class Stored:
    """One image as a record holds it.

    Attributes:
        encoded: A JPEG or PNG file, or uint8 RGB pixels [height, width, 3].
        format: "JPEG", "PNG" or "RAW".
        height: Height in pixels.
        width: Width in pixels.
        mean: Mean of each channel (RGB), 0..255, before any JPEG encoding.
        mean_of_squares: Mean of the squares of each channel.
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
        bits: Bits in use in a PNG or TIFF with 16 bits per channel, one of `BITS`: the sample v
            becomes min(v, 2**bits - 1) >> (bits - 8). An RGB TIFF that uses all 16 is rounded by
            libtiff instead. Ignored for other images.

    Returns:
        uint8 [H, W, 3], RGB, upright.

    Raises:
        BadImage: If the file is not of an accepted format, is cut short or damaged in a way that a
            decoder notices, or has more than `decoders.MAX_PIXELS`.
    """
    return cv2.cvtColor(decode_bgr(data, read_header(data), bits), cv2.COLOR_BGR2RGB)


def decode_plain(data: bytes) -> np.ndarray:
    """Decodes a JPEG that `store` returned, in half the time of a TensorFlow call.

    Every decoder returns the same pixels for such a file.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), flags), cv2.COLOR_BGR2RGB)


def may_be_deep(head: bytes) -> bool:
    """Whether a file may be an image with 16 bits per channel.

    Args:
        head: The first `kinds.HEAD` bytes of the file, or more.
    """
    kind = kinds.detect(head)
    if kind is None or kind.format not in ("PNG", "TIFF"):
        return False
    return kind.format == "TIFF" or png.bit_depth(head) == 16


def largest_sample(data: bytes) -> int:
    """Returns the largest colour sample of an image with 16 bits per channel.

    Other files are recognised by their headers.

    Args:
        data: Any file.

    Returns:
        0..65,535, for `bits_for`; 0 for any other file, and if it cannot be decoded.
    """
    if not may_be_deep(data):
        return 0
    try:
        header = read_header(data)
        return int(decoders.samples(data, header)[..., :3].max()) if decoders.is_deep(header) else 0
    except BadImage:
        return 0


def bits_for(largest: int) -> int:
    """Returns the number of bits in use in 16-bit samples, one of `BITS`.

    Cameras and scanners use the lower 10, 12 or 14; only a whole data set tells how many.

    Args:
        largest: Maximum of `largest_sample` over a data set; 0 gives 16.
    """
    return next((bits for bits in BITS if 0 < largest < 1 << bits), BITS[-1])


def store(data: bytes, storage: Storage) -> Stored:
    """Decodes an image and encodes it as a record holds it.

    If the shorter side is longer than `storage.short_side`, the image is reduced to it by area
    interpolation; no image is enlarged. Encoding "raw" keeps the centre square. The others keep the
    whole image:

    - A reduced image becomes a JPEG of `REDUCED_QUALITY`.
    - An upright grey or RGB JPEG that needs no reduction keeps its bytes.
    - With encoding "auto", an image of a lossless format that needs no reduction is stored without
      loss: as pixels up to `RAW_BYTES`, else as PNG.
    - Any other image that needs no reduction becomes a JPEG of `SAME_SIZE_QUALITY`.

    Args:
        data: A file of one of `decoders.FORMATS`.
        storage: How to store it; its quality, if any, replaces both constants.

    Returns:
        The stored image with its statistics.

    Raises:
        BadImage: If the file cannot be decoded, or the image is too long for JPEG.
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


def prepare(data: bytes, storage: Storage | Resized) -> Stored:
    """Decodes an image for immediate use, like `store` but without compression.

    Args:
        data: A file of one of `decoders.FORMATS`.
        storage: How the training images were stored, or are resized.

    Returns:
        Pixels, reduced or cropped as in a record; the file itself if `store` keeps its bytes. With
        `Resized` always pixels, enlarged or reduced.

    Raises:
        BadImage: If the file cannot be decoded.
    """
    header = read_header(data)
    image = decode_bgr(data, header, storage.bits)
    if isinstance(storage, Storage) and _keeps_bytes(data, header, image, storage):
        return _with_statistics(data, "JPEG", image)
    return prepare_pixels(image, storage)


def prepare_pixels(pixels: np.ndarray, storage: Storage | Resized) -> Stored:
    """Reduces decoded pixels, and crops them for encoding "raw", like `store`; no compression.

    Args:
        pixels: uint8 [H, W, 3], in OpenCV's channel order.
        storage: How the training images were stored, or are resized.

    Raises:
        BadImage: If the image would be too long after resizing.
    """
    if isinstance(storage, Resized):
        return _as_raw(resize(pixels, storage))
    image = _reduced(pixels, storage.short_side)
    return _as_raw(_centre_square(image) if storage.encoding == "raw" else image)


def _keeps_bytes(data: bytes, header: Image.Image, image: np.ndarray, storage: Storage) -> bool:
    """Whether a record holds the file itself."""
    return storage.encoding != "raw" and _fits(image, storage) and _is_plain_jpeg(data, header)


def _fits(image: np.ndarray, storage: Storage) -> bool:
    """Whether the image needs no reduction."""
    return storage.short_side == 0 or min(image.shape[:2]) <= storage.short_side


def _is_lossless(data: bytes, header: Image.Image) -> bool:
    """Whether a file is losslessly compressed."""
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
    """Whether every decoder returns the same pixels: an upright, 8-bit, grey or RGB JPEG."""
    if header.format not in ("JPEG", "MPO") or header.mode not in ("L", "RGB"):
        return False
    return jpeg.is_common(data) and not decoders.is_turned(header)


def _reduced(image: np.ndarray, short_side: int) -> np.ndarray:
    """Reduces the shorter side to `short_side`; returns `image` itself if it is not longer."""
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
