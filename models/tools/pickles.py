"""Interprets the pickles that torch.save writes, without importing or calling anything.

A pickle is a program. Python's own reader runs it, with any function that it names; this one knows
the opcodes that torch.save needs for tensors in plain containers, and refuses all others. What
`torch.save` writes as calls of its own functions becomes a `Tensor` here.
"""

import io
import pickletools
from collections.abc import Callable
from typing import NamedTuple

MAX_STEPS = 1_000_000  # opcodes; each tensor takes about 40, each step up to 100 bytes of memory
DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class Storage(NamedTuple):
    """A block of numbers of the file.

    Attributes:
        key: Its name in the file.
        dtype: Name of the NumPy type, or "bfloat16".
        size: Number of elements.
        begin: First element that belongs to this storage, if it is a part of the block.
    """

    key: str
    dtype: str
    size: int
    begin: int = 0


class Tensor(NamedTuple):
    """A view of a storage.

    Attributes:
        storage: The storage.
        offset: Its first element in the storage.
        shape: Length of each axis.
        strides: Distance between neighbours along each axis, in elements.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Unsafe(ValueError):
    """The pickle asks for more than tensors in plain containers."""


class _Name(NamedTuple):
    """A name of Python that the pickle refers to; it is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


_MARK = object()  # begins a group of values on the stack
_ORDERED_DICT = _Name("collections", "OrderedDict")


def _tensor(storage, offset, shape, strides, *_):
    if not isinstance(storage, Storage):
        raise Unsafe("a tensor without a storage")
    if not _are_counts(shape) or not _are_counts(strides) or not _are_counts((offset,)):
        raise Unsafe("a tensor whose shape is not made of counts")
    if len(shape) != len(strides):
        raise Unsafe(f"a tensor of {len(shape)} axes with {len(strides)} strides")
    return Tensor(storage, offset, shape, strides)


def _are_counts(values):
    return isinstance(values, tuple) and all(type(each) is int and each >= 0 for each in values)


def _parameter(data, *_):
    return data


# What a pickle may call, and what becomes of it.
_CALLS: dict[_Name, Callable] = {
    _ORDERED_DICT: lambda: {},
    _Name("torch._utils", "_rebuild_tensor"): _tensor,
    _Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    _Name("torch._utils", "_rebuild_parameter"): _parameter,
}
_STORAGES = {_Name("torch", name) for name in DTYPES}


def load(data: io.BytesIO) -> tuple[object, dict[str, str]]:
    """Reads one pickle, up to its end.

    Args:
        data: Bytes in memory, positioned at the beginning of the pickle: a file would take memory
            for any length that a pickle claims.

    Returns:
        The content: dictionaries, lists, tuples, texts, numbers, `Tensor` and `Storage`; and the
        types of all storages by their keys, as in `Storage.dtype`.

    Raises:
        ValueError: If it is damaged, or `Unsafe`: if it has another opcode or name than tensors
            in plain containers need.
    """
    machine = _Machine()
    return machine.run(data), machine.dtypes


class _Machine:
    """The stack and the memory of a pickle in progress.

    Attributes:
        dtypes: Types of the storages so far, by their keys.
    """

    def __init__(self) -> None:
        self.dtypes: dict[str, str] = {}
        self._stack, self._memo = [], {}

    def run(self, data: io.BytesIO) -> object:
        """Executes all opcodes; returns the last value."""
        try:
            for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
                if number >= MAX_STEPS:
                    raise Unsafe(f"more than {MAX_STEPS:,} steps")
                if opcode.name == "STOP":
                    return self._pop()
                if opcode.name in _CONSTANTS:
                    self._stack.append(_CONSTANTS[opcode.name])
                elif opcode.name in _LITERALS:
                    self._stack.append(argument)
                elif opcode.name in _ACTIONS:
                    _ACTIONS[opcode.name](self, argument)
                else:
                    raise Unsafe(f"opcode {opcode.name}")
        except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"a damaged pickle: {error!r}") from error
        raise ValueError("a pickle without an end")

    def _pop(self) -> object:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a damaged pickle: a mark instead of a value")
        return value

    def _group(self) -> list:
        """Pops the values since the last mark."""
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _tuple(self, count: int) -> None:
        self._stack.append(tuple([self._pop() for _ in range(count)][::-1]))

    def _global(self, argument: str) -> None:
        name = _Name(*argument.split(" ", 1))
        if name not in _CALLS and name not in _STORAGES:
            raise Unsafe(f"the name {name}")
        self._stack.append(name)

    def _reduce(self, _) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, _Name) or function not in _CALLS:
            raise Unsafe(f"a call of {function if isinstance(function, _Name) else 'a value'}")
        self._stack.append(_CALLS[function](*arguments))

    def _persistent(self, _) -> None:
        """A storage: ("storage", type, key, device, size), before 1.6 also a view or None."""
        kind, name, key, _, size, *view = self._pop()
        if kind != "storage" or not isinstance(name, _Name) or not isinstance(key, str):
            raise Unsafe("a persistent value that is no storage")
        begin = 0
        if view and view[0] is not None:
            _, begin, size = view[0]
        if not _are_counts((begin, size)):
            raise Unsafe("a storage whose size is no count")
        dtype = DTYPES[name.name]
        if self.dtypes.setdefault(key, dtype) != dtype:
            raise Unsafe(f"storage {key} of two types")
        self._stack.append(Storage(key, dtype, size, begin))

    def _set_items(self, values: list) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise Unsafe("items of a value that is no dictionary")
        if not all(isinstance(key, str | int) for key in values[::2]):
            raise Unsafe("a key that is neither text nor number")
        target.update(zip(values[::2], values[1::2], strict=True))

    def _append(self, values: list) -> None:
        if type(self._stack[-1]) is not list:
            raise Unsafe("elements of a value that is no list")
        self._stack[-1].extend(values)

    def _build(self, _) -> None:
        """Ignores the state of an object: `_metadata` of a state dict."""
        self._pop()
        if type(self._stack[-1]) is not dict:
            raise Unsafe("the state of an object")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _MARK}
_LITERALS = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_ACTIONS: dict[str, Callable[[_Machine, object], object]] = {
    "PROTO": lambda machine, _: None,
    "EMPTY_DICT": lambda machine, _: machine._stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine._stack.append([]),
    "TUPLE": lambda machine, _: machine._stack.append(tuple(machine._group())),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "BINPUT": lambda machine, index: machine._memo.update({index: machine._stack[-1]}),
    "LONG_BINPUT": lambda machine, index: machine._memo.update({index: machine._stack[-1]}),
    "BINGET": lambda machine, index: machine._stack.append(machine._memo[index]),
    "LONG_BINGET": lambda machine, index: machine._stack.append(machine._memo[index]),
    "SETITEM": lambda machine, _: machine._set_items([machine._pop(), machine._pop()][::-1]),
    "SETITEMS": lambda machine, _: machine._set_items(machine._group()),
    "APPEND": lambda machine, _: machine._append([machine._pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._group()),
    "GLOBAL": _Machine._global,
    "REDUCE": _Machine._reduce,
    "BINPERSID": _Machine._persistent,
    "BUILD": _Machine._build,
}
