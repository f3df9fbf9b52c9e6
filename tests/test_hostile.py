"""Checkpoint files from strangers: one line of error, no code run, no memory taken."""

import json
import os
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest

import models
from engine import checkpoints
from inference import loading

SENTINEL = "a stranger's code was run"


class Payload:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def sound():
    """A good checkpoint's tensors and what it says of itself."""
    model = models.build("lenet5", 10)
    about = {
        "step": 1,
        "flags": {"data": "digits", "val_data": None},
        "network": {"name": "lenet5", "num_classes": 10, "image_size": 32},
        "class_names": [str(digit) for digit in range(10)],
        "storage": {"short_side": 256, "quality": 95, "encoding": "jpeg"},
        "data_fingerprint": "0",
    }
    return checkpoints.values(checkpoints.named_variables(model)), about


def opened(path):
    return loading.open_network(str(path))


def peak():
    """The most resident memory, in kB."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line)


def refused(path):
    """The one line; nothing was run, and no more memory taken than such a file may need."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    with pytest.raises((ValueError, OSError)) as error:
        opened(path)
    assert peak() - before < 300_000
    assert not (path.parent / SENTINEL).exists()
    return str(error.value)


def test_the_sound_one_is_opened(sound, tmp_path):
    tensors, about = sound
    checkpoints.write(tmp_path / "x.safetensors", tensors, about)
    network = opened(tmp_path / "x.safetensors")
    assert network.class_names[3] == "3" and network.image_size == 32
    assert checkpoints.weights_digest(network.model) == checkpoints.digest(tensors)


NESTED = "[" * 100_000 + "]" * 100_000
NETWORKS = {  # changes of the network's description, each well sealed
    "unknown name": {"name": "skynet"},
    "name with a path": {"name": "../../../tmp/evil"},
    "name of a module": {"name": "os.system"},
    "name that is a list": {"name": ["lenet5"]},
    "no name": {"name": None},
    "unknown option": {"command": "touch x"},
    "option of a layer": {"activation": "os.system"},
    "another option": {"activation": "tanh", "pooling": ["max"]},
    "a billion classes": {"num_classes": 10**9},
    "no classes": {"num_classes": 0},
    "classes in words": {"num_classes": "ten"},
    "half a class": {"num_classes": 10.5},
    "enormous images": {"image_size": 10**6},
    "negative images": {"image_size": -32},
    "no image size": {"image_size": None, "num_classes": 10**8},
    "enormous and dense": {"name": "alexnet", "image_size": 30_000},
    "another network": {"name": "vgg19", "image_size": 224},
    "mean of text": {"mean": ["a", "b", "c"], "std": [1, 1, 1]},
    "mean of many": {"mean": [0] * 10**5, "std": [1] * 10**5},
    "enormous and pooled": {"name": "cifar_resnet20", "image_size": 10**5},
    "many channels": {"channels": 10**7},
}


@pytest.mark.parametrize("case", NETWORKS)
def test_hostile_networks(sound, tmp_path, case):
    tensors, about = sound
    about = {**about, "network": {**about["network"], **NETWORKS[case]}}
    checkpoints.write(tmp_path / "x.safetensors", tensors, about)
    assert "x.safetensors" in refused(tmp_path / "x.safetensors")


ABOUTS = {
    "network of text": {"network": "lenet5"},
    "too few class names": {"class_names": ["a"]},
    "class names that are numbers": {"class_names": list(range(10))},
    "class names that are a number": {"class_names": 10},
    "storage of text": {"storage": "jpeg"},
    "storage with a command": {"storage": {"command": "touch x"}},
    "storage of no encoding": {"storage": {"encoding": "pickle"}},
    "storage of 11 bits": {"storage": {"bits": 11}},
    "storage of a billion bits": {"storage": {"bits": 10**9}},
    "storage of bits in words": {"storage": {"bits": "twelve"}},
    "storage of quality in words": {"storage": {"quality": "best"}},
    "flags of text": {"flags": "none"},
    "no flags": {"flags": {}},
}


@pytest.mark.parametrize("case", ABOUTS)
def test_hostile_descriptions(sound, tmp_path, case):
    tensors, about = sound
    checkpoints.write(tmp_path / "x.safetensors", tensors, {**about, **ABOUTS[case]})
    assert "x.safetensors" in refused(tmp_path / "x.safetensors")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(sound, tmp_path, value):
    tensors, about = sound
    name = next(iter(tensors))
    spoiled = {**tensors, name: np.full_like(tensors[name], value)}
    checkpoints.write(tmp_path / "x.safetensors", spoiled, about)
    assert f"{name} is not finite" in refused(tmp_path / "x.safetensors")


def header(text, length=None):
    text = text.encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


def tensor_header(**changes):
    row = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
    return header(json.dumps({"a": row, "__metadata__": {"convnets": "{}"}})) + bytes(8)


FILES = {
    "empty": b"",
    "a length only": struct.pack("<Q", 10),
    "a length of an exabyte": header("{}", 1 << 60),
    "a length of all bits": header("{}", (1 << 64) - 1),
    "no JSON": header("{" * 50),
    "nested JSON": header(NESTED),
    "a header of 20 MB": header(json.dumps({"__metadata__": {"convnets": "x" * 20_000_000}})),
    "nested description": header(json.dumps({"__metadata__": {"convnets": NESTED}})),
    "infinite step": header(json.dumps({"__metadata__": {"convnets": '{"step": 1e999}'}})),
    "a long number": header(json.dumps({"__metadata__": {"convnets": "9" * 10_000}})),
    "more than there is": tensor_header(shape=[1 << 40], data_offsets=[0, 1 << 42]),
    "overflowing shape": tensor_header(shape=[1 << 62, 1 << 62]),
    "negative shape": tensor_header(shape=[-2]),
    "shape of text": tensor_header(shape="2"),
    "backward offsets": tensor_header(data_offsets=[8, 0]),
    "unknown type": tensor_header(dtype="PICKLE"),
    "a Keras file": b"PK\x03\x04" + bytes(100),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("case", FILES)
def test_hostile_files(tmp_path, case):
    path = tmp_path / "x.safetensors"
    path.write_bytes(FILES[case])
    assert "x.safetensors" in refused(path)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pkl", "x.pt", "x.keras", "x.h5", "x"])
def test_a_pickle_is_never_opened(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Payload(str(tmp_path / SENTINEL))))
    line = refused(path)
    assert name in line
    if name != "x.safetensors":
        assert "expected a .safetensors file" in line and "--init_from" in line
