"""Opens the data that `--data` names as shards; converts images into the cache if necessary.

Images are recognised by their content: an earlier conversion of the same images is used again, and
a run finds the data it was started with wherever the images lie now.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from data.conversion import changes
from data.conversion.conversion import AlreadyConvertedError, convert
from data.conversion.description import DESCRIPTION, REJECTED
from data.conversion.identity import fingerprint
from data.images import reading
from data.images.decode import Storage, storage_for
from data.images.examples import Source
from data.shards import copies, series
from data.shards.datasets import Dataset, load
from data.sources.folders import name_of
from data.sources.packaged import is_tfds_folder
from data.sources.sources import is_path, open_source
from runtime import console, files


class ChangedDataError(ValueError):
    """The data differs from the data that a run was started with, or is missing.

    Attributes:
        reason: Description of the difference.
        copy: Folder of the shards that the run was started with; None if they are missing too.
    """

    def __init__(self, data: str | os.PathLike, reason: str, expected: copies.Expected) -> None:
        """Looks for the shards that the run was started with.

        Args:
            data: The data as named by the user.
            reason: Description of the difference.
            expected: The data that the run was started with.
        """
        self.reason, self.copy = reason, expected.copy()
        name = expected.folder or files.cache() / f"{name_of(data)}-{expected.fingerprint[:16]}"
        existing = f"its converted copy still exists, continue with --data={self.copy}"
        missing = f"its converted copy is missing too: {name}"
        super().__init__(f"{reason}; {existing if self.copy else missing}")


def open_dataset(
    data: str | os.PathLike,
    *,
    expected: copies.Expected | None = None,
    verify: bool = False,
    **options,
) -> Dataset:
    """Opens `data` as shards, converted if necessary.

    Args:
        data: The data, see `prepare`.
        expected: The data that a run was started with; None for any.
        verify: Whether to compare every shard's sha256, which reads all bytes.
        **options: The other arguments of `prepare`.

    Raises:
        ChangedDataError: If the data is not the expected one, or missing.
        ValueError: If a shard is damaged, or `data` cannot be used.
    """
    folder, source = prepare(data, expected=expected, **options)
    dataset = load(folder, verify=verify)
    if source is None:
        if expected and expected.fingerprint not in dataset.fingerprints:
            raise ChangedDataError(
                data, f"{data} is not the data that the run was started with", expected
            )
        return dataset
    # Unused files affect no record, so they may differ from those at the time of the conversion.
    passed_over = tuple(source.passed_over.parts(dataset.unreadable))
    return replace(dataset, passed_over=passed_over, joined=source.joined)


def prepare(
    data: str | os.PathLike,
    *,
    image_size: int,
    val_data: str | os.PathLike | None = None,
    validation_fraction: float = 0.1,
    check: Callable[[int | None], object] = lambda train_images: None,
    expected: copies.Expected | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[Path, Source | None]:
    """Finds the folder of shards for `data`; converts images into the cache if necessary.

    The cache is `$CONVNETS_CACHE`, else `~/.cache/convnets`. A conversion is reused until the
    images or an option change. Prints what it does in one line on stdout, and others about older
    conversions, or when it waits for a process that makes the same conversion.

    Args:
        data: The images, see `open_source`, or a folder of shards, which is returned.
        image_size: Side of the network's input in pixels, which decides the stored size.
        val_data: A separate folder of class folders for validation.
        validation_fraction: Fraction of train held out if there is no validation split.
        check: Function called with `Source.train_images` before a conversion; it may raise an error
            that would make the conversion useless.
        expected: The images that a run was started with; None for any. Shards are not compared.
        workers: Number of decoding processes (default: one per core).
        progress: Whether to report progress on stderr.

    Returns:
        The folder, and the source of its images; None for a folder of shards.

    Raises:
        ChangedDataError: If the images are not the expected ones, or missing.
        ValueError, FileNotFoundError: See `open_source`.
        OSError, RuntimeError: See `convert`.
    """
    if is_converted(data):
        if val_data is not None:
            raise ValueError(f"expected no val_data with shards, received {val_data}")
        return Path(data), None
    try:
        source = open_source(data, val_data=val_data, validation_fraction=validation_fraction)
    except (OSError, ValueError) as error:
        if expected:
            raise ChangedDataError(data, str(error), expected) from None
        raise
    storage = source.storage or storage_for(image_size)
    folder = _converted_before(data, source, storage, expected)
    if folder:
        print(f"{data}: converted before, in {folder}", flush=True)
    else:
        check(source.train_images)
        folder = _convert(data, source, storage, workers=workers, progress=progress)
        if expected:
            copies.rename(folder, fingerprint(source, storage), expected.fingerprint)
    location = os.path.abspath(data) if is_path(data) else data
    copies.note_use(folder, location, source.fingerprint)
    return folder, source


def _converted_before(
    data: str | os.PathLike, source: Source, storage: Storage, expected: copies.Expected | None
) -> Path | None:
    """Returns the folder that a source was converted into, by any version; None if there is none.

    Raises:
        ChangedDataError: If the source is not the expected one.
        ValueError: If it is, but only an earlier version could make the same conversion.
    """
    storages = [storage, _earlier(storage)] if expected else [storage]
    copy = expected.copy() if expected else None
    for images in _fingerprints(source):
        storages_by_fingerprint = {
            fingerprint(replace(source, fingerprint=images), each): each for each in storages
        }
        if expected is None:
            copy = copies.find(next(iter(storages_by_fingerprint)))
        wanted = copies.fingerprints(copy) if copy else {expected and expected.fingerprint}
        if known := storages_by_fingerprint.keys() & wanted:
            used = storages_by_fingerprint[known.pop()]
            if copy:
                copies.rename(copy, fingerprint(source, used))
            elif used != storage:
                name = f"{name_of(data)}-{expected.fingerprint[:16]}"
                raise ValueError(
                    f"{data}: expected the conversion of an earlier version, which is missing: "
                    f"{files.cache() / name}; the run cannot continue, but test.py RUN "
                    "--data=... tests it on a new conversion"
                )
            return copy
    if expected:
        difference = f": {changes.since(source, copy)}" if copy else ""
        reason = f"{data} has changed since the run was started{difference}"
        raise ChangedDataError(data, reason, expected)
    return None


def _fingerprints(source: Source) -> Iterator[str]:
    """Yields the fingerprint of a source, and that of earlier versions."""
    yield source.fingerprint
    if source.earlier_fingerprint:
        yield source.earlier_fingerprint()


def _earlier(storage: Storage) -> Storage:
    """Returns the storage that earlier versions used by default, which their runs expect."""
    encoding = "jpeg" if storage.encoding == "auto" else storage.encoding
    return Storage(storage.short_side, quality=95, encoding=encoding)


def _convert(data: str | os.PathLike, source: Source, storage: Storage, **options) -> Path:
    """Converts a source into the cache; returns the folder."""
    folder = files.cache() / f"{source.name}-{fingerprint(source, storage)[:16]}"
    print(f"{data}: converting, once, into {folder}", flush=True)
    for copy in copies.outdated(os.path.abspath(data), source.fingerprint):
        print(
            f"{data}: has changed since it was converted into {copy.folder} "
            f"({console.size(copy.bytes)}); python -m data.cache --remove={copy.folder.name} "
            "removes that copy",
            flush=True,
        )

    def on_wait():
        print(f"{data}: another process is converting it, waiting for it", flush=True)

    with contextlib.suppress(AlreadyConvertedError):  # by that process
        convert(source, folder, storage, on_wait=on_wait, **options)
    return folder


def summary_lines(dataset: Dataset) -> list[str]:
    """Formats the lines about the classes of a data set and about unused files."""
    names, counts = dataset.class_names, dataset.class_counts
    lines = reading.summary_lines(
        names, counts.get("train"), joined=dataset.joined, passed_over=dataset.passed_over
    )
    undecodable, table = dataset.rejected - dataset.unreadable, dataset.folder / REJECTED
    lines += reading.gap_lines(names, counts, left_out=undecodable, table=table)
    return list(map(console.printable, lines))


def is_converted(data: str | os.PathLike) -> bool:
    """Whether a path is a folder of shards, or a single shard of another tool."""
    if data == "digits" or is_tfds_folder(data):
        return False
    return _is_described(Path(data) / DESCRIPTION) or series.are_shards(Path(data))


def _is_described(path: Path) -> bool:
    """Whether a file describes shards, damaged or not; other tools use its name too."""
    if not path.is_file():
        return False
    try:
        return "format_version" in json.loads(path.read_bytes())
    except (ValueError, TypeError):
        return True  # the error comes when it is opened
