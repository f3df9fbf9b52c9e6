"""What is particular to LeNet's, AlexNet's and the other plain families, and their options."""

import math

import keras
import numpy as np
import pytest
from outlines import NETWORKS, outline

import models
from models import ops, pools, registry, study2017

X = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype("float32")

FORMULAS = {
    "relu6": np.clip(X, 0, 6),
    "relu": np.maximum(X, 0),
    "tanh": np.tanh(X),
    "abs_tanh": np.abs(np.tanh(X)),
    "sigmoid": 1 / (1 + np.exp(-X)),
    "elu": np.where(X > 0, X, np.exp(X) - 1),
    "gelu": X / 2 * (1 + np.vectorize(math.erf)(X / math.sqrt(2))),
    "swish": X / (1 + np.exp(-X)),
    "crelu": np.maximum(np.stack([X, -X], axis=-1), 0).reshape(2, 3, 3, 8),
}


@pytest.mark.parametrize("kind", registry.ACTIVATIONS)
def test_activations(kind):
    x = keras.Input(X.shape[1:])
    model = keras.Model(x, ops.activate(x, kind, name=kind))
    assert model.output.shape[1:] == FORMULAS[kind].shape[1:]
    np.testing.assert_allclose(model(X), FORMULAS[kind], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", registry.POOLINGS)
@pytest.mark.parametrize("size", [55, 26, 8])
def test_poolings_halve(kind, size):
    x = keras.Input((size, size, 1))
    half = (size + kind.endswith("_padded")) // 2
    assert pools.halve(x, kind, name="pool").shape == (None, half, half, 1)


def test_overlapping_averages_are_of_the_pixels_there_are():
    x = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    images = keras.Input((4, 4, 1))
    pooled = keras.Model(images, pools.halve(images, "average_overlapping", name="pool"))(x)
    np.testing.assert_allclose(np.ravel(pooled), [5, 6.5, 11, 12.5])


OPTIONS = {
    "lenet5": {"activation", "pooling", "dropout"},
    "alexnet": {"activation", "norm", "pooling", "dropout"},
    "vgg11": {"activation", "norm", "dropout"},
    "nin_cifar": {"activation", "pooling", "dropout"},
    "cifarnet": {"activation", "norm", "pooling", "dropout"},
    "all_cnn_c": {"activation", "dropout"},
    "dsn": {"activation", "pooling", "dropout"},
    "highway19": {"activation", "pooling", "dropout"},
    "study2017_3x3": {"width", "activation", "norm", "pooling", "dropout"},
    "mobilenet_025": {"width", "dropout"},
    "squeezenet1_1": {"dropout"},
    "zfnet": {"pooling", "dropout"},
    "overfeat_fast": {"pooling", "dropout"},
}
OTHERS = {"activation": "elu", "norm": "lrn", "pooling": "average_overlapping", "dropout": 0.125}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_reach_the_graph(name):
    usual = outline(name, 10)
    for option in OPTIONS[name]:
        norm = "none" if name in ("alexnet", "cifarnet") else "lrn"
        other = {**OTHERS, "norm": norm, "width": 0.5}[option]
        assert fingerprint(outline(name, 10, **{option: other})) != fingerprint(usual), option


def fingerprint(model):
    """Kinds, sizes and constants of the layers, without their names."""
    return [
        (
            type(layer).__name__,
            layer.output.shape,
            getattr(getattr(layer, "activation", None), "__name__", None),
            getattr(layer, "pool_size", None),
            getattr(layer, "rate", None),
        )
        for layer in model.layers
    ]


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "cifarnet", "study2017_3x3"])
def test_norms(name):
    kinds = {
        norm: {type(layer).__name__ for layer in outline(name, 10, norm=norm).layers}
        for norm in registry.NORMS
    }
    added = {norm: kinds[norm] & {"BatchNorm", "LocalResponseNorm"} for norm in kinds}
    assert added == {"none": set(), "lrn": {"LocalResponseNorm"}, "batch": {"BatchNorm"}}


def test_a_lrn_is_vgg11_with_one_normalization():
    names = [layer.name for layer in outline("vgg11", 10, norm="lrn").layers]
    assert names.index("norm1_1") == names.index("relu1_1") + 1
    assert not any(name.startswith("norm2") for name in names)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "nin_cifar", "cifarnet", "study2017_mixed"])
def test_crelu_doubles_the_channels_that_come_next(name):
    plain, doubled = (
        [layer.kernel.shape for layer in outline(name, 10, activation=kind).layers if kernel(layer)]
        for kind in ("relu", "crelu")
    )
    assert doubled[0] == plain[0]
    assert [shape[-2] for shape in doubled[1:]] == [2 * shape[-2] for shape in plain[1:]]


def kernel(layer):
    return getattr(layer, "kernel", None) is not None


