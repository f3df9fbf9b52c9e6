"""How good the shuffle is: measured on plans of several blocks, over several epochs."""

import numpy as np
import pytest

from data.pipeline import order, train
from data.shards.datasets import Shard

SHARDS, EXAMPLES = 64, 250
COUNT = SHARDS * EXAMPLES
PER_BLOCK = 8  # shards


@pytest.fixture(scope="module", params=["one block", "blocks of 8 shards"])
def epochs(request):
    """Stored places of the records in the order of four epochs: int [4, COUNT]."""
    size = order.BLOCK_BYTES // (SHARDS if request.param == "one block" else PER_BLOCK)
    shards = [Shard(f"shard {index}", EXAMPLES, size, "") for index in range(SHARDS)]
    blocks = order.training_blocks(shards, batch_size=100, seed=0, step=0, steps=640)
    assert len(blocks) == 4 * (1 if request.param == "one block" else SHARDS // PER_BLOCK)
    places = []
    for block in blocks:
        stored = np.add.outer(EXAMPLES * np.array(block.shards), np.arange(EXAMPLES)).ravel()
        places.append(stored[train.shuffle_and_draw(block._asdict())[0].numpy()])
    return np.concatenate(places).reshape([4, COUNT])


def correlation(first, second):
    """Spearman's, of the positions that the records have in two orders."""
    return np.corrcoef(np.argsort(first), np.argsort(second))[0, 1]


def test_an_epoch_is_a_permutation(epochs):
    for places in epochs:
        np.testing.assert_array_equal(np.sort(places), np.arange(COUNT))


def test_positions_of_different_epochs_are_not_correlated(epochs):
    stored = np.arange(COUNT)
    found = [correlation(a, b) for i, a in enumerate(epochs) for b in (stored, *epochs[:i])]
    # Shards move as a whole from block to block: 64 independent moves, not 16,000.
    assert np.abs(found).max() < 3 / np.sqrt(SHARDS)
    assert abs(np.mean(found)) < 1 / np.sqrt(SHARDS)


def test_neighbours_do_not_stay_together(epochs):
    """Of records next to each other in one epoch, those within 100 places in the next."""
    for before, after in zip(epochs, epochs[1:], strict=False):
        position = np.argsort(after)
        together = np.abs(np.diff(position[before])) <= 100
        chance = 200 / COUNT
        # In blocks of 8 of 64 shards, 1/8 of the neighbours are of one shard and meet again in a
        # block of 2,000, where 1/10 of them come that near: 1.6 times as many as by chance.
        exact = len(set(before[:2000] // EXAMPLES)) > PER_BLOCK
        assert together.mean() < (1.15 if exact else 2) * chance


def test_neighbours_within_a_block_are_of_any_of_its_shards(epochs):
    same_shard = np.diff(epochs // EXAMPLES, axis=1) == 0
    assert same_shard.mean() < 1.3 / PER_BLOCK


def test_every_part_of_an_epoch_has_its_share_of_every_stored_part_over_the_epochs(epochs):
    """The first tenth of an epoch is not always the same records."""
    tenth = [set(places[: COUNT // 10].tolist()) for places in epochs]
    shared = [len(a & b) / len(a) for i, a in enumerate(tenth) for b in tenth[:i]]
    assert np.mean(shared) < 0.25


def test_resuming_at_the_end_of_an_epoch_of_imagenet_plans_one_block():
    shards = [Shard(f"{i}", 1251 + (i < 143), 1252 * 22_000, "") for i in range(1024)]
    assert sum(shard.examples for shard in shards) == 1_281_167
    last = 1_281_167 // 128 - 1
    blocks = order.training_blocks(shards, batch_size=128, seed=0, step=last, steps=last + 1)
    assert len(blocks) <= 2 and sum(block.take for block in blocks) == 128
    assert sum(len(block.shards) for block in blocks) <= 2 * (order.BLOCK_BYTES // 27_544_000)
