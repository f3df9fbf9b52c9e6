"""Files of torch.save: their numbers come back, and nothing in them is executed."""

import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import torch_writer
from conftest import memory
from torch_writer import Storage, Tensor

from models.tools import torch_files

FORMS = (torch_writer.save, torch_writer.save_older)
ARRAYS = {
    "conv.weight": np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32),
    "conv.bias": np.arange(4, dtype=np.float16),
    "bn.num_batches_tracked": np.array(7, np.int64),
    "empty": np.empty((0, 3), np.float32),
}


@pytest.fixture(autouse=True)
def torch():
    with torch_writer.torch():
        yield


def assert_equal(received, expected):
    assert list(received) == list(expected)
    for name, array in expected.items():
        assert received[name].dtype == array.dtype, name
        np.testing.assert_array_equal(received[name], array)


@pytest.mark.parametrize("save", FORMS)
def test_a_state_dict_comes_back(save, tmp_path):
    save(tmp_path / "a.pth", torch_writer.tensors(ARRAYS))
    assert_equal(torch_files.read(tmp_path / "a.pth"), ARRAYS)


@pytest.mark.parametrize("save", FORMS)
def test_a_checkpoint_of_a_parallel_training_has_the_same_names(save, tmp_path):
    tensors = torch_writer.tensors({f"module.{name}": each for name, each in ARRAYS.items()})
    save(tmp_path / "a.pth", {"best_prec1": 91.78, "epoch": 200, "state_dict": tensors})
    assert_equal(torch_files.read(tmp_path / "a.pth"), ARRAYS)


@pytest.mark.parametrize("save", FORMS)
def test_views_of_a_storage_are_what_they_show(save, tmp_path):
    numbers = np.arange(24, dtype=np.float32)
    storage = Storage("0", numbers)
    state = OrderedDict(
        transposed=Tensor(storage, (4, 6), (1, 4)),
        column=Tensor(storage, (6,), (4,), 1, function="_rebuild_tensor"),
        end=Tensor(storage, (2, 2), (2, 1), 20),
        one=Tensor(storage, (), (), 5),
    )
    save(tmp_path / "a.pth", state)
    expected = {
        "transposed": numbers.reshape(6, 4).T,
        "column": numbers[1::4],
        "end": numbers[20:].reshape(2, 2),
        "one": numbers[5],
    }
    assert_equal(torch_files.read(tmp_path / "a.pth"), expected)


def test_bfloat16_comes_back(tmp_path):
    array = np.arange(5).astype(ml_dtypes.bfloat16)
    tensor = Tensor(Storage("0", array, "BFloat16Storage"), (5,), (1,))
    torch_writer.save(tmp_path / "a.pth", {"w": tensor})
    assert_equal(torch_files.read(tmp_path / "a.pth"), {"w": array})


def test_no_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file, expected a .pth, received"):
        torch_files.read(tmp_path / "none.pth")


