"""Checkpoint files: one safetensors file holds the complete state of a run.

Each variable is stored under its path. A JSON object in the header's metadata holds the rest:
format version, step, flags, class names, the network and its preprocessing, versions, and the
sha256 of the tensors. A second digest covers the JSON text and the tensors' names, dtypes and
shapes. Reading unpickles nothing and runs no code of the file: the network is rebuilt by name.
"""

import hashlib
import importlib
import json
import shutil
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import safetensors
import safetensors.numpy

from runtime import files

FORMAT_VERSION = 2
MAX_IMAGE_SIZE = 4096  # side in pixels; limits the memory that an untrusted file can claim
_METADATA_KEY = "convnets"
_SEAL_KEY = "sha256"  # digest of the JSON text and of the names, dtypes and shapes
_HEADER_BYTES = 1 << 20  # upper bound of the header size
_MODEL = "model/"
_OPTIMIZER = "optimizer/"
_AVERAGE = "average/"
_LOOKAHEAD = "lookahead/"


class Checkpoint(NamedTuple):
    """Content of a checkpoint file.

    Attributes:
        path: Path of the file.
        about: JSON object of the header.
        tensors: Arrays by path of the variable.
    """

    path: Path
    about: dict
    tensors: dict[str, np.ndarray]


def named_variables(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None = None,
    average: Mapping[str, keras.Variable] | None = None,
    lookahead: Mapping[str, keras.Variable] | None = None,
) -> dict[str, keras.Variable]:
    """Returns all variables of a model, its optimizer and its averages, by unique path."""
    named = {_MODEL + variable.path: variable for variable in model.weights}
    for variable in optimizer.variables if optimizer else ():
        path = _OPTIMIZER + variable.path
        while path in named:  # Adafactor gives several variables of a weight the same path
            path += "'"
        named[path] = variable
    for kind, copies in ((_AVERAGE, average), (_LOOKAHEAD, lookahead)):
        named |= {kind + path: variable for path, variable in (copies or {}).items()}
    return named


def weights_in_use(checkpoint: "Checkpoint") -> dict[str, np.ndarray]:
    """Returns the weights for inference by path: moving averages where they exist."""
    return {
        name.removeprefix(kind): tensor
        for kind in (_MODEL, _AVERAGE)
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(kind)
    }


def values(variables: Mapping[str, keras.Variable]) -> dict[str, np.ndarray]:
    """Copies the values of variables; for a mirrored variable, the first replica's value."""
    return {name: np.array(variable.value.numpy()) for name, variable in variables.items()}


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns the sha256, in hex, of the tensors' bytes in the order of their names."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(np.ascontiguousarray(tensors[name]).data)
    return hasher.hexdigest()


def weights_digest(model: keras.Model) -> str:
    """Returns the digest of `model.weights` in path order; equal digests mean equal weights."""
    return digest(values(named_variables(model)))


def write(path: Path, tensors: Mapping[str, np.ndarray], about: Mapping) -> None:
    """Writes a checkpoint atomically: `path` never holds a partial file.

    Args:
        path: Path of the file, in an existing folder.
        tensors: Arrays by name.
        about: JSON object of the header; format version and digest are added.

    Raises:
        OSError: If it cannot be written (full disk, ...); no partial file remains.
    """
    needed = sum(tensor.nbytes for tensor in tensors.values()) + _HEADER_BYTES
    if needed > (free := shutil.disk_usage(path.parent).free):
        raise OSError(
            f"cannot write checkpoint {path}: it takes {needed / 1e6:,.0f} MB, "
            f"{free / 1e6:,.0f} MB of the disk are free"
        )
    text = json.dumps({"format_version": FORMAT_VERSION, **about, "sha256": digest(tensors)})
    metadata = {_METADATA_KEY: text, _SEAL_KEY: _seal(text, tensors)}

    def save(temporary: Path) -> None:
        try:
            safetensors.numpy.save_file(dict(tensors), temporary, metadata)
        except safetensors.SafetensorError as error:
            raise OSError(f"cannot write checkpoint {path}: {error}") from error

    files.replace(path, save)


