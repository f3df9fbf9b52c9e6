"""Examines single images. No TensorFlow here: worker processes import this file."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from data.checks.duplicates import difference_hash, thumbnail
from data.images import jpeg, kinds
from data.images.decode import decode, largest_sample
from data.images.decoders import (
    BadImage,
    Damaged,
    TooLarge,
    format_name,
    is_deep,
    is_turned,
    read_header,
)
from data.images.examples import Example

TINY = 32  # pixels of the shorter side

DARK = 8  # mean level, of 255, below which an image is nearly black

_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".heics", ".heifs", ".hif"),
}
_IS_CUT: dict[str, Callable[[bytes], bool]] = {  # by format, where it can be detected
    "JPEG": lambda data: not jpeg.has_end(data),
    "PNG": lambda data: b"IEND" not in data,
    "BMP": lambda data: int.from_bytes(data[2:6], "little") > len(data),
    "WEBP": lambda data: int.from_bytes(data[4:8], "little") + 8 > len(data),
}
_HEADER_FINDINGS: dict[str, Callable[[Image.Image], bool]] = {  # by kind of finding
    "cmyk": lambda header: header.mode == "CMYK",
    "grey": lambda header: header.mode in ("1", "L", "LA") or header.mode.startswith("I;16"),
    "sixteen_bit": is_deep,
    "rotated": is_turned,
    "animated": lambda header: header.format != "MPO" and getattr(header, "n_frames", 1) > 1,
}


@dataclass(frozen=True, slots=True)
class Checkup:
    """A sound image.

    Attributes:
        remarks: Findings: kind and detail of each.
        digest: First 16 bytes of the sha256 of size and decoded RGB pixels.
        hash: `difference_hash`; None if the image is too small to compare.
        thumbnail: Bytes of `thumbnail`; None if the image is too small to compare.
    """

    remarks: tuple[tuple[str, str], ...]
    digest: bytes
    hash: int | None
    thumbnail: bytes | None


@dataclass(frozen=True, slots=True)
class Unsound:
    """An image that cannot be used: kind of finding, and reason."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recorded(Example):
    """An image in a shard, with the fields of its record.

    Attributes:
        format: "RAW" for uint8 pixels [height, width, 3], anything else for an image file.
        height: Stated height in pixels.
        width: Stated width in pixels.
    """

    format: str = "JPEG"
    height: int = 0
    width: int = 0


def examine_file(example: Example, bits: int = 16) -> Checkup | Unsound:
    """Decodes an image strictly and in full.

    Args:
        example: An image file; the extension of its name is compared with its format.
        bits: Bits in use in images with 16 bits per channel, see `decode`.

    Returns:
        The findings.

    Raises:
        OSError: If the file cannot be read.
    """
    data = example.read()
    try:
        header = read_header(data)
        image = decode(data, bits)
    except BadImage as error:
        return Unsound(_kind_of(error, data), str(error))
    remarks = [(kind, "") for kind, applies in _HEADER_FINDINGS.items() if _holds(applies, header)]
    remarks += _pixel_findings(data, header, image, bits)
    extension = os.path.splitext(example.name)[1].lower()
    if extension and extension not in _EXTENSIONS[header.format]:
        remarks.append(("wrong_extension", f"is a {format_name(header)}"))
    return _checkup(image, remarks)


def examine_record(example: Recorded) -> Checkup | Unsound:
    """Decodes the image of a record.

    Args:
        example: The image in its shard.

    Returns:
        The findings.

    Raises:
        OSError: If the shard cannot be read.
    """
    data, stated = example.read(), (example.height, example.width, 3)
    try:
        raw = example.format == "RAW"
        image = np.frombuffer(data, np.uint8).reshape(stated) if raw else decode(data)
    except ValueError as error:  # `BadImage` is one
        return Unsound("undecodable_record", str(error))
    if image.shape != stated:
        height, width = image.shape[:2]
        detail = f"expected {example.width} x {example.height} pixels, found {width} x {height}"
        return Unsound("undecodable_record", detail)
    return _checkup(image, [])


def _checkup(image: np.ndarray, remarks: list[tuple[str, str]]) -> Checkup:
    height, width = image.shape[:2]
    digest = hashlib.sha256(f"{width} x {height}".encode())
    digest.update(np.ascontiguousarray(image))
    sketch = None, None
    if min(height, width) >= TINY:
        sketch = difference_hash(image), thumbnail(image).tobytes()
    else:
        remarks = [*remarks, ("tiny", f"{width} x {height}")]
    return Checkup(tuple(remarks), digest.digest()[:16], *sketch)


def _kind_of(error: BadImage, data: bytes) -> str:
    if isinstance(error, TooLarge):
        return "too_large"
    if not isinstance(error, Damaged):
        return "no_image"
    kind = kinds.detect(data)
    is_cut = _IS_CUT.get(kind.format) if kind else None
    return "truncated" if is_cut and is_cut(data) else "damaged"


def _holds(applies: Callable[[Image.Image], bool], header: Image.Image) -> bool:
    try:
        return applies(header)
    except Exception:  # Pillow's parsers raise exceptions of any type on untrusted bytes
        return False


def _pixel_findings(
    data: bytes, header: Image.Image, image: np.ndarray, bits: int
) -> list[tuple[str, str]]:
    """Returns the findings about the pixels: nothing visible, and transparency."""
    alpha, findings = _alpha(header), []
    colour, mean = image[0, 0], np.mean(cv2.mean(image)[:3])
    if (image[0] == colour).all() and (image == colour).all():  # most differ in the first row
        findings.append(("one_colour", "red {}, green {}, blue {}".format(*colour)))
    elif mean < DARK:
        findings.append(("dark", _darkness(mean, data, bits)))
    if findings and alpha is not None and alpha.min() < alpha.max():
        return [("only_alpha", findings[0][1])]
    if alpha is not None and alpha.min() < 255:
        findings.append(("alpha", ""))
    return findings


def _darkness(mean: float, data: bytes, bits: int) -> str:
    """Describes how dark an image is; with 16 bits per channel also its largest sample."""
    detail = f"mean {mean:.1f} of 255"
    if largest := largest_sample(data):
        detail += f"; of 16 bits, the largest sample is {largest:,}, {2**bits - 1:,} is white"
    return detail


def _alpha(header: Image.Image) -> np.ndarray | None:
    """Decodes the alpha channel, uint8 [H, W], not turned upright; None if there is none."""
    try:
        if header.has_transparency_data:
            return np.asarray(header.convert("RGBA").getchannel("A"))
    except Exception:  # as in `_holds`
        pass
    return None