class Calls:
    """Makes a pickle that calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


NUMBERS = np.zeros(10, np.float32)


def whole(value, **members):
    """A file that holds a value, in the present form."""

    def write(path):
        torch_writer.archive(path, *torch_writer.pickled(value()), **members)

    return write


def raw(data, protocol=b"\x80\x02"):
    """A file whose pickle are these bytes."""
    return lambda path: torch_writer.archive(path, protocol + data, {})


def one(shape=(10,), strides=(1,), offset=0, array=NUMBERS):
    """A state dict of one tensor."""
    return lambda: {"w": Tensor(Storage("0", array), shape, strides, offset)}


def cut(form, part):
    """A file that ends before its end."""

    def write(path):
        form(path, torch_writer.tensors(ARRAYS))
        path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])

    return write


def compressed(path):
    data, storages = torch_writer.pickled(one(array=np.zeros(10**7, np.float32))())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("weights/data.pkl", data)
        file.writestr("weights/data/0", storages["0"].tobytes())


def larger_than_the_file(path):
    """Its directory names the same bytes a thousand times."""
    data, storages = torch_writer.pickled(one()())
    torch_writer.archive(path, data, storages, block=bytes(10**5))
    with zipfile.ZipFile(path, "a") as file:
        block = file.getinfo("weights/block")
        for number in range(1000):
            again = zipfile.ZipInfo(f"weights/data/{number + 1}")
            for name in ("header_offset", "CRC", "compress_size", "file_size", "external_attr"):
                setattr(again, name, getattr(block, name))
            file.filelist.append(again)
        file._didModify = True


def of_two_types():
    other = Storage("0", NUMBERS.astype(np.float16))
    return {**one()(), "v": Tensor(other, (10,), (1,))}


def older(count, key="0", keys=("0",)):
    """The older form with a storage that claims so many elements."""

    def write(path):
        data, _ = torch_writer.pickled({"w": Tensor(Storage(key, NUMBERS), (10,), (1,))}, fields=6)
        pickles = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        head, end = (b"".join(pickle.dumps(each, 2) for each in part) for part in (pickles, [keys]))
        path.write_bytes(head + data + end + struct.pack("<q", count) + NUMBERS.tobytes())

    return write


def nested_key(path):
    """A tuple so deep that its hash would end the process."""
    raw(b"}(" + b")" + 10**5 * b"\x85" + b"K\x01u.")(path)


HOSTILE = {
    "calls the system": (whole(lambda: Calls(os.system, "touch pwned")), "posix.system"),
    "evaluates": (whole(lambda: {"w": Calls(eval, "open('pwned', 'w')")}), "__builtin__.eval"),
    "a whole module": (raw(b"ctorch.nn.modules.linear\nLinear\n)\x81}b."), "linear.Linear"),
    "INST": (raw(b"(S'touch pwned'\nios\nsystem\n."), "opcode"),
    "OBJ": (raw(b"(cos\nsystem\nX\x01\x00\x00\x00ao."), "os.system"),
    "NEWOBJ": (raw(b"ccollections\nOrderedDict\n)\x81."), "opcode NEWOBJ"),
    "STACK_GLOBAL": (raw(b"\x8c\x02os\x8c\x06system\x93.", b"\x80\x04"), "opcode"),
    "EXT1": (raw(b"\x82\x01."), "opcode EXT1"),
    "text as a call": (raw(b"X\x01\x00\x00\x00a)R."), "a call of a value"),
    "a storage as a call": (raw(b"ctorch\nFloatStorage\n)R."), "a call of torch.FloatStorage"),
    "the state of a name": (raw(b"ccollections\nOrderedDict\n}b."), "the state of an object"),
    "items of a list": (raw(b"](K\x01K\x02u."), "items of a value"),
    "elements of a dictionary": (raw(b"}(K\x01e."), "elements of a value"),
    "a persistent module": (raw(b"(X\x06\x00\x00\x00moduleNNNNtQ."), "a persistent value"),
    "a deep key": (nested_key, "a key"),
    "no end": (raw(b"}"), "exhausted"),
    "a million steps": (raw(10**6 * b"N" + b"."), "more than 1,000,000 steps"),
    "nothing on the stack": (raw(b"."), "damaged pickle"),
    "an unknown memory": (raw(b"h\x07."), "damaged pickle"),
    "a text beyond the end": (raw(b"X\xff\xff\xff\x7fa."), "expected 2147483647 bytes"),
    "bytes beyond the end": (raw(b"\x8e" + b"\xff" * 7 + b"\x7f" + b"a."), ""),
    "a tensor beyond its storage": (whole(one(shape=(11,))), "too few"),
    "an offset beyond the storage": (whole(one(offset=1)), "reaches beyond"),
    "a stride beyond the storage": (whole(one(shape=(2, 5), strides=(6, 1))), "reaches beyond"),
    "a negative stride": (whole(one(strides=(-1,), offset=9)), "not made of counts"),
    "a stride of 0": (whole(one(shape=(10**12,), strides=(0,))), "too few"),
    "axes without strides": (whole(one(shape=(2, 5))), "2 axes with 1 strides"),
    "a shape of fractions": (whole(one(shape=(10.0,))), "not made of counts"),
    "a storage that is not there": (
        lambda path: torch_writer.archive(path, torch_writer.pickled(one()())[0], {}),
        "weights/data/0",
    ),
    "a storage that is smaller": (
        lambda path: torch_writer.archive(
            path, torch_writer.pickled(one()())[0], {"0": NUMBERS[:9]}
        ),
        "too few",
    ),
    "a storage of two types": (whole(of_two_types), "storage 0 of two types"),
    "no tensors": (whole(lambda: {"epoch": 3}), "no tensors"),
    "a list": (whole(lambda: [1, 2]), "no tensors"),
    "big-endian": (whole(one(), byteorder="big"), "not little-endian"),
    "compressed": (compressed, "compressed"),
    "larger than the file": (larger_than_the_file, "larger than the file"),
    "half an archive": (cut(torch_writer.save, 0.5), "zip"),
    "half an older file": (cut(torch_writer.save_older, 0.5), ""),
    "an older file without its end": (cut(torch_writer.save_older, 0.95), "larger than the file"),
    "an older storage of 2^60": (older(2**60), "larger than the file"),
    "an older storage that is smaller": (older(9), "too few"),
    "older keys of no storage": (older(10, keys=("1",)), "1"),
    "older keys of another kind": (older(10, keys=({},)), "unhashable"),
    "text": (lambda path: path.write_text("not torch"), "neither form"),
    "empty": (lambda path: path.touch(), "neither form"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, reason = HOSTILE[kind]
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(ValueError) as error, memory(32 << 20):
        torch_files.read(path)
    message = str(error.value)
    assert reason in message and str(path) in message and "\n" not in message
    assert not (tmp_path / "pwned").exists()
