"""The structure of a PNG file: the chunks that pixels depend on, without the metadata.

Decoders refuse a whole image because of a comment that is large or has a wrong checksum.

Source: Portable Network Graphics (PNG) Specification, third edition, W3C 2025, sections 5 and 11.
"""

import contextlib
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BIT_DEPTH_AT = 24  # byte of the header

_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
_KEPT = _ANIMATION | {b"tRNS", b"eXIf"}  # ancillary chunks: alpha and orientation
_MAX_EXIF = 4 << 20  # bytes; OpenCV's decoder refuses the file at 8,000,000
_ORIENTATION_TEXTS = {  # first bytes of texts that may hold the orientation, by type
    b"tEXt": b"Raw profile type exif\0",
    b"zTXt": b"Raw profile type exif\0",
    b"iTXt": b"XML:com.adobe.xmp\0\0",  # not compressed
}
_MAX_TEXT = 1 << 16  # bytes
_TRANSPARENT = {0: 2, 2: 6}  # bytes of tRNS by colour type: grey, RGB


def bit_depth(data: bytes) -> int:
    """Returns the bits per sample that the header states; 0 if the header is incomplete."""
    return data[BIT_DEPTH_AT] if len(data) > BIT_DEPTH_AT and data[12:16] == b"IHDR" else 0


def fault(data: bytes) -> str | None:
    """Looks for a wrong checksum in a critical chunk; OpenCV checks none of an animation.

    Args:
        data: A PNG file, from its first byte.

    Returns:
        The fault, or None.
    """
    for kind, start, end in _chunks(data):
        if _is_critical(kind) and kind != b"IEND" and not _has_checksum(data, start, end):
            name = kind.decode() if kind.isalpha() else "an unknown part"
            return f"{name} is cut short or has a wrong checksum"
    return None


def without_metadata(data: bytes) -> bytes:
    """Removes the chunks that no pixel depends on, and damaged ancillary chunks.

    All critical chunks stay; decoders refuse damaged ones.

    Args:
        data: A PNG file, from its first byte.

    Returns:
        A PNG file with the same pixels.
    """
    chunks = list(_chunks(data))
    keeps_animation = _is_sound_animation(data, chunks)
    kept = [SIGNATURE]
    for kind, start, end in chunks:
        if kind in _ANIMATION:
            keeps = keeps_animation
        else:
            affects_pixels = kind in _KEPT or _tells_orientation(kind, data[start + 8 : end - 4])
            keeps = _is_critical(kind) or (affects_pixels and _is_sound(data, kind, start, end))
        if keeps:
            kept.append(data[start:end])
    return b"".join(kept)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields type, start and end (frame included) of each chunk up to IEND or the file's end."""
    offset = len(SIGNATURE)
    while offset < len(data):
        kind, start = data[offset + 4 : offset + 8], offset
        offset += 12 + int.from_bytes(data[start : start + 4])
        yield kind, start, min(offset, len(data))
        if kind == b"IEND":
            return


def _is_critical(kind: bytes) -> bool:
    """Whether a decoder must know the chunk: bit 5 of its type; so is a type that is cut short."""
    return len(kind) < 4 or not kind[0] & 0x20


def _has_checksum(data: bytes, start: int, end: int) -> bool:
    """Whether a chunk is complete and its checksum is right."""
    if end - start != 12 + int.from_bytes(data[start : start + 4]):
        return False
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])


def _is_sound(data: bytes, kind: bytes, start: int, end: int) -> bool:
    """Whether an ancillary chunk has the right checksum and a length that decoders accept."""
    content = end - start - 12
    if not _has_checksum(data, start, end):
        return False
    if kind == b"eXIf":
        return content <= _MAX_EXIF
    if kind == b"tRNS":
        return content == _TRANSPARENT.get(data[25], content)
    return True


def _tells_orientation(kind: bytes, content: bytes) -> bool:
    """Whether a text is short and one that ImageMagick or Adobe's programs write for eXIf."""
    beginning = _ORIENTATION_TEXTS.get(kind)
    if not beginning or not content.startswith(beginning) or len(content) > _MAX_TEXT:
        return False
    if kind != b"zTXt":
        return True
    packed = content.partition(b"\0")[2][1:]
    with contextlib.suppress(zlib.error):
        return len(zlib.decompressobj().decompress(packed, _MAX_TEXT + 1)) <= _MAX_TEXT
    return False


def _is_sound_animation(data: bytes, chunks: list[tuple[bytes, int, int]]) -> bool:
    """Whether the animation is complete; if not, only the default image is kept."""
    parts = [chunk for chunk in chunks if chunk[0] in _ANIMATION]
    kinds = {kind for kind, _, _ in parts}
    return kinds >= {b"acTL", b"fcTL"} and all(_is_sound(data, *part) for part in parts)
