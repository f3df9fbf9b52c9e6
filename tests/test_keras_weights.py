"""Weights of Keras Applications in our networks: equal logits, and the files that are refused."""

import h5py
import keras
import numpy as np
import pytest

import models
from models.tools import hdf5, keras_weights

PREPROCESSING = {
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "ResNet": "resnet",
    "DenseNet": "densenet",
    "MobileNet": "mobilenet",
    "InceptionV3": "inception_v3",
    "InceptionResNetV2": "inception_resnet_v2",
    "Xception": "xception",
    "NASNetMobile": "nasnet",
}
SIZES = dict.fromkeys(("inception_v3", "xception", "inception_resnet_v2"), 107)
SIZES |= dict.fromkeys(("vgg16", "vgg19"), 64)  # their first dense layer grows with the images
SLOW = ("inception_resnet_v2", "resnet101_v1", "resnet152_v1", "densenet169", "densenet201")


@pytest.fixture(autouse=True)
def session():
    keras.backend.clear_session()
    yield
    keras.backend.clear_session()


def theirs(name, size, classes=10):
    """The network of Keras Applications, untrained, without softmax."""
    origin = keras_weights.ORIGINS[name]
    return getattr(keras.applications, origin.constructor)(
        weights=None,
        classes=classes,
        classifier_activation=None,
        input_shape=(size, size, 3),
        **origin.arguments,
    )


def ours(name, size, classes=10):
    options = keras_weights.options(name)
    return models.build(name, classes, image_size=size, aux_heads=True, **options)


def preprocessed(name, images):
    """What Keras' own documentation feeds the network with."""
    constructor = keras_weights.ORIGINS[name].constructor
    module = next(
        module for prefix, module in PREPROCESSING.items() if constructor.startswith(prefix)
    )
    return getattr(keras.applications, module).preprocess_input(images.copy())


def random_values(layer, random, variance):
    """Weights that keep the signal alive through a hundred layers; no statistic is 0 or 1."""
    for weight in layer.weights:
        shape = tuple(weight.shape)
        if weight.name == "gamma":
            yield random.uniform(0.5, 1.5, shape).astype("float32")
        elif weight.name == "moving_variance":
            yield random.uniform(0.5, 1.5, shape).astype("float32") * variance
        elif len(shape) == 1:
            yield random.normal(0, 0.2, shape).astype("float32")
        else:
            depthwise = "depthwise" in weight.path or "conv_dw" in weight.path
            fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
            yield random.standard_normal(shape, "float32") * np.float32(np.sqrt(2 / fan_in))


# More of the blocks of another network: their weights fit, and are not computed with.
DEEPER = {"densenet169", "densenet201", "resnet101_v1", "resnet152_v1", "vgg19"}


def randomized(model):
    """A variance of 8 keeps the sums of residual networks from growing past all biases."""
    random = np.random.default_rng(1)
    variance = 8 if model.name.startswith("resnet") else 1
    return {layer.name: list(random_values(layer, random, variance)) for layer in model.layers}


def blank(model):
    return {
        layer.name: [np.zeros(weight.shape, "float32") for weight in layer.weights]
        for layer in model.layers
    }


def logits(model, weights, images):
    """The output of a model that was built without memory for its variables."""

    def values(variable):
        value = weights.get(id(variable))
        return np.zeros(variable.shape, variable.dtype) if value is None else value

    states = (
        [values(v) for v in model.trainable_variables],
        [values(v) for v in model.non_trainable_variables],
    )
    outputs, _ = model.stateless_call(*states, images, training=False)
    return np.asarray(outputs["logits"] if isinstance(outputs, dict) else outputs)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in keras_weights.names()
    ],
)
def test_logits_are_those_of_keras(name, monkeypatch):
    size = SIZES.get(name, 96)
    images = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    with keras.StatelessScope(initialize_variables=False) as scope:
        reference, model = theirs(name, size), ours(name, size)
        arrays = blank(reference) if name in DEEPER else randomized(reference)
        constructor = keras_weights.ORIGINS[name].constructor
        monkeypatch.setattr(keras.applications, constructor, lambda **_: reference)
        monkeypatch.setattr(hdf5, "read", lambda *_: arrays)
        left = keras_weights.load(name, model, "weights.h5")
        copied = {id(v): scope.get_current_value(v) for v in model.weights}
    assert all(layer.startswith("aux") for layer in left)
    assert bool(left) == (name == "inception_v3")
    if name in DEEPER:
        return
    given = {
        id(v): array
        for layer in reference.layers
        for v, array in zip(layer.weights, arrays[layer.name], strict=True)
    }
    expected = logits(reference, given, preprocessed(name, images))
    found = logits(model, copied, images)
    assert np.ptp(expected[0] - expected[1]) > 1e-3 * np.abs(expected).max()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


NAME = "mobilenet_025"


@pytest.fixture(scope="module")
def reference():
    """A small network of Keras with random weights and 1000 classes, as the published ones have."""
    model = theirs(NAME, 32, 1000)
    for name, values in randomized(model).items():
        model.get_layer(name).set_weights(values)
    return model


def keras3(model, path):
    model.save_weights(path.with_suffix(".weights.h5"))
    return path.with_suffix(".weights.h5")


def keras2_model(model, path):
    model.save(path.with_suffix(".h5"))
    return path.with_suffix(".h5")


def keras2_weights(model, path):
    """As published: what a saved model holds in `model_weights`, alone."""
    whole, path = keras2_model(model, path), path.with_name("alone.h5")
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        for name, item in source["model_weights"].items():
            source.copy(item, target, name)
        names = source["model_weights"].attrs["layer_names"]
        target.attrs["layer_names0"], target.attrs["layer_names1"] = names[:7], names[7:]
    return path


