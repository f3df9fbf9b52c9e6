"""Identifies a conversion, without TensorFlow: a network trained elsewhere can name its images."""

import hashlib

from data.images.decode import Storage
from data.images.examples import Source
from data.shards.copies import FORMAT_VERSION


def fingerprint(source: Source, storage: Storage) -> str:
    """Digests a source and all options that the stored images depend on."""
    storage_options = (
        storage.short_side,
        storage.quality,
        storage.encoding,
    )  # bits depend on the images
    options = (FORMAT_VERSION, storage_options, source.seed, source.validation_fraction)
    return hashlib.sha256(f"{source.fingerprint} {options}".encode()).hexdigest()
