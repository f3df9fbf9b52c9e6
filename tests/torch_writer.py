"""Writes files as torch.save does, without torch."""

import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}


class Storage:
    """A block of numbers, by its key."""

    def __init__(self, key, array, dtype=None):
        self.key, self.array = key, array
        self.type = getattr(sys.modules["torch"], dtype or STORAGES[str(array.dtype)])


class Tensor:
    """A view of a storage; `strides` in elements."""

    def __init__(self, storage, shape, strides, offset=0, function="_rebuild_tensor_v2"):
        self.arguments = storage, offset, tuple(shape), tuple(strides)
        self.function = function

    def __reduce__(self):
        more = (False, OrderedDict()) * self.function.endswith("v2")
        return getattr(sys.modules["torch._utils"], self.function), (*self.arguments, *more)


@contextlib.contextmanager
def torch():
    """Modules of the names that the pickles refer to."""
    package, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    names = (*STORAGES.values(), "BFloat16Storage")
    for name in names:
        setattr(package, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        function = types.FunctionType((lambda *_: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    package._utils = utils
    modules = {"torch": package, "torch._utils": utils}
    sys.modules |= modules
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def tensors(arrays):
    """A state dict of contiguous tensors, each with a storage of its own."""
    state = OrderedDict()
    for number, (name, array) in enumerate(arrays.items()):
        strides = [stride // array.itemsize for stride in array.strides]
        state[name] = Tensor(Storage(str(number), array.ravel()), array.shape, strides)
    state._metadata = OrderedDict({"": {"version": 1}})
    return state


def pickled(value, fields=5):
    """A pickle of protocol 2, and its storages by key."""
    storages = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, each):
            if not isinstance(each, Storage):
                return None
            storages[each.key] = each.array
            return ("storage", each.type, each.key, "cpu", each.array.size, None)[:fields]

    file = io.BytesIO()
    Pickler(file, protocol=2).dump(value)
    return file.getvalue(), storages


def archive(path, data, storages, **members):
    """The present form, of a pickle and its storages."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("weights/data.pkl", data)
        for name, content in members.items():
            file.writestr(f"weights/{name}", content)
        for key, array in storages.items():
            file.writestr(f"weights/data/{key}", array.tobytes())
        file.writestr("weights/version", "3\n")


def save(path, value):
    """As `torch.save(value, path)`."""
    archive(path, *pickled(value), byteorder="little")


def save_older(path, value):
    """As `torch.save` before PyTorch 1.6."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    data, storages = pickled(value, fields=6)
    with open(path, "wb") as file:
        for each in (0x1950A86A20F9469CFC6C, 1001, machine):
            pickle.dump(each, file, protocol=2)
        file.write(data)
        pickle.dump(sorted(storages), file, protocol=2)
        for key in sorted(storages):
            file.write(struct.pack("<q", storages[key].size) + storages[key].tobytes())
