"""Weights that other libraries have published for our networks: which ones, and how to load them.

A source is Keras Applications or another library; `models.sources` says what each of them has. A
word such as that of `--init_from` selects weights: "timm" or "timm:resnet50.a1_in1k" for weights of
the table, "weights.pth" or "torchvision:weights.pth" for a file.
"""

import dataclasses
import functools
import os
import re
from pathlib import Path

import keras
import numpy as np
import safetensors
import safetensors.numpy

from models.sources import caffe, pytorchcv, rows, timm, torchvision
from models.tools import caffemodel, downloads, keras_weights, state_dicts, torch_files

KERAS = "keras"
RULES = {
    "torchvision": torchvision.RULES,
    "timm": timm.RULES,
    "pytorchcv": pytorchcv.RULES,
    "caffe": caffe.RULES,
}
SOURCES = (KERAS, *RULES)
# Where files of the table are; of timm those that its hub has not.
_PLACES = {
    "torchvision": "https://download.pytorch.org/models/",
    "timm": "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-cadene/",
    "pytorchcv": "https://github.com/osmr/imgclsmob/releases/download/",
}
_ON_HUB = "model.safetensors"
_STATE_DICTS = (".safetensors", ".pth", ".pt", ".th", ".bin")
_WHOSE = {".h5": KERAS, ".caffemodel": "caffe"}
_FIRST = {".safetensors": "timm"}  # whose a file is if several sources have its names
_OFTEN = "torchvision"


def names(source: str) -> list[str]:
    """Returns the names of the networks that a source has weights for, in alphabetical order."""
    return rows.networks(source)


def split(word: str) -> tuple[str | None, str | None, str | None]:
    """Splits the word that selects weights.

    Args:
        word: "SOURCE", "SOURCE:TAG", "SOURCE:FILE" or "FILE".

    Returns:
        The source, one of `SOURCES`, the tag and the path of the file; None for what is not said.
    """
    source, _, rest = word.partition(":")
    if source in SOURCES:
        is_tag = any(row.source == source and row.tag == rest for row in rows.ROWS)
        file = os.path.expanduser(rest)  # a shell leaves the ~ of "SOURCE:~/FILE"
        return source, rest if is_tag else None, None if is_tag else file or None
    return _WHOSE.get(Path(word).suffix), None, word


def absolute(word: str) -> str:
    """Returns the word that selects weights with an absolute path, if it has one."""
    source, tag, file = split(word)
    if tag or not file:
        return word
    return os.path.abspath(file) if file == word else f"{source}:{os.path.abspath(file)}"


