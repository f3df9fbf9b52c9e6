"""Reads the weights of `.caffemodel` files: Caffe's NetParameter in protobuf's wire format.

Such files are not trusted. Only the fields that lead to weights are entered, network, layer, blob
and shape; all others are passed over by their length, so nothing nests deeper. The file is mapped
into memory, and arrays are views of it.
"""

import itertools
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

_FIELDS = 100_000  # upper bound; GoogLeNet has some thousands
_AXES = 32  # upper bound, Caffe's own
_NAME_BYTES = 1000  # upper bound

# Wire types: how a field's value is stored.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}  # bytes
_KNOWN = (_VARINT, _FIXED64, _BYTES, _FIXED32)  # the others are groups, which Caffe does not have

_Wires = Mapping[int, tuple[int, ...]]  # allowed wire types of a message's fields, by their number


class _Layer(NamedTuple):
    """Numbers of a layer's fields, and the wire type and the value of the type of dense layers."""

    name: int
    type: int
    blobs: int
    type_wire: int
    dense: bytes | int


_LAYERS = {
    100: _Layer(1, 2, 7, _BYTES, b"InnerProduct"),  # LayerParameter
    2: _Layer(4, 5, 6, _VARINT, 14),  # V1LayerParameter, before 2015
}
_NETWORK: _Wires = dict.fromkeys(_LAYERS, (_BYTES,))