def test_class_maps_are_always_rectified():
    for name in ("nin_cifar", "dsn", "all_cnn_c"):
        layer = outline(name, 10, activation="tanh").get_layer("classes_relu")
        assert layer.activation is keras.activations.relu


def test_alexnet_starts_as_in_the_paper():
    model = models.build("alexnet", 10, image_size=67)
    ones = [
        name
        for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
        if (model.get_layer(name).bias.numpy() == 1).all()
    ]
    assert ones == ["conv2", "conv4", "conv5", "fc6", "fc7"]
    for name in ("conv1", "conv3", "fc7"):
        assert np.std(model.get_layer(name).kernel.numpy()) == pytest.approx(0.01, rel=0.02)


def test_towers_meet_only_in_conv3():
    of = {
        name: [outline(name, 10).get_layer(f"conv{number}").groups for number in range(1, 6)]
        for name in ("alexnet", "alexnet_one_gpu")
    }
    assert of == {"alexnet": [1, 2, 1, 2, 2], "alexnet_one_gpu": [1] * 5}


def test_caffenet_pools_before_it_normalizes():
    order = {
        name: [layer.name for layer in outline(name, 10).layers if layer.name in ("norm1", "pool1")]
        for name in ("alexnet", "caffenet", "zfnet")
    }
    assert order == {
        "alexnet": ["norm1", "pool1"],
        "caffenet": ["pool1", "norm1"],
        "zfnet": ["pool1", "norm1"],
    }


def test_highways_carry_what_the_gates_close():
    gate = models.highway.Gate()
    transformed, carried = np.full((1, 2, 2, 3), 5.0), np.full((1, 2, 2, 3), 7.0)
    np.testing.assert_allclose(gate(transformed, np.zeros_like(carried), carried), carried)
    np.testing.assert_allclose(gate(transformed, np.ones_like(carried), carried), transformed)
    np.testing.assert_allclose(gate(transformed, np.full_like(carried, 0.25), carried), 6.5)
    biases = models.build("highway19", 10, image_size=8).get_layer("highway2_3_gate").bias
    np.testing.assert_array_equal(biases, -2)


def test_dsn_without_companions_is_network_in_network():
    shapes = [{v.path: v.shape for v in outline(name, 10).weights} for name in ("dsn", "nin_cifar")]
    assert shapes[0] == shapes[1]


def test_companions_see_maps_before_they_are_rectified():
    model = outline("dsn", 10, aux_heads=True)
    for number in (1, 2, 3):
        assert model.get_layer(f"aux{number}_flatten").input is (
            model.get_layer(f"conv{number}").output
        )


def test_some_weights_start_finer_in_network_in_network():
    model = models.build("nin", 1000, image_size=67)
    stddev = {
        layer: np.std(model.get_layer(layer).kernel.numpy())
        for layer in ("conv1", "mlp1_1", "conv3", "mlp4_1", "classes")
    }
    assert stddev == pytest.approx(
        {"conv1": 0.01, "mlp1_1": 0.05, "conv3": 0.01, "mlp4_1": 0.05, "classes": 0.01}, rel=0.05
    )


def test_mobilenet_takes_any_resolution_and_width():
    model = outline("mobilenet_100", 10, image_size=97, width=0.3)
    assert model.get_layer("stem").output.shape == (None, 49, 49, 9)
    assert model.get_layer("block13_pointwise").output.shape == (None, 4, 4, 307)


STUDIES = {
    "study2017_3x3": (19, [3] * 18),
    "study2017_5x5": (19, [5] * 18),
    "study2017_mixed": (14, [3, *[3, 7, 3, 5] * 3]),
}


@pytest.mark.parametrize("name", STUDIES)
def test_the_arithmetic_of_the_study(name):
    depth, kernels = STUDIES[name]
    model = outline(name, 10)
    found = [layer.kernel_size[0] for layer in model.layers if hasattr(layer, "kernel_size")]
    assert found == kernels and len(kernels) + 1 == depth

    first = len(kernels) - 2 * (len(kernels) // 3)
    filters = [32] * first + [64] * (len(kernels) // 3) + [128] * (len(kernels) // 3)
    sizes = [32 * 32 // filters_here for filters_here in filters]
    inputs = [3, *filters[:-1]]
    products = [k * k * c * f for k, c, f in zip(kernels, inputs, filters, strict=True)]
    trainable = sum(products) + 2 * sum(filters) + 128 * 10 + 10
    madds = sum(s * s * p for s, p in zip(sizes, products, strict=True)) + 128 * 10

    row = NETWORKS[name]
    assert (trainable, 2 * sum(filters)) == (int(row["trainable"]), int(row["non_trainable"]))
    assert madds / 1e6 == pytest.approx(float(row["madds_millions"]), rel=1e-3)
    assert sum(math.prod(v.shape) for v in model.trainable_weights) == trainable
    assert study2017.FILTERS == (32, 64, 128)
