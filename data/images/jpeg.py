"""The structure of a JPEG file: faults that OpenCV ignores but that would stop a training.

Source: ITU-T T.81, annex B.
"""

import re
from collections.abc import Iterator

_MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_STANDALONE = {0x01, 0xD8, *range(0xD0, 0xD8)}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended sequential, progressive
_BETWEEN_SCANS = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}


def fault(data: bytes) -> str | None:
    """Looks for a marker that must not occur inside the scans.

    OpenCV silently returns the part before it; TensorFlow fails.

    Args:
        data: A JPEG file, from its first byte.

    Returns:
        The fault, or None.
    """
    in_scans = False
    for marker, start, end in _segments(data):
        if in_scans and marker not in _BETWEEN_SCANS:
            return f"marker 0x{marker:02x} inside the image data"
        in_scans = in_scans or marker == _START_OF_SCAN
        if in_scans and not _is_sound(data, marker, start, end):
            return f"broken segment 0x{marker:02x} inside the image data"
    return None


def is_common(data: bytes) -> bool:
    """Whether every decoder supports the encoding: Huffman, not arithmetic codes."""
    frames = (marker for marker, _, _ in _segments(data) if marker in _FRAMES)
    return next(frames, None) in _HUFFMAN_FRAMES


def has_end(data: bytes) -> bool:
    """Whether the end marker follows the last scan: the file is not cut short."""
    scans = [end for marker, _, end in _segments(data) if marker == _START_OF_SCAN]
    return bool(scans) and data.find(bytes((0xFF, _END_OF_IMAGE)), scans[-1]) >= 0


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields marker, start and end of the content of each segment up to the end marker."""
    end, pattern = 2, _MARKER
    while match := pattern.search(data, end):
        marker, start = data[match.end() - 1], match.end()
        if marker == _END_OF_IMAGE:
            return
        length = 0 if marker in _STANDALONE else int.from_bytes(data[start : start + 2])
        end = start + length
        yield marker, start, end
        pattern = _MARKER_IN_SCAN if marker == _START_OF_SCAN else pattern


def _is_sound(data: bytes, marker: int, start: int, end: int) -> bool:
    """Whether a segment's length fits its kind, or the next segment."""
    if marker == _START_OF_SCAN:
        return end - start == 6 + 2 * int.from_bytes(data[start + 2 : start + 3])
    return data[end : end + 1] == b"\xff"