_SHAPE, _DATA, _DOUBLE_DATA = 7, 5, 8
_NUMBERS = {_DATA: "<f4", 6: "<f4", _DOUBLE_DATA: "<f8", 9: "<f8"}  # 6 and 9 are gradients
_OLDER_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
_BLOB: _Wires = {
    _SHAPE: (_BYTES,),
    **dict.fromkeys(_OLDER_SHAPE, (_VARINT,)),
    _DATA: (_BYTES, _FIXED32),
    6: (_BYTES, _FIXED32),
    _DOUBLE_DATA: (_BYTES, _FIXED64),
    9: (_BYTES, _FIXED64),
}
_DIMENSIONS = 1  # the one field of a shape


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the weights of a network.

    Args:
        path: File that Caffe wrote, with layers of its present or of its older form.

    Returns:
        Read-only arrays by name in the order of the file, such as "conv1.weight" [outputs, inputs
        of a group, height, width], "fc6.weight" [outputs, inputs] and "conv1.bias" [outputs];
        float32, or float64 where Caffe computed so. A layer's third array is "NAME.2".

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or has no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file, expected a .caffemodel, received {path}")
    try:
        with open(path, "rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _network(content)
    except ValueError as error:
        raise ValueError(
            f"wrong weights file, expected a .caffemodel, received {path}: {error}"
        ) from error


def _network(message: memoryview) -> dict[str, np.ndarray]:
    arrays, budget = {}, iter(range(_FIELDS))
    for number, value in _fields(message, _NETWORK, budget):
        if number in _LAYERS:
            for name, array in _layer(value, _LAYERS[number], budget):
                if name in arrays:
                    raise ValueError(f"two blobs {name!r}")
                arrays[name] = array
    if not arrays:
        raise ValueError("it has no weights")
    return arrays


def _layer(message: memoryview, numbers: _Layer, budget) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the names and arrays of a layer's blobs."""
    wires = {
        numbers.name: (_BYTES,),
        numbers.type: (numbers.type_wire,),
        numbers.blobs: (_BYTES,),
    }
    name, kind, blobs = b"", None, []
    for number, value in _fields(message, wires, budget):
        if number == numbers.name:
            name = value
        elif number == numbers.type:
            kind = value
        elif number == numbers.blobs:
            blobs.append(_blob(value, budget))
    if len(name) > _NAME_BYTES:
        raise ValueError(f"a name of {len(name):,} bytes")
    name = str(name, "utf-8")
    for index, blob in enumerate(blobs):
        axes = 1 if index else 2 if kind == numbers.dense else blob.ndim
        yield f"{name}.{('weight', 'bias')[index] if index < 2 else index}", _with_axes(blob, axes)


def _with_axes(array: np.ndarray, axes: int) -> np.ndarray:
    """Drops leading axes of length 1: in older files every blob has four."""
    extra = max(array.ndim - axes, 0)
    if math.prod(array.shape[:extra]) != 1:
        raise ValueError(f"a blob of the shape {array.shape}, expected {axes} axes")
    return array.reshape(array.shape[extra:])


def _blob(message: memoryview, budget) -> np.ndarray:
    """Returns a blob's numbers, in its shape."""
    shape, older_shape, arrays = None, dict.fromkeys(_OLDER_SHAPE, 0), {}
    for number, value in _fields(message, _BLOB, budget):
        if number == _SHAPE:
            shape = (*(shape or ()), *_dimensions(value, budget))[: _AXES + 1]
        elif number in older_shape:
            older_shape[number] = _signed(value)
        elif number in arrays:
            raise ValueError("the numbers of a blob are in several pieces")
        elif number in _NUMBERS and len(value):
            arrays[number] = np.frombuffer(value, _NUMBERS[number])
    shape = tuple(older_shape.values()) if shape is None else shape
    array = arrays.get(_DOUBLE_DATA, arrays.get(_DATA, np.empty(0, np.float32)))
    if len(shape) > _AXES or min(shape, default=1) < 1 or math.prod(shape) != array.size:
        raise ValueError(f"a blob of the shape {shape} with {array.size:,} numbers")
    return array.reshape(shape)


def _dimensions(message: memoryview, budget) -> Iterator[int]:
    """Yields the lengths of a shape's axes, at most one more than a blob can have."""
    fields = _fields(message, {_DIMENSIONS: (_BYTES, _VARINT)}, budget)
    lengths = (
        length for number, value in fields if number == _DIMENSIONS for length in _all(value)
    )
    yield from map(_signed, itertools.islice(lengths, _AXES + 1))


def _all(value: int | memoryview) -> Iterator[int]:
    """Yields the numbers of a field that has one, or several behind each other."""
    if isinstance(value, int):
        yield value
        return
    position = 0
    while position < len(value):
        number, position = _varint(value, position)
        yield number


def _fields(message: memoryview, wires: _Wires, budget: Iterator) -> Iterator[tuple]:
    """Yields the number and the value of each field, an int or bytes.

    Args:
        message: The bytes of a message.
        wires: Wire types of the fields that are known. A run of one of them that has a fixed size
            is yielded as one value.
        budget: Has an element for each field that the file may still have.
    """
    position = 0
    while position < len(message):
        if next(budget, None) is None:
            raise ValueError(f"more than {_FIELDS:,} fields")
        tag, begin = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if number == 0 or wire not in wires.get(number, _KNOWN):
            raise ValueError(f"a field {number} of wire type {wire}")
        value, end = _value(message, begin, wire)
        if wire in _SIZES and number in wires:
            value, end = _run(message, position, begin, end)
        yield number, value
        position = end


def _value(message: memoryview, begin: int, wire: int) -> tuple[int | memoryview, int]:
    """Returns a field's value and its end."""
    if wire == _VARINT:
        return _varint(message, begin)
    length = _SIZES.get(wire)
    if length is None:
        length, begin = _varint(message, begin)
    if length > len(message) - begin:
        raise ValueError(f"a field of {length:,} bytes where {len(message) - begin:,} are left")
    return message[begin : begin + length], begin + length


def _run(message: memoryview, position: int, begin: int, end: int) -> tuple[memoryview, int]:
    """Returns the joined values of fields with the same tag and size, and the end of the last."""
    size, tag = end - position, begin - position
    count = (len(message) - position) // size
    rows = np.frombuffer(message, np.uint8, count * size, position).reshape(count, size)
    other = (rows[:, :tag] != rows[0, :tag]).any(axis=1)
    count = int(other.argmax()) if other.any() else count
    return memoryview(rows[:count, tag:].tobytes()), position + count * size


def _varint(message: memoryview, begin: int) -> tuple[int, int]:
    """Returns an unsigned number of 64 bits, stored in groups of 7 bits, and its end."""
    number = 0
    for index, byte in enumerate(message[begin : begin + 10]):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number & (1 << 64) - 1, begin + index + 1
    raise ValueError("a number without an end")


def _signed(number: int) -> int:
    return number - (number >> 63 << 64)
