"""The structure of a PNG file: the parts that pixels are made of, without the metadata.

Decoders refuse a whole picture for a comment: for a wrong checksum in it, or because it is large.

Source: Portable Network Graphics (PNG) Specification, third edition, W3C 2025, sections 5 and 11.
"""

import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BIT_DEPTH_AT = 24  # byte of the header

_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
_KEPT = _ANIMATION | {b"tRNS", b"eXIf"}  # of the ancillary chunks: alpha and orientation
_MOST_EXIF = 4 << 20  # bytes; OpenCV's decoder refuses the file at 8,000,000
_TRANSPARENT = {0: 2, 2: 6}  # bytes of tRNS by colour type: grey, RGB


def bit_depth(data: bytes) -> int:
    """Returns the bits per sample that the header states; 0 where there is no whole header."""
    return data[BIT_DEPTH_AT] if len(data) > BIT_DEPTH_AT and data[12:16] == b"IHDR" else 0


def fault(data: bytes) -> str | None:
    """Looks for a wrong checksum where pixels depend on it; of an animation OpenCV checks none.

    Args:
        data: A PNG file, from its first byte.

    Returns:
        What is wrong, or None.
    """
    for kind, start, end in _chunks(data):
        if _is_critical(kind) and kind != b"IEND" and not _has_checksum(data, start, end):
            name = kind.decode() if kind.isalpha() else "an unknown part"
            return f"{name} is cut short or has a wrong checksum"
    return None


def without_metadata(data: bytes) -> bytes:
    """Leaves out the chunks that no pixel depends on, and ancillary ones that are damaged.

    Critical chunks stay as they are, damaged ones too: decoders refuse these.

    Args:
        data: A PNG file, from its first byte.

    Returns:
        A PNG file of the same pixels.
    """
    chunks = list(_chunks(data))
    animated = _is_sound_animation(data, chunks)
    kept = [SIGNATURE]
    for kind, start, end in chunks:
        if kind in _ANIMATION:
            wanted = animated
        else:
            wanted = _is_critical(kind) or (kind in _KEPT and _is_sound(data, kind, start, end))
        if wanted:
            kept.append(data[start:end])
    return b"".join(kept)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Walks the chunks up to IEND or the end of the file: type, begin and end with its frame."""
    place = len(SIGNATURE)
    while place < len(data):
        kind, start = data[place + 4 : place + 8], place
        place += 12 + int.from_bytes(data[start : start + 4])
        yield kind, start, min(place, len(data))
        if kind == b"IEND":
            return


def _is_critical(kind: bytes) -> bool:
    """Whether a decoder must know the chunk: bit 5 of the first letter; what is no type is kept."""
    return len(kind) < 4 or not kind[0] & 0x20


def _has_checksum(data: bytes, start: int, end: int) -> bool:
    """Whether a chunk is whole, with the checksum that it states."""
    if end - start != 12 + int.from_bytes(data[start : start + 4]):
        return False
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])


def _is_sound(data: bytes, kind: bytes, start: int, end: int) -> bool:
    """Whether an ancillary chunk has the checksum it states, and a length that decoders accept."""
    content = end - start - 12
    if not _has_checksum(data, start, end):
        return False
    if kind == b"eXIf":
        return content <= _MOST_EXIF
    if kind == b"tRNS":
        return content == _TRANSPARENT.get(data[25], content)
    return True


def _is_sound_animation(data: bytes, chunks: list[tuple[bytes, int, int]]) -> bool:
    """Whether the animation is whole; where it is not, the default image is all there is."""
    parts = [chunk for chunk in chunks if chunk[0] in _ANIMATION]
    kinds = {kind for kind, _, _ in parts}
    return kinds >= {b"acTL", b"fcTL"} and all(_is_sound(data, *part) for part in parts)
