"""Reads the tensors of files that torch.save wrote, in its present and in its older form.

Since PyTorch 1.6 such a file is a ZIP archive: a pickle, and a member of raw numbers for each
storage. Before, it was five pickles and then the storages. Such files are not trusted: nothing in
them is executed (`models.tools.pickles`), and no memory is taken but for numbers that the file has.
"""

import functools
import io
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np

from models.tools import pickles
from models.tools.pickles import Tensor

_ZIP = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the older form
_VERSION = 1001  # second pickle
_PICKLE_BYTES = 16 << 20  # upper bound; the pickle of 1,300 tensors has 0.2 MB
_WRAPPERS = ("state_dict", "model")  # keys of a training's checkpoint that hold the tensors
_PARALLEL = "module."  # prefix of the names in a data-parallel training


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict.

    Args:
        path: File that `torch.save` wrote: a state dict, or a checkpoint that holds one.

    Returns:
        Read-only arrays by name, in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or has more than tensors in plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file, expected a .pth, received {path}")
    try:
        with open(path, "rb") as file:
            is_archive = file.read(len(_ZIP)) == _ZIP
            file.seek(0)
            content, block = (_open_archive if is_archive else _open_older)(file)
            return {name: _array(each, block) for name, each in _tensors(content).items()}
    except pickles.Unsafe as error:
        raise ValueError(f"unsafe weights file {path}: {error}; nothing was executed") from error
    except _DAMAGE as error:
        reason = error.args[0] if error.args else error
        raise ValueError(
            f"wrong weights file, expected a .pth, received {path}: {reason}"
        ) from error


# What reading a damaged file raises; RuntimeError: zipfile, of members that are encrypted.
_DAMAGE = (ValueError, LookupError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)
_Block = Callable[[str], bytes]  # reads the block of a storage, by its key


def _open_archive(file: BinaryIO) -> tuple[object, _Block]:
    """Opens a ZIP archive: NAME/data.pkl, and NAME/data/KEY for each storage."""
    archive = zipfile.ZipFile(file)
    members = {info.filename: info for info in archive.infolist()}
    root = next(iter(members), "").partition("/")[0]
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise ValueError("it is compressed")
    if sum(info.file_size for info in members.values()) > _size(file):
        raise ValueError("its members are larger than the file")
    order = f"{root}/byteorder"
    if order in members and archive.read(order) != b"little":
        raise ValueError("its numbers are not little-endian")
    pickled = members[f"{root}/data.pkl"]
    if pickled.file_size > _PICKLE_BYTES:
        raise ValueError(f"a pickle of {pickled.file_size:,} bytes")
    content, _ = pickles.load(io.BytesIO(archive.read(pickled)))
    return content, functools.cache(lambda key: archive.read(members[f"{root}/data/{key}"]))


def _open_older(file: BinaryIO) -> tuple[object, _Block]:
    """Opens the form before 1.6.

    Five pickles: a magic number, a version, facts about the machine, the content, and the keys of
    the storages; then for each key the number of elements, int64, and the elements.
    """
    pickled = io.BytesIO(file.read(_PICKLE_BYTES))
    if pickled.read(2) != b"\x80\x02":
        raise ValueError("neither form of torch.save")
    pickled.seek(0)
    (magic, _), (version, _), (machine, _) = (pickles.load(pickled) for _ in range(3))
    if (magic, version) != (_MAGIC, _VERSION) or not machine["little_endian"]:
        raise ValueError("neither form of torch.save")
    (content, dtypes), (keys, _) = pickles.load(pickled), pickles.load(pickled)
    places, position = {}, pickled.tell()
    for key in keys:
        file.seek(position)
        length = int.from_bytes(file.read(8), "little") * _dtype(dtypes[key]).itemsize
        places[key] = position + 8, length
        position += 8 + length
        if position > _size(file):
            raise ValueError(f"storage {key} is larger than the file")

    @functools.cache
    def block(key: str) -> bytes:
        position, length = places[key]
        file.seek(position)
        return file.read(length)

    return content, block


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _tensors(content: object) -> dict[str, Tensor]:
    """Returns the tensors of a state dict, or of the state dict in a checkpoint."""
    if isinstance(content, dict):
        for key in _WRAPPERS:
            if isinstance(content.get(key), dict):
                content = content[key]
    found = content if isinstance(content, dict) else {}
    tensors = {name: each for name, each in found.items() if isinstance(each, Tensor)}
    if not tensors:
        raise ValueError("it has no tensors")
    return {str(name).removeprefix(_PARALLEL): each for name, each in tensors.items()}


def _array(tensor: Tensor, block: _Block) -> np.ndarray:
    """Returns a tensor as a read-only view of its storage's block."""
    storage, dtype = tensor.storage, _dtype(tensor.storage.dtype)
    numbers = np.frombuffer(block(storage.key), dtype)
    count = math.prod(tensor.shape)
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((length - 1) * stride for length, stride in steps)
    if storage.begin + storage.size > numbers.size or count > storage.size:
        raise ValueError(f"storage {storage.key} has {numbers.size:,} numbers, too few")
    if count and last >= storage.size:
        raise ValueError(f"a tensor reaches beyond storage {storage.key}")
    if not count:
        return np.empty(tensor.shape, dtype)
    return np.lib.stride_tricks.as_strided(
        numbers[storage.begin + tensor.offset :],
        tensor.shape,
        [stride * dtype.itemsize for stride in tensor.strides],
        writeable=False,
    )