FORMATS = (keras3, keras2_model, keras2_weights)


def same_logits(reference, model):
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    expected = np.asarray(reference(preprocessed(NAME, images)))
    found = np.asarray(model(images)["logits"])
    return np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("write", FORMATS)
def test_files_of_keras(reference, write, tmp_path):
    model = ours(NAME, 32, 1000)
    assert not same_logits(reference, model)
    assert keras_weights.load(NAME, model, write(reference, tmp_path / "file")) == []
    assert same_logits(reference, model)


@pytest.mark.parametrize("write", FORMATS)
def test_a_classifier_of_other_classes_stays(reference, write, tmp_path):
    model = ours(NAME, 32, 7)
    head = model.layers[-1]
    before = head.get_weights()
    assert keras_weights.load(NAME, model, write(reference, tmp_path / "file")) == [head.name]
    assert all(map(np.array_equal, before, head.get_weights()))
    first = next(layer for layer in model.layers if layer.weights)
    np.testing.assert_array_equal(first.kernel, reference.get_layer("conv1").kernel)


@pytest.mark.parametrize("write", FORMATS)
def test_the_number_of_classes_is_the_files(write, tmp_path):
    own = theirs(NAME, 64, 5)
    file = write(own, tmp_path / "own")
    assert keras_weights.num_classes(NAME, file) == 5
    model = models.pretrained(NAME, "keras", file=file)
    expected = own.get_layer("conv_preds").kernel.numpy()[0, 0]
    np.testing.assert_array_equal(model.get_layer("fc").kernel.numpy(), expected)


@pytest.mark.parametrize("classes", [1000, 7])
def test_download(reference, classes, tmp_path, monkeypatch):
    path = str(keras3(reference, tmp_path / "file"))
    monkeypatch.setattr(keras.src.utils.file_utils, "get_file", lambda *_, **__: path)
    model = ours(NAME, 32, classes)
    left = keras_weights.load(NAME, model, "keras")
    assert (left == [] and same_logits(reference, model)) or (left and classes == 7)


def test_a_failed_download_is_one_line(monkeypatch):
    def get_file(*_, **__):
        raise Exception("URL fetch failure on\nhttps://storage: None")

    monkeypatch.setattr(keras.src.utils.file_utils, "get_file", get_file)
    with pytest.raises(RuntimeError, match="no weights of MobileNet from Keras: URL fetch .* None"):
        keras_weights.load(NAME, ours(NAME, 32), "keras")


def rewritten(path, change):
    """The file after a change to the first convolution's kernel: change(group, key)."""
    with h5py.File(path, "r+") as file:
        change(file["layers/conv2d/vars"], "0")
    return path


def external_link(group, key):
    del group[key]
    group[key] = h5py.ExternalLink("/etc/passwd", "/0")


def soft_link(group, key):
    del group[key]
    group[key] = h5py.SoftLink("/layers/conv2d_1/vars/0")


def external_storage(group, key):
    shape = group[key].shape
    del group[key]
    group.create_dataset(key, shape, "float32", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(group, key):
    layout = h5py.VirtualLayout(group[key].shape, "float32")
    layout[...] = h5py.VirtualSource("other.h5", "/0", group[key].shape)
    del group[key]
    group.create_virtual_dataset(key, layout)


def integers(group, key):
    values = group[key][()].astype("int32")
    del group[key]
    group[key] = values


def absent(group, key):
    del group[key]


def transposed(group, key):
    values = group[key][()].T
    del group[key]
    group[key] = values


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (external_link, "vars/0 is a link"),
        (soft_link, "vars/0 is a link"),
        (external_storage, "vars/0 keeps its numbers in another file"),
        (virtual, "vars/0 keeps its numbers in another file"),
        (integers, "vars/0 is no array of floats"),
        (absent, "vars/0 is missing"),
        (transposed, r"vars/0 has shape \(8, 3, 3, 3\) instead of \(3, 3, 3, 8\)"),
    ],
)
def test_refuses_a_file(reference, change, complaint, tmp_path):
    path = rewritten(keras3(reference, tmp_path / "file"), change)
    model = ours(NAME, 32, 1000)
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"wrong weights file, .*{complaint}") as error:
        keras_weights.load(NAME, model, path)
    assert "\n" not in str(error.value)
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize("write", FORMATS)
def test_refuses_another_network(reference, write, tmp_path):
    path = write(reference, tmp_path / "file")
    with pytest.raises(ValueError, match="wrong weights file, expected one .* instead of"):
        keras_weights.load("mobilenet_050", ours("mobilenet_050", 32), path)


def test_refuses_what_is_no_file(tmp_path):
    model = ours(NAME, 32)
    with pytest.raises(FileNotFoundError, match="no weights file, expected .* received .*absent"):
        keras_weights.load(NAME, model, tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match="wrong weights file, expected one that Keras wrote"):
        keras_weights.load(NAME, model, tmp_path / "text.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(ValueError, match="0 layers with weights instead of"):
        keras_weights.load(NAME, model, tmp_path / "empty.h5")


def test_refuses_a_network_that_keras_has_not():
    with pytest.raises(ValueError, match="no Keras weights for it, expected .* received lenet5"):
        keras_weights.options("lenet5")


def test_refuses_other_images():
    model = models.build("densenet121", 10, image_size=32, depths=(1, 1, 1, 1), mean=(1, 2, 3))
    with pytest.raises(ValueError, match="need other images, expected mean .* received mean"):
        keras_weights.load("densenet121", model, "keras")