@dataclasses.dataclass(frozen=True)
class Published:
    """Weights for one of our networks.

    Attributes:
        row: Their row in the table: the preprocessing, if they are a file without a row.
        file: Path of the file; None for weights that are downloaded.
        others: Further sources whose names the file has.
    """

    row: rows.Row
    file: str | None
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Says whose weights these are."""
        if not self.file:
            return f"{self.source}'s {self.row.tag}, published top-1 {self.row.top1} %"
        others = " or ".join(f"{each}:FILE" for each in self.others)
        doubt = f" (--init_from={others} if they are not)" if others else ""
        return f"{self.file} as {self.source}'s {self.row.tag}{doubt}"

    @property
    def source(self) -> str:
        """Whose weights these are, one of `SOURCES`."""
        return self.row.source

    @property
    def rule(self) -> rows.Rule:
        """How they become our network's; not for Keras."""
        return _rule(self.row.network, self.source)

    @property
    def options(self) -> dict:
        """Arguments of `models.build` that make the network theirs."""
        if self.source == KERAS:
            return keras_weights.options(self.row.network)
        mean, std = rows.SCALES[self.row.scale]
        return {"preprocessing": "standardised", "mean": mean, "std": std, **self.rule.options}

    @functools.cached_property
    def state(self) -> dict[str, np.ndarray]:
        """Arrays of the file by their names; not for Keras."""
        return read(self.file or fetch(self.row))

    @property
    def num_classes(self) -> int:
        """Number of classes of the weights."""
        if self.source == KERAS:
            return keras_weights.num_classes(self.row.network, self._keras_word)
        module = self.rule.table[-1][-1]
        array = self.state.get(f"{module}.weight", self.state.get(f"{module}.bias"))
        if array is None or not array.ndim:
            raise self._mismatch(f"{module}.weight is missing")
        return len(array)

    def load(self, model: keras.Model) -> list[str]:
        """Copies the weights into a network.

        Args:
            model: Result of `models.build(name, K, **options)`.

        Returns:
            Names of the layers that kept their weights: auxiliary heads, and the classifier if the
            source has another number of classes.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, unsafe or of another network.
            OSError: If a download fails.
            RuntimeError: If Keras' download fails.
        """
        if self.source == KERAS:
            return keras_weights.load(self.row.network, model, self._keras_word)
        rule = self.rule
        settings = {"epsilon": rule.epsilon, "bgr": rule.bgr}
        try:
            return state_dicts.load(model, self.state, rule.table, **settings)
        except state_dicts.Mismatch as error:
            raise self._mismatch(error) from error

    @property
    def _keras_word(self) -> str:
        return self.file or keras_weights.DOWNLOAD

    def _mismatch(self, reason) -> ValueError:
        return ValueError(
            f"wrong weights file, expected {self.source}'s weights of {self.row.network}, "
            f"received {self.file or self.row.file}: {reason}"
        )


def find(name: str, word: str, file: str | os.PathLike | None = None) -> Published:
    """Finds weights for a network, without reading them.

    Args:
        name: Name of the network.
        word: What selects the weights, see `split`.
        file: Path of the file, if the word does not name it.

    Raises:
        ValueError: If the source has no such weights for the network, the kind of the file is not
            known, or the word has neither a tag of the source nor a file.
        FileNotFoundError: If the file does not exist and its names have to say whose it is.
    """
    source, tag, path = split(word)
    if file is not None:
        if word.partition(":")[0] not in SOURCES:
            raise ValueError(f"unknown source, expected {', '.join(SOURCES)}, received {word}")
        if path:
            raise ValueError(f"expected one file, received {path} and {os.fspath(file)}")
        path = os.fspath(file)
    others = ()
    if source is None:
        source, *others = _sources_of(name, path)
    known = rows.of(name, source)
    if not known:
        networks = ", ".join(names(source))
        raise ValueError(f"no weights of {source} for it, expected {networks}, received {name}")
    return Published(_chosen(known, tag, path), path, tuple(others))


def _chosen(known: list[rows.Row], tag: str | None, path: str | None) -> rows.Row:
    """Returns the row of a tag, else that of a file's name, else the default.

    Raises:
        ValueError: If the tag is not among them, or the path can only be a tag that nobody has.
    """
    default, tags = known[0], ", ".join(row.tag for row in known)
    if tag:
        if named := [row for row in known if row.tag == tag]:
            return named[0]
        raise ValueError(f"{default.source}'s {tag} is not {default.network}, expected {tags}")
    if not path:
        return default
    if Path(path).suffix not in (*_STATE_DICTS, *_WHOSE) and not os.path.exists(path):
        raise ValueError(f"{path} is neither a file nor {default.source}'s, expected {tags}")
    return (_named(known, path) or known)[0]


def _named(known: list[rows.Row], path: str) -> list[rows.Row]:
    """Returns the rows that a file's name stands for, else those that a folder above it does."""
    for name in (Path(path).stem, *(above.name for above in Path(path).absolute().parents)):
        name = name.rpartition("--")[2]  # the hub's cache: models--timm--TAG/snapshots/COMMIT/
        if found := [row for row in known if name in (row.tag, _own_name(row))]:
            return found
    return []


