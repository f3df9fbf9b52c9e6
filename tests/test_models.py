"""The networks against tests/networks.csv, what `models.build` promises, and what it refuses."""

import dataclasses
import inspect
import math
import pathlib
import re

import keras
import numpy as np
import pytest
import sklearn.datasets
from outlines import NETWORKS, outline
from reduced import CHEAPEST

import models
from runtime import flags
from training.recipe import Recipe

WITH_HEADS = [name for name, row in NETWORKS.items() if row["trainable_with_aux_heads"]]
VERY_DEEP = ("cifar_preresnet1001", "cifar_resnet1202_sd")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in VERY_DEEP else [])
        for name in models.names()
    ],
)
def network(request):
    return outline(request.param)


def count(variables):
    return sum(math.prod(v.shape) for v in variables)


def multiply_adds(model):
    """Of convolutions and dense layers, for one image."""
    return sum(
        math.prod(layer.output.shape[1:-1]) * math.prod(weight.shape)
        for layer in model.layers
        for weight in layer.weights
        if len(weight.shape) > 1
    )


def test_counts(network):
    row = NETWORKS[network.name]
    assert count(network.trainable_weights) == int(row["trainable"])
    assert count(network.non_trainable_weights) == int(row["non_trainable"])
    assert multiply_adds(network) / 1e6 == pytest.approx(float(row["madds_millions"]), rel=0.005)


def test_contract(network):
    size = models.image_size(network.name)
    assert network.input.dtype == "float32" and network.input.shape == (None, size, size, 3)
    assert {key: (value.shape, value.dtype) for key, value in network.output.items()} == {
        "logits": ((None, int(NETWORKS[network.name]["classes"])), "float32")
    }
    assert not any(
        getattr(layer, "activation", None) is keras.activations.softmax for layer in network.layers
    )
    assert type(network.layers[1]).__name__ == "Normalize" and not network.layers[1].weights


def test_every_layer_is_named_by_hand(network):
    for layer in network.layers:
        automatic = keras.src.utils.naming.to_snake_case(type(layer).__name__)
        assert not layer.name.startswith(automatic + "_"), layer.name
    paths = [v.path for v in network.weights]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("name", WITH_HEADS)
def test_auxiliary_heads(name):
    plain, trained = outline(name), outline(name, aux_heads=True)
    assert count(trained.trainable_weights) == int(NETWORKS[name]["trainable_with_aux_heads"])
    assert {v.path: v.shape for v in plain.weights}.items() <= {
        v.path: v.shape for v in trained.weights
    }.items()
    heads = trained.output.keys() - {"logits"}
    assert heads == {f"aux{number}" for number in range(1, len(heads) + 1)} and heads
    assert all(value.dtype == "float32" for value in trained.output.values())
    assert {value.shape for value in trained.output.values()} == {plain.output["logits"].shape}
    assert 0 < models.aux_weight(name) < 1


def test_auxiliary_heads_are_ignored_where_the_paper_has_none():
    assert list(outline("lenet5", aux_heads=True).output) == ["logits"]


@pytest.mark.parametrize("name", CHEAPEST)
def test_another_number_of_classes(name):
    usual = int(NETWORKS[name]["classes"])
    other = 1010 - usual
    model = outline(name, other)
    assert model.output["logits"].shape == (None, other)
    per_class = count(model.trainable_weights[-2:]) / other
    added = count(model.trainable_weights) - int(NETWORKS[name]["trainable"])
    assert added == (other - usual) * per_class


