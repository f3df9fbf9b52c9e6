"""Finds equal and nearly equal images by sorting, in about n log n steps instead of n^2.

A difference hash proposes pairs, and small versions of the images decide. Sources: the hash is from
N. Krawetz, "Kind of Like That", hackerfactor.com, 2013; sorting by permuted bits is from
M. Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable

import cv2
import numpy as np

HASH_BITS = 64
MAX_DISTANCE = 10  # different bits in the hashes of near duplicates
MAX_DIFFERENCE = 0.25  # between their thumbnails, as a part of the contrast
THUMBNAIL = (16, 16, 3)

_MIN_CONTRAST = 4  # levels of a thumbnail; plainer images all look alike
_PERMUTATIONS = 16
_NEIGHBOURS = 8
_CHUNK = 4096  # pairs to compare at once


def difference_hash(image: np.ndarray) -> int:
    """Returns 64 bits: whether the left of two neighbours on an 8 x 9 grid is brighter.

    Args:
        image: uint8 [H, W, 3], RGB.
    """
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes())


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduces an image, uint8 [H, W, 3], to uint8 `THUMBNAIL`, for any aspect ratio."""
    return cv2.resize(image, THUMBNAIL[:2], interpolation=cv2.INTER_AREA)


def same(keys: Iterable[Hashable | None]) -> list[list[int]]:
    """Returns the positions of equal keys, a list for each key that occurs more than once."""
    positions = defaultdict(list)
    for position, key in enumerate(keys):
        if key is not None:
            positions[key].append(position)
    return [group for group in positions.values() if len(group) > 1]


def near(hashes: np.ndarray, thumbnails: np.ndarray) -> list[list[int]]:
    """Finds images that were made from one another, or show the same scene.

    Finds recompressed, resized, brightened and slightly cropped copies, but not mirrored ones.
    Plain images (contrast below 4 levels) are ignored.

    Args:
        hashes: `difference_hash` of each image, uint64 [n].
        thumbnails: `thumbnail` of each image, uint8 [n, 16, 16, 3].

    Returns:
        Positions, a list for each group; every image is near to another of its group, not to all.
    """
    pairs = _candidates(hashes)
    chunks = (pairs[i : i + _CHUNK] for i in range(0, len(pairs), _CHUNK))
    sure = [chunk[_are_alike(*thumbnails[chunk.T])] for chunk in chunks]
    return _connected(np.concatenate([np.empty([0, 2], np.int64), *sure]).tolist())


def _candidates(hashes: np.ndarray) -> np.ndarray:
    """Proposes pairs of hashes at most `MAX_DISTANCE` bits apart, int64 [p, 2].

    Near hashes are probably neighbours in one of several orders, each by other bits first.
    """
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    random = np.random.default_rng(0)
    pairs = np.empty(0, np.int64)
    for _ in range(_PERMUTATIONS):
        permuted = np.packbits(bits[:, random.permutation(HASH_BITS)], axis=1)
        order = np.argsort(np.ascontiguousarray(permuted).view(">u8")[:, 0], kind="stable")
        parts = [pairs]
        for step in range(1, _NEIGHBOURS + 1):
            first, second = order[:-step], order[step:]
            close = np.bitwise_count(hashes[first] ^ hashes[second]) <= MAX_DISTANCE
            ends = np.sort(np.stack([first[close], second[close]]), axis=0)
            parts.append(ends[0] * len(hashes) + ends[1])
        pairs = np.unique(np.concatenate(parts))
    return np.stack(np.divmod(pairs, max(1, len(hashes))), axis=1)


def _are_alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether thumbnails, uint8 [p, 16, 16, 3] each, are alike apart from their mean colours."""
    first, second = (
        images - images.mean(axis=(1, 2), keepdims=True)
        for images in (first.astype(np.float32), second.astype(np.float32))
    )
    contrasts = [np.sqrt((images**2).mean(axis=(1, 2, 3))) for images in (first, second)]
    difference = np.sqrt(((first - second) ** 2).mean(axis=(1, 2, 3)))
    plain = np.minimum(*contrasts) < _MIN_CONTRAST
    return ~plain & (difference <= MAX_DIFFERENCE * np.sqrt(np.multiply(*contrasts)))


def _connected(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Returns the connected components of the graph with edges `pairs`, each sorted."""
    parents: dict[int, int] = {}

    def root(node: int) -> int:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = node = parents[parents[node]]
        return node

    for first, second in pairs:
        parents[root(second)] = root(first)
    groups = defaultdict(list)
    for node in sorted(parents):
        groups[root(node)].append(node)
    return list(groups.values())
