"""The structure of a PNG file: the parts that pixels are made of, without the metadata.

Decoders refuse a whole picture for a comment: for a wrong checksum in it, or because it is large.

Source: Portable Network Graphics (PNG) Specification, third edition, W3C 2025, sections 5 and 11.
"""

import contextlib
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BIT_DEPTH_AT = 24  # byte of the header

_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
_KEPT = _ANIMATION | {b"tRNS", b"eXIf"}  # of the ancillary chunks: alpha and orientation
_MOST_EXIF = 4 << 20  # bytes; OpenCV's decoder refuses the file at 8,000,000
_OF_ORIENTATION = {  # how texts begin that may hold the orientation, by type
    b"tEXt": b"Raw profile type exif\0",
    b"zTXt": b"Raw profile type exif\0",
    b"iTXt": b"XML:com.adobe.xmp\0\0",  # not compressed
}
_MOST_TEXT = 1 << 16  # bytes
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
            of_pixels = kind in _KEPT or _tells_orientation(kind, data[start + 8 : end - 4])
            wanted = _is_critical(kind) or (of_pixels and _is_sound(data, kind, start, end))
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


def _tells_orientation(kind: bytes, content: bytes) -> bool:
    """Whether a text is a short one that ImageMagick or Adobe's programs write in place of eXIf."""
    beginning = _OF_ORIENTATION.get(kind)
    if not beginning or not content.startswith(beginning) or len(content) > _MOST_TEXT:
        return False
    if kind != b"zTXt":
        return True
    packed = content.partition(b"\0")[2][1:]
    with contextlib.suppress(zlib.error):
        return len(zlib.decompressobj().decompress(packed, _MOST_TEXT + 1)) <= _MOST_TEXT
    return False


def _is_sound_animation(data: bytes, chunks: list[tuple[bytes, int, int]]) -> bool:
    """Whether the animation is whole; where it is not, the default image is all there is."""
    parts = [chunk for chunk in chunks if chunk[0] in _ANIMATION]
    kinds = {kind for kind, _, _ in parts}
    return kinds >= {b"acTL", b"fcTL"} and all(_is_sound(data, *part) for part in parts)