@pytest.fixture(params=["float32", "mixed_bfloat16"])
def precision(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def test_normalization_happens_before_rounding(precision):
    model = models.build("lenet5", 10, mean=(100, 110, 120), std=(2, 3, 4))
    normalized = keras.Model(model.input, model.get_layer("normalize").output)
    images = np.full((1, 32, 32, 3), 100.3, "float32")
    result = normalized(images)
    assert result.dtype == "float32"
    np.testing.assert_allclose(result[0, 0, 0], [0.15, -9.7 / 3, -19.7 / 4], rtol=1e-4)


def test_normalization_of_each_family():
    alexnet = models.build("alexnet", 2, image_size=67, std=(9, 9, 9)).get_layer("normalize")
    assert alexnet.std == 1.0 and alexnet.mean.tolist() == pytest.approx([123.675, 116.28, 103.53])
    resnet = models.build("cifar_resnet20", 2, depths=(1, 1, 1)).get_layer("normalize")
    assert resnet.std.tolist() == pytest.approx([58.395, 57.12, 57.375])
    grey = models.build("lenet5", 2, channels=1).get_layer("normalize")
    assert grey.mean == pytest.approx(114.495)


def test_weights_follow_the_seed():
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return models.build("cifar_resnet20", 10, depths=(1, 1, 1)).get_weights()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_tables_are_complete():
    folder = pathlib.Path(models.__file__).parent
    families = {
        path.stem
        for path in folder.glob("[!_]*.py")
        if re.search("^VARIANTS", path.read_text(), re.MULTILINE)
    }
    assert families == {family.__name__.split(".")[-1] for family in models.FAMILIES}
    assert len(models.names()) == sum(len(family.VARIANTS) for family in models.FAMILIES)
    assert models.names() == sorted(NETWORKS)
    assert all("Departures:" in family.__doc__ for family in models.FAMILIES)


def test_policies():
    assert models.policy("caffenet") == "alexnet"
    assert models.policy("resnet50") == "inception"
    assert models.policy("cifar_resnet20") == models.policy("lenet5") == "cifar"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": "alexnot"}, "unknown model, expected one of airbench94, .* received 'alexnot'"),
        ({"colour": 1}, "unknown option of alexnet, expected filters or .* received colour"),
        ({"name": "lenet5", "norm": 1}, "unknown option of lenet5, expected .* received norm"),
        ({"norm": "layer"}, "unknown norm, expected one of none, lrn, batch, received 'layer'"),
        ({"activation": "mish"}, "unknown activation, expected one of relu, .* received 'mish'"),
        ({"pooling": "min"}, "unknown pooling, expected one of max_over.* received 'min'"),
        ({"name": "highway19", "activation": "crelu"}, "unknown activation, .* received 'crelu'"),
        ({"name": "mobilenet_100", "width": 0.01}, "width is too small, .* received 0.01"),
        ({"name": "study2017_3x3", "width": 0.01}, "width is too small, .* received 0.01"),
        ({"num_classes": 0}, "num_classes is not positive, expected 1 or more, received 0"),
        ({"image_size": 0}, "image_size is not positive, expected 1 or more, received 0"),
        ({"image_size": 8}, "image_size is too small, expected .* conv1, received 8 x 8"),
        ({"image_size": 15}, "image_size is too small, expected .* pool1, received 2 x 2"),
        ({"name": "lenet5", "image_size": 28}, "too small, expected .* conv5, received 4 x 4"),
        ({"name": "lenet5", "mean": (1, 2)}, "wrong mean, expected 3 numbers, received"),
        ({"name": "lenet5", "std": (1, 2, 0)}, "wrong std, expected 3 numbers above 0, received"),
    ],
)
def test_refuses(arguments, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        models.build(**{"name": "alexnet", "num_classes": 10} | arguments)
    assert "\n" not in str(error.value)


class AcceptedError(Exception):
    """A graph was called, with options that it has."""


@pytest.mark.parametrize("option", ["activation", "norm", "pooling", "dropout", "width"])
def test_the_help_of_train_names_the_networks_that_accept_an_option(option, monkeypatch):
    def accepts(name):
        def graph(*_, **__):
            raise AcceptedError("accepted")

        graph.__signature__ = inspect.signature(models.VARIANTS[name].graph)
        variant = dataclasses.replace(models.VARIANTS[name], graph=graph)
        monkeypatch.setitem(models.VARIANTS, name, variant)
        with pytest.raises((AcceptedError, ValueError), match="accepted|unknown option") as ended:
            models.build(name, 2, **{option: 0.5})
        return ended.type is AcceptedError

    pattern = r"(?:.* )?of (all but )?(.*) \(default: the paper's\)\."
    all_but, listed = re.fullmatch(pattern, flags.meanings(Recipe)[option].help).groups()
    families = {family.__name__.rpartition(".")[2]: family for family in models.FAMILIES}
    named = {name for word in listed.split(", ") for name in families[word].VARIANTS}
    expected = set(filter(accepts, models.names()))
    assert expected == (set(models.names()) - named if all_but else named)


def test_of_a_family_that_has_an_option_in_part_networks_are_named(monkeypatch):
    assert models.owners("aux_heads") == "inception_v1, inception_v3, dsn"
    rows = models.inception_v1.VARIANTS | {"plain": models.VARIANTS["resnet18"]}
    monkeypatch.setattr(models.inception_v1, "VARIANTS", rows)
    monkeypatch.setitem(models.VARIANTS, "plain", rows["plain"])
    assert models.owners("aux_heads") == "googlenet, googlenet_bn, inception_v3, dsn"


@pytest.mark.slow
def test_lenet5_learns_digits():
    digits = sklearn.datasets.load_digits()
    images = np.kron(digits.images * (255 / 16), np.ones((1, 4, 4)))
    images = np.repeat(images[..., None], 3, axis=-1).astype("float32")
    order = np.random.default_rng(0).permutation(len(images))
    train, validation = order[360:], order[:360]
    keras.utils.set_random_seed(0)
    model = models.build("lenet5", 10)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
    )
    model.fit(images[train], digits.target[train], batch_size=64, epochs=8, verbose=0)
    predicted = model.predict(images[validation], verbose=0)["logits"].argmax(-1)
    # Twenty epochs reach 96.5 %; with small shifts and rotations it passes 97.5 %.
    assert np.mean(predicted == digits.target[validation]) >= 0.92


@pytest.mark.parametrize(
    "preprocessing, expected",
    [
        ("mean", lambda x: x - [1, 2, 3]),
        ("standardised", lambda x: (x - [1, 2, 3]) / [4, 5, 6]),
        ("mean_image", lambda x: x - np.arange(3 * 28 * 28).reshape(28, 28, 3) / 10),
        ("paper", lambda x: (x - 127.5) / 127.5),
    ],
)
def test_preprocessing_in_place_of_the_papers(preprocessing, expected):
    """MobileNet's paper has images in -1..1."""
    options = {"image_size": 28, "mean": (1, 2, 3), "std": (4, 5, 6)}
    model = models.build("mobilenet_025", 5, **options, preprocessing=preprocessing)
    layer = model.get_layer("normalize")
    if preprocessing == "mean_image":
        layer.set_weights([np.arange(3 * 28 * 28).reshape(28, 28, 3) / 10])
    assert not layer.trainable_weights
    images = np.random.default_rng(0).uniform(0, 255, (2, 28, 28, 3)).astype("float32")
    np.testing.assert_allclose(layer(images), expected(images), rtol=1e-5, atol=1e-4)
    with pytest.raises(ValueError, match="unknown preprocessing, expected one of paper"):
        models.build("mobilenet_025", 5, preprocessing="zca")
