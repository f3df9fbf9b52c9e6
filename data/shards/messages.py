"""Messages of protocol buffers as bytes: the few things that records need, written and found.

The format is that of protobuf.dev, "Encoding". Its library makes a copy of what it reads and does
not say where in the message a field lies.
"""

from collections.abc import Iterator


def field(number: int, *parts: bytes) -> bytes:
    """A field of bytes or of a message, which is given in parts; `number` is 1 to 15."""
    content = b"".join(parts)
    return b"".join((bytes((number << 3 | 2,)), varint(len(content)), content))


def varint(value: int) -> bytes:
    """An integer from 0 in base 128, the lowest digit first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def fields(memory: memoryview, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Begin and end of the contents of a message's fields, all of them made by `field`.

    Raises:
        IndexError: If the memory ends before the message.
    """
    while begin < end:
        length, begin = read_varint(memory, begin + 1)
        yield begin, begin + length
        begin += length


def read_varint(memory: memoryview, place: int) -> tuple[int, int]:
    """The integer that begins at a place, and the place after it.

    Raises:
        IndexError: If the memory ends before.
    """
    value = shift = 0
    while (byte := memory[place]) >= 0x80:
        value |= (byte & 0x7F) << shift
        shift, place = shift + 7, place + 1
    return value | byte << shift, place + 1
