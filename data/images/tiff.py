"""The structure of a TIFF file, as far as it decides which decoder is right for it.

Source: TIFF Revision 6.0, Adobe 1992; Digital Negative (DNG) Specification 1.7.
"""

import struct
from collections.abc import Iterator

from PIL import TiffImagePlugin

_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC, _SUB_IFDS = 254, 258, 262, 330
_SAMPLES_PER_PIXEL, _PLANAR, _EXTRA_SAMPLES, _DNG_VERSION = 277, 284, 338, 50706
_STRIPS, _TILES = (273, 279), (324, 325)  # tags of offsets and of byte counts
_PLANE_TAGS = (
    256,
    257,
    259,
    266,
    274,
    278,
    317,
    322,
    323,
)  # tags that planes share
_LOSSY = {"jpeg", "tiff_jpeg", "webp"}  # Pillow's names of compressions
_DEEP_MODES = {"RGB", "RGBA", "I;16", "I;16L", "I;16B"}  # Pillow's names of grey, RGB, with alpha
_LONG = 4


def bits_per_sample(header: TiffImagePlugin.TiffImageFile) -> int:
    """Returns the bits of a pixel's first sample."""
    return header.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0]


def is_deep(header: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether an image is grey or RGB, with or without alpha, with 16 bits per sample."""
    return bits_per_sample(header) == 16 and header.mode in _DEEP_MODES


def is_lossless(header: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether an image is losslessly compressed."""
    return header.info.get("compression") not in _LOSSY


def is_camera_raw(header: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether the first picture is only the preview of a camera's raw data."""
    preview = header.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & 1 and _SUB_IFDS in header.tag_v2
    return bool(preview) or _DNG_VERSION in header.tag_v2


def is_white_zero(header: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether 0 stands for white."""
    return header.tag_v2.get(_PHOTOMETRIC) == 0


def is_premultiplied(header: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether the colours are multiplied by alpha ("associated alpha")."""
    return header.tag_v2.get(_EXTRA_SAMPLES, ())[:1] == (1,)


def planes(data: bytes, header: TiffImagePlugin.TiffImageFile) -> Iterator[bytes]:
    """Separates the channels of an image that stores one after the other; OpenCV mixes them up.

    Args:
        data: The file.
        header: The same file, opened by Pillow.

    Yields:
        A grey TIFF for each channel; nothing if the samples of a pixel lie together.
    """
    tags = header.tag_v2
    count = tags.get(_SAMPLES_PER_PIXEL, 1)
    if tags.get(_PLANAR, 1) != 2 or count == 1:
        return
    parts = _TILES if _TILES[0] in tags else _STRIPS
    common = {tag: (tags[tag],) for tag in _PLANE_TAGS if tag in tags}
    common |= {_BITS_PER_SAMPLE: (16,), _PHOTOMETRIC: (1,), _SAMPLES_PER_PIXEL: (1,)}
    for number in range(count):
        segments = {}
        for tag in parts:
            share = len(tags[tag]) // count
            segments[tag] = tags[tag][number * share : (number + 1) * share]
        yield _with_directory(data, common | segments)


def _with_directory(data: bytes, entries: dict[int, tuple[int, ...]]) -> bytes:
    """Returns the file with another directory, whose values are all 32-bit integers."""
    order = "<" if data[:2] == b"II" else ">"
    begin = len(data) + len(data) % 2
    values, rows = b"", b""
    after = begin + 2 + 12 * len(entries) + 4
    for tag, numbers in sorted(entries.items()):
        content = struct.pack(f"{order}{len(numbers)}I", *numbers)
        offset = struct.pack(f"{order}I", after + len(values))
        rows += struct.pack(f"{order}HHI", tag, _LONG, len(numbers))
        rows += content if len(content) == 4 else offset
        values += content if len(content) > 4 else b""
    start = data[:2] + struct.pack(f"{order}HI", 42, begin)
    directory = struct.pack(f"{order}H", len(entries)) + rows + bytes(4) + values
    return start + data[8:].ljust(begin - 8, b"\0") + directory
