"""A minimal reader and writer of protocol buffers, for the messages in records.

Source: protobuf.dev, "Encoding". Google's library copies what it reads and does not tell at which
byte of the message a field lies.
"""

from collections.abc import Iterator


def field(number: int, *parts: bytes) -> bytes:
    """Encodes a field whose content, bytes or a message, is given in parts; `number` is 1 to 15."""
    content = b"".join(parts)
    return b"".join((bytes((number << 3 | 2,)), varint(len(content)), content))


def varint(value: int) -> bytes:
    """Encodes a non-negative integer in base 128, lowest digit first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def fields(memory: memoryview, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields begin and end of the content of each field of a message that `field` made.

    Raises:
        IndexError: If the memory ends before the message.
    """
    while begin < end:
        length, begin = read_varint(memory, begin + 1)
        yield begin, begin + length
        begin += length


def read_varint(memory: memoryview, offset: int) -> tuple[int, int]:
    """Decodes the integer at an offset; returns it and the offset after it.

    Raises:
        IndexError: If the memory ends before the integer.
    """
    value = shift = 0
    while (byte := memory[offset]) >= 0x80:
        value |= (byte & 0x7F) << shift
        shift, offset = shift + 7, offset + 1
    return value | byte << shift, offset + 1
