"""FractalNet: the fractal's joins, maps, and drop-path."""

import keras
import numpy as np
import pytest

import models
from models import fractalnet

MAPS = {
    f"block{number}_join4": (32 >> number, 32 >> number, channels)
    for number, channels in enumerate((64, 128, 256, 512, 512), start=1)
}
ONES = [np.full((2, 4, 4, 3), value, "float32") for value in (1, 10, 100)]
LOCAL = np.zeros(3, "float32")


@pytest.fixture(scope="module")
def network():
    keras.backend.clear_session()
    return models.build("fractalnet21", 10)


def sources(model, name):
    """Names of the layers that feed join `name`; the last input is the column that is kept."""
    *maps, column = model.get_layer(name).input
    assert column._keras_history.operation.name == "column"
    return [each._keras_history.operation.name for each in maps]


def test_feature_maps(network):
    assert {name: network.get_layer(name).output.shape[1:] for name in MAPS} == MAPS


def test_columns_double_in_depth_and_join_flat(network):
    names = {layer.name for layer in network.layers if layer.name.startswith("block2")}
    convolved = {
        c: sum(f"column{c}_" in n and n.endswith("conv") for n in names) for c in (1, 2, 3)
    }
    assert convolved == {1: 1, 2: 2, 3: 4}
    assert {n for n in names if "join" in n} == {"block2_join2", "block2_join4"}
    assert sources(network, "block2_join4") == [f"block2_column{c}_pool" for c in (1, 2, 3)]
    assert sources(network, "block2_join2") == [f"block2_column{c}_row2_relu" for c in (2, 3)]


def test_dropout_rises_from_block_to_block(network):
    rates = {
        layer.name[:6]: layer.rate
        for layer in network.layers
        if isinstance(layer, keras.layers.Dropout)
    }
    assert rates == pytest.approx({"block2": 0.1, "block3": 0.2, "block4": 0.3, "block5": 0.4})


def test_without_drop_path_joins_are_plain_means():
    model = models.build("fractalnet21", 10, filters=(4,), dropout=0.0, drop_path=0.0)
    assert isinstance(model.get_layer("block1_join4"), keras.layers.Average)
    assert not any(hasattr(layer, "seed_generator") for layer in model.layers)


def draws(layer, *arguments, steps=300):
    """What the layer returns when training, for clocks that tick from 0."""
    for step in range(steps):
        layer.seed_generator.next = lambda ordered=True, step=step: np.uint32([7, step])
        yield np.asarray(layer(*arguments, training=True))


def test_local_drop_path_keeps_at_least_one_input():
    subsets = {1, 10, 100, 11 / 2, 101 / 2, 110 / 2, 111 / 3}
    often = fractalnet.DropPathJoin(0.5, name="often")
    drawn = [float(each[0, 0, 0, 0]) for each in draws(often, ONES, LOCAL)]
    assert {round(each, 3) for each in drawn} == {round(each, 3) for each in subsets}
    always = fractalnet.DropPathJoin(1.0, name="always")
    kept = [float(each[0, 0, 0, 0]) for each in draws(always, ONES, LOCAL)]
    assert set(kept) == {1, 10, 100} and min(map(kept.count, set(kept))) > 60
    rarely = fractalnet.DropPathJoin(0.15, name="rarely")
    whole = [abs(each[0, 0, 0, 0] - 37) < 1e-3 for each in draws(rarely, ONES, LOCAL)]
    assert np.mean(whole) == pytest.approx(0.85**3, abs=0.09)


def test_global_drop_path_keeps_one_column_everywhere():
    layer = fractalnet.DropPathJoin(0.15, name="join")
    column = np.float32([0, 1, 0])
    assert all((each == 10).all() for each in draws(layer, ONES, column, steps=5))
    assert all((each == 1).all() for each in draws(layer, ONES[:2], column, steps=5))
    elsewhere = [each.mean() for each in draws(layer, ONES[1:], np.float32([1, 0, 0]), steps=40)]
    assert set(elsewhere) <= {10, 55, 100} and 55 in elsewhere


def test_half_of_the_batches_are_global():
    layer = fractalnet.PathChoice(3, name="column")
    drawn = [tuple(each) for each in draws(layer, ONES[0], steps=600)]
    share = {each: drawn.count(each) / 600 for each in set(drawn)}
    assert share[(0, 0, 0)] == pytest.approx(1 / 2, abs=0.07)
    for kept in range(3):
        assert share[tuple(np.eye(3)[kept])] == pytest.approx(1 / 6, abs=0.06)


def test_testing_drops_nothing():
    layer = fractalnet.DropPathJoin(1.0, name="join")
    assert np.allclose(layer(ONES, np.float32([1, 0, 0]), training=False), 37)
    assert not np.any(fractalnet.PathChoice(3, name="column")(ONES[0], training=False))