def _own_name(row: rows.Row) -> str | None:
    """Returns the name of a row's file without its suffix, unless all files there have it."""
    return Path(row.file).stem if row.file not in ("", _ON_HUB) else None


def fetch(row: rows.Row) -> Path:
    """Returns the file of weights of the table, downloaded if it is not there.

    Raises:
        DownloadError: If it cannot be downloaded.
        ValueError: If the source has no file to download, or a package is missing.
    """
    if row.source not in _PLACES:
        raise ValueError(
            f"weights of {row.source} are not downloaded, expected --init_from={row.source}:FILE, "
            f"such as {row.file}"
        )
    if row.file == _ON_HUB:
        return downloads.from_hub(f"timm/{row.tag}")
    prefix = Path(row.file).stem.rpartition("-")[2]  # of the checksum
    if row.source == "pytorchcv":
        url = f"{_PLACES[row.source]}{row.file}.zip"
        return downloads.from_url(url, hash_prefix=prefix, algorithm="sha1", zipped=True)
    return downloads.from_url(_PLACES[row.source] + row.file, hash_prefix=prefix)


def read(file: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of a weights file, by the names that the library gives today.

    Args:
        file: A .safetensors, a .caffemodel or else a .pth.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or unsafe.
    """
    if Path(file).suffix == ".caffemodel":
        return caffemodel.read(file)
    if Path(file).suffix != ".safetensors":
        state = torch_files.read(file)
    elif not Path(file).is_file():
        raise FileNotFoundError(f"no weights file, expected a .safetensors, received {file}")
    else:
        try:
            state = safetensors.numpy.load_file(file)
        except (safetensors.SafetensorError, AttributeError) as error:  # the latter: its dtypes
            raise ValueError(f"wrong weights file {file}: {error}") from error
    # DenseNets that were published before torchvision renamed the modules of a layer.
    return {re.sub(r"(\.denselayer\d+\.\w+)\.(\d)\.", r"\1\2.", k): v for k, v in state.items()}


def _sources_of(name: str, file: str) -> list[str]:
    """Returns the sources whose modules a file names, the likeliest first."""
    suffix = Path(file).suffix
    if suffix not in _STATE_DICTS:
        sources, suffixes = ", ".join(SOURCES), ", ".join((*_STATE_DICTS, *_WHOSE))
        raise ValueError(
            f"expected a source ({sources}), a weights file ({suffixes}) or SOURCE:FILE, received "
            f"{file}"
        )
    if not os.path.isfile(file):
        raise FileNotFoundError(f"no weights file {file}")
    status = os.stat(file)
    arrays = _names_in(file, status.st_size, status.st_mtime_ns)
    fitting = [source for source in RULES if _names_fit(name, source, arrays)]
    if not fitting:
        having = [source for source in RULES if name in names(source)]
        if not having:
            raise ValueError(f"no source has weights of {name}, received {file}")
        raise ValueError(
            f"wrong weights file, expected {' or '.join(having)}'s weights of {name}, received "
            f"other names in {file}"
        )
    first = _FIRST.get(suffix, _OFTEN)
    return sorted(fitting, key=lambda source: source != first)


@functools.lru_cache(maxsize=1)
def _names_in(file: str, size: int, changed: int) -> frozenset[str]:
    """Returns the names of a file's arrays; kept, because a training asks several times."""
    del size, changed  # part of the key
    return frozenset(read(file))


def _names_fit(name: str, source: str, arrays: frozenset[str]) -> bool:
    """Whether a file has all modules that a source's table names outright."""
    if name not in names(source):
        return False
    modules = [module for _, *modules in _rule(name, source).table for module in modules]
    outright = [module for module in modules if not re.search("[#~@]", module)]
    return all(f"{module}.weight" in arrays for module in outright)


def _rule(name: str, source: str) -> rows.Rule:
    return next(rule for networks, rule in RULES[source].items() if name in networks.split())