def read(path: Path) -> Checkpoint:
    """Reads and checks a checkpoint file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, or of another program or format version.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            about = dict(json.loads(metadata[_METADATA_KEY]))
            version = about.get("format_version")
            if version == FORMAT_VERSION:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (
        safetensors.SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        OSError,
        RecursionError,
    ) as error:
        if not path.is_file():  # a running training may have removed it just now
            raise FileNotFoundError(f"no checkpoint {path}") from None
        raise ValueError(
            f"checkpoint {path} is damaged or not one of ours: {error or type(error).__name__}"
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"checkpoint {path} has format version {version}, expected {FORMAT_VERSION}"
        )
    if metadata.get(_SEAL_KEY) != _seal(metadata[_METADATA_KEY], tensors):
        raise ValueError(f"checkpoint {path} is damaged: its header does not match its sha256")
    if about.get("sha256") != digest(tensors):
        raise ValueError(f"checkpoint {path} is damaged: its tensors do not match their sha256")
    return Checkpoint(path, about, tensors)


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint, damaged or not; other tools write .safetensors too."""
    if path.suffix != ".safetensors":
        return False
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return _METADATA_KEY in (file.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        return True


def _seal(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Returns the sha256, in hex, of the JSON text and the tensors' names, dtypes and shapes."""
    outline = [(name, str(tensor.dtype), tensor.shape) for name, tensor in sorted(tensors.items())]
    return hashlib.sha256(f"{text}{outline}".encode()).hexdigest()


def assign(variables: Mapping[str, keras.Variable], checkpoint: Checkpoint) -> None:
    """Sets variables from a checkpoint.

    Args:
        variables: Variables by name; each must be in the checkpoint, with the same shape.
        checkpoint: Checkpoint of the same network.

    Raises:
        ValueError: If the checkpoint is of another network, or a value is not finite.
    """
    _require_fit(variables, checkpoint)
    for name in variables:
        variables[name].assign(checkpoint.tensors[name])


def _require_fit(variables: Mapping[str, keras.Variable], checkpoint: Checkpoint) -> None:
    for name, variable in variables.items():
        tensor = checkpoint.tensors.get(name)
        shape = None if tensor is None else tensor.shape
        if shape != tuple(variable.shape):
            raise ValueError(
                f"checkpoint {checkpoint.path} is of another network: {name} should have shape "
                f"{tuple(variable.shape)}, found {shape or 'nothing'}"
            )
        if not np.isfinite(tensor.astype(np.float32, copy=False)).all():
            raise ValueError(f"checkpoint {checkpoint.path} is not usable: {name} is not finite")


def rebuild(
    checkpoint: Checkpoint, build: Callable[..., keras.Model], image_size: int | None = None
) -> keras.Model:
    """Rebuilds the trained network of a checkpoint, which may be untrusted.

    Args:
        checkpoint: Checkpoint whose `about["network"]` holds the arguments of `build`.
        build: Function that builds a network from its name and options.
        image_size: Side of the input in pixels (default: as trained).

    Raises:
        ValueError: If the checkpoint describes no valid network, or its weights do not fit.
    """
    in_use = {_MODEL + path: tensor for path, tensor in weights_in_use(checkpoint).items()}
    checkpoint = checkpoint._replace(tensors=in_use)
    try:
        network = dict(checkpoint.about["network"])
        network["image_size"] = image_size or network["image_size"]
        if network["image_size"] > MAX_IMAGE_SIZE:
            raise ValueError(f"images of {network['image_size']} pixels")
        with keras.StatelessScope(initialize_variables=False):  # allocates no weights
            model = build(**network)
    except Exception as error:  # an untrusted header may hold anything
        keras.utils.clear_session()  # drops the variables that were to be created
        reason = textwrap.shorten(str(error), 200)
        raise ValueError(f"checkpoint {checkpoint.path} describes no network: {reason}") from error
    try:
        _require_fit(named_variables(model), checkpoint)
    except ValueError:
        keras.utils.clear_session()
        raise
    with keras.StatelessScope():
        pass  # leaving the scope creates the variables
    assign(named_variables(model), checkpoint)
    return model


def versions() -> dict[str, str]:
    """Returns the versions of the libraries that bit-identical results depend on."""
    backend = keras.backend.backend()
    version = importlib.import_module(backend).__version__
    return {backend: version, "keras": keras.__version__, "numpy": np.__version__}
