"""The structure of a WebP file: whether it is lossless.

Source: RFC 9649, section 2.
"""

_ANIMATION_FRAME = b"ANMF"
_FRAME_HEADER = 16  # bytes of an animation's frame before its chunks


def is_lossless(data: bytes) -> bool:
    """Whether the first image of a WebP file is losslessly compressed.

    Args:
        data: A WebP file, from its first byte.
    """
    offset = 12
    while offset + 8 <= len(data):
        kind, size = (
            data[offset : offset + 4],
            int.from_bytes(data[offset + 4 : offset + 8], "little"),
        )
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        offset += 8 + (_FRAME_HEADER if kind == _ANIMATION_FRAME else size + size % 2)
    return False
