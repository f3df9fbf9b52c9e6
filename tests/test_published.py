"""Weights of PyTorch libraries: their arrays become our layers, with their arithmetic."""

import gzip
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys

import keras
import numpy as np
import pytest
import safetensors.numpy
import torch_writer
from conftest import ROOT, memory
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageOps

import models
from data.images.resized import Resized
from data.sources import imagenet, sources
from inference import classifier, loading
from models.sources import rows
from models.tools import downloads, published, state_dicts
from models.tools.state_dicts import Mismatch
from training import parts
from training.recipe import Recipe

LISTED = pathlib.Path(__file__).with_name("state_dicts.txt.gz")
TABLE = (
    ("stage#_conv", "maps.#-1.conv"),
    ("stage#_norm", "maps.#-1.bn"),
    ("depthwise", "dw"),
    ("fc#", "dense.@"),
)


@pytest.fixture
def draw():
    generator = np.random.default_rng(0)
    return lambda *shape: generator.normal(size=shape).astype(np.float32)


@pytest.fixture
def state(draw):
    """As torch has it: outputs first, a bias before the normalisation, channels before pixels."""
    return {
        "maps.0.conv.weight": draw(4, 3, 3, 3),
        "maps.0.conv.bias": draw(4),
        "maps.0.bn.weight": draw(4),
        "maps.0.bn.bias": draw(4),
        "maps.0.bn.running_mean": draw(4),
        "maps.0.bn.running_var": draw(4) ** 2 + 0.1,
        "maps.0.bn.num_batches_tracked": np.array(5),
        "dw.weight": draw(4, 1, 2, 2),
        "dw.bias": draw(4),
        "dense.1.weight": draw(6, 4 * 5 * 5),
        "dense.1.bias": draw(6),
        "dense.10.weight": draw(7, 6, 1, 1),
        "dense.10.bias": draw(7),
        "aux.fc.weight": draw(7, 4),
    }


def network(classes=7, epsilon=1e-2):
    images = x = keras.Input((8, 8, 3), name="images")
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="stage1_conv")(x)
    x = keras.layers.BatchNormalization(epsilon=epsilon, name="stage1_norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.DepthwiseConv2D(2, name="depthwise")(x)
    x = keras.layers.Dense(6, name="fc6")(keras.layers.Flatten(name="flatten")(x))
    return keras.Model(images, {"logits": keras.layers.Dense(classes, name="fc7")(x)})


def logits(state, images, epsilon):
    """What torch computes of images [B, C, H, W]."""

    def windows(x, size):
        return sliding_window_view(x, (size, size), axis=(2, 3))

    get = {name.removeprefix("maps.0."): array for name, array in state.items()}
    x = np.einsum("bchwij,ocij->bohw", windows(images, 3), get["conv.weight"])
    x += get["conv.bias"][:, None, None]
    names = ("running_mean", "running_var", "weight", "bias")
    mean, variance, gamma, beta = (get[f"bn.{name}"][:, None, None] for name in names)
    x = np.maximum((x - mean) / np.sqrt(variance + epsilon) * gamma + beta, 0)
    x = np.einsum("bchwij,cij->bchw", windows(x, 2), get["dw.weight"][:, 0])
    x = (x + get["dw.bias"][:, None, None]).reshape(len(x), -1)
    x = x @ get["dense.1.weight"].T + get["dense.1.bias"]
    return x @ get["dense.10.weight"][:, :, 0, 0].T + get["dense.10.bias"]


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_the_logits_are_those_of_their_arithmetic(state, draw, epsilon):
    model, images = network(), draw(5, 3, 8, 8)
    assert state_dicts.load(model, state, TABLE, epsilon=epsilon) == []
    received = model(images.transpose(0, 2, 3, 1))["logits"]
    np.testing.assert_allclose(received, logits(state, images, epsilon), rtol=1e-4, atol=1e-4)


def test_a_classifier_of_other_classes_stays(state):
    model = network(classes=3)
    before = model.get_layer("fc7").get_weights()
    assert state_dicts.load(model, state, TABLE) == ["fc7"]
    assert all(map(np.array_equal, before, model.get_layer("fc7").get_weights()))
    kernel = model.get_layer("stage1_conv").kernel.numpy()
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), state["maps.0.conv.weight"])


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda state: state.pop("dw.bias"), "dw.bias is missing"),
        (lambda state: state.pop("maps.0.bn.running_var"), "running_var is missing"),
        (lambda state: state.update({"dw.weight": np.zeros((4, 1, 3, 3))}), "dw has the shapes"),
        (
            lambda state: state.update({"maps.1.conv.bias": np.zeros(4)}),
            "maps.1.conv.bias is of no",
        ),
        (lambda state: state.update({"dense.12.weight": np.zeros((2, 2))}), "3 modules dense.@"),
        (
            lambda state: state.update({"dense.1.weight": np.zeros((6, 99))}),
            "dense.1 has the shapes",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_changes(state, change, complaint):
    model = network()
    before = model.get_weights()
    change(state)
    with pytest.raises(Mismatch, match=complaint):
        state_dicts.load(model, state, TABLE)
    assert all(map(np.array_equal, before, model.get_weights()))


# Names of the libraries' modules, transcribed from their definitions.


def vgg_names(widths, *, norm):
    """torchvision's `make_layers`: convolution, [normalisation,] ReLU for each, and pools."""
    index, names = 0, []
    for stage in widths:
        for _ in range(stage):
            names += [(f"features.{index}", "conv")]
            names += [(f"features.{index + 1}", "norm")] if norm else []
            index += 3 if norm else 2
        index += 1
    return [*names, *((f"classifier.{number}", "dense") for number in (0, 3, 6))]


def resnet_names(depths, convolutions):
    names = [("conv1", "kernel"), ("bn1", "norm")]
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            place = f"layer{stage}.{block}"
            for number in range(1, convolutions + 1):
                names += [(f"{place}.conv{number}", "kernel"), (f"{place}.bn{number}", "norm")]
            if block == 0 and (stage > 1 or convolutions == 3):
                names += [(f"{place}.downsample.0", "kernel"), (f"{place}.downsample.1", "norm")]
    return [*names, ("fc", "dense")]


def squeezenet_names(fires):
    parts = ("squeeze", "expand1x1", "expand3x3")
    inside = [(f"features.{fire}.{part}", "conv") for fire in fires for part in parts]
    return [("features.0", "conv"), *inside, ("classifier.1", "conv")]


def densenet_names(depths):
    names = [("features.conv0", "kernel"), ("features.norm0", "norm")]
    for block, depth in enumerate(depths, start=1):
        for layer in range(1, depth + 1):
            place = f"features.denseblock{block}.denselayer{layer}"
            for number in (1, 2):
                names += [(f"{place}.norm{number}", "norm"), (f"{place}.conv{number}", "kernel")]
        if block < len(depths):
            place = f"features.transition{block}"
            names += [(f"{place}.norm", "norm"), (f"{place}.conv", "kernel")]
    return [*names, ("features.norm5", "norm"), ("classifier", "dense")]


# Their modules, and the number of entries of their state dicts as the libraries' files have it.
MODULES = {
    "vgg16": (vgg_names((2, 2, 3, 3, 3), norm=False), 32),
    "vgg16_bn": (vgg_names((2, 2, 3, 3, 3), norm=True), 97),
    "resnet18": (resnet_names((2, 2, 2, 2), 2), 122),
    "resnet50": (resnet_names((3, 4, 6, 3), 3), 320),
    "densenet121": (densenet_names((6, 12, 24, 16)), 727),
    "squeezenet1_0": (squeezenet_names((3, 4, 5, 7, 8, 9, 10, 12)), 52),
    "squeezenet1_1": (squeezenet_names((3, 4, 6, 7, 9, 10, 11, 12)), 52),
}
ARRAYS = {
    "norm": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "kernel": ("weight",),
    "conv": ("weight", "bias"),
    "dense": ("weight", "bias"),
}


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_torchvision_is_a_layer_of_ours(name):
    modules, entries = MODULES[name]
    state = {
        f"{module}.{array}": np.zeros(1 if kind == "norm" else (1, 1), np.float32)
        for module, kind in modules
        for array in ARRAYS[kind]
    }
    assert len(state) == entries
    with keras.StatelessScope(initialize_variables=False):
        layers = {layer.name: layer for layer in models.build(name, 10).layers if layer.weights}
    pairs = state_dicts.pair(layers, state, published._rule(name, "torchvision").table)
    assert set(pairs) == set(layers)
    found = [module for names in pairs.values() for module in names]
    assert sorted(found) == sorted(module for module, _ in modules)
    norms = {module for module, kind in modules if kind == "norm"}
    for layer, (module,) in pairs.items():
        assert isinstance(layers[layer], keras.layers.BatchNormalization) == (module in norms)
    keras.utils.clear_session()


@pytest.mark.parametrize("source", published.RULES)
def test_every_network_of_a_source_is_ours_and_takes_its_options(source):
    ruled = {name for networks in published.RULES[source] for name in networks.split()}
    assert set(published.names(source)) == ruled <= set(models.names())
    for name in ruled:
        weights = published.find(name, source)
        options = {k: v for k, v in weights.options.items() if k not in ("mean", "std")}
        assert json.loads(json.dumps(options)) is not None  # checkpoints keep them
        if len(options) > 1:
            with keras.StatelessScope(initialize_variables=False):
                models.build(name, 2, **json.loads(json.dumps(options)))
            keras.utils.clear_session()


def test_the_table_is_complete():
    for row in rows.ROWS:
        assert row.network in models.names() and row.source in published.SOURCES
        assert 30 < row.top1 < 100 and row.said_in and row.megabytes > 1
        size, side = row.preprocessing.image_size, row.preprocessing.short_side
        assert side >= size and row.preprocessing.interpolation in ("bilinear", "bicubic")
        assert row.scale in rows.SCALES or row.source == published.KERAS
    keys = [(row.network, row.source, row.tag) for row in rows.ROWS]
    assert len(set(keys)) == len(keys)


def listed_state_dicts():
    """The names and shapes of the libraries' state dicts, written by the libraries themselves."""
    listed = {}
    with gzip.open(LISTED, "rt") as file:
        for line in file:
            if not line.startswith(" "):
                state = listed[tuple(line.split()[:2])] = {}
            else:
                name, shape = line.split(" ")[1:]
                state[name] = tuple(map(int, shape.strip().split("x")))
    return listed


@pytest.mark.parametrize("source, name", listed_state_dicts())
def test_every_module_has_a_layer_of_its_shape(source, name):
    shapes = listed_state_dicts()[source, name]
    state = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    weights = published.find(name, source)
    classes = len(state[f"{weights.rule.table[-1][-1]}.weight"])
    size = weights.row.preprocessing.image_size
    with keras.StatelessScope(initialize_variables=False):
        model = models.build(name, classes, image_size=size, **weights.options)
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    pairs = state_dicts.pair(layers, state, weights.rule.table)
    state_dicts.check_all_paired(layers, pairs, state)
    for layer, modules in pairs.items():
        sizes = [np.prod(weight.shape) for weight in layers[layer].weights]
        for size, module in zip(sizes, modules, strict=False):
            shape = shapes[f"{module}.weight"]
            assert np.prod(shape) == size or "norm" in layer and shape[0] == size, layer
    keras.utils.clear_session()


def squeezenet(draw):
    """A state dict of torchvision's SqueezeNet 1.1 with random values."""
    model = models.build("squeezenet1_1", 1000)
    state, names = {}, [module for module, _ in MODULES["squeezenet1_1"][0]]
    pairs = state_dicts.pair(
        {layer.name: layer for layer in model.layers if layer.weights},
        {f"{name}.weight": np.zeros((1, 1)) for name in names},
        published._rule("squeezenet1_1", "torchvision").table,
    )
    for layer, (module,) in pairs.items():
        kernel, bias = model.get_layer(layer).weights
        height, width, inputs, outputs = kernel.shape
        state[f"{module}.weight"] = 0.1 * draw(outputs, inputs, height, width)
        state[f"{module}.bias"] = draw(outputs)
    return state


def test_pretrained_reads_files_of_both_kinds(draw, tmp_path):
    state = squeezenet(draw)
    safetensors.numpy.save_file(state, tmp_path / "model.safetensors")
    with torch_writer.torch():
        torch_writer.save(tmp_path / "weights.pth", torch_writer.tensors(state))
    images = 255 * np.abs(draw(2, 224, 224, 3))
    answers = []
    for file in ("weights.pth", "model.safetensors"):
        model = models.pretrained("squeezenet1_1", "torchvision", file=tmp_path / file)
        answers.append(model(images)["logits"])
    np.testing.assert_array_equal(*answers)
    normalised = models.build("squeezenet1_1", 2, preprocessing="standardised").layers[1](images)
    np.testing.assert_allclose(model.layers[1](images), normalised, rtol=1e-6)
    other = models.pretrained("squeezenet1_1", "torchvision", file=tmp_path / file, num_classes=5)
    assert other.output["logits"].shape == (None, 5)
    kernels = [each.get_layer("conv1").kernel.numpy() for each in (model, other)]
    np.testing.assert_array_equal(*kernels)


def test_without_a_run_images_are_what_the_source_makes_of_them(
    draw, command, photographs, tmp_path
):
    """For test.py, classify.py and export.py: the same pixels, which are Pillow's to a level."""
    file = tmp_path / "squeezenet.safetensors"
    safetensors.numpy.save_file(squeezenet(draw), file)
    weights = loading.Weights(model="squeezenet1_1", init_from=f"torchvision:{file}")
    network = loading.open_network(None, weights)
    assert network.storage == Resized(224, 256, "bilinear")
    smaller = loading.open_network(None, weights, image_size=112)
    assert smaller.storage == Resized(112, 128, "bilinear") and smaller.image_size == 224

    paths = sorted(photographs.rglob("*.jpg"))[::16]
    with classifier.Classifier(network, processes=1) as image_classifier:
        answers = list(image_classifier.answers(sources.open_images(path)[0] for path in paths))
    for path, answer in zip(paths, answers, strict=True):
        photo = Image.open(path)
        sides = [256 * side // min(photo.size) for side in photo.size]
        left, top = ((side - 224) // 2 for side in sides)
        photo = photo.resize(sides, Image.Resampling.BILINEAR)
        square = photo.crop((left, top, left + 224, top + 224))
        np.testing.assert_allclose(answer.view, np.asarray(square, int), rtol=0, atol=1)

    wnids = {row["name"]: wnid for wnid, row in imagenet._rows().items()}
    for path, answer in zip(paths, answers, strict=True):  # each in the folder of its answer
        folder = tmp_path / "images" / wnids[network.class_names[answer.label]]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{path.parent.name}.jpg")
    words = [f"--model={weights.model}", f"--init_from={weights.init_from}"]
    done = command("test.py", f"--images={tmp_path}/images", *words)
    said = f"{network.name}; shorter side 256 (bilinear), crop 224 x 224"
    assert done.stdout.splitlines()[0] == said, done.stderr
    assert f"top-1 100.00 %  top-5 100.00 %  (n = {len(paths)})" in done.stdout

    words += ["--format=onnx", f"--images={tmp_path}/images", f"--output={tmp_path}/onnx"]
    assert command("export.py", *words).returncode == 0
    card = (tmp_path / "onnx" / "README.md").read_text()
    assert "resized to 256 pixels (bilinear, antialiased), and the central 224 x 224" in card
    example = card[card.index("photo = ") : card.index("model = ")].replace("photo.jpg", f"{path}")
    seen = {"np": np, "Image": Image, "ImageOps": ImageOps}
    exec(example, seen)  # noqa: S102
    np.testing.assert_allclose(seen["images"][0].astype(int), answers[-1].view, rtol=0, atol=1)


def test_weights_are_tested_used_and_trained_from_without_a_run(
    draw, command, finished, photographs, tmp_path
):
    file = tmp_path / "squeezenet.safetensors"
    safetensors.numpy.save_file(squeezenet(draw), file)
    words = ["--model=squeezenet1_1", f"--init_from=torchvision:{file}"]
    done = command("classify.py", next(photographs.rglob("*.jpg")), "--top_k=1", *words)
    assert done.returncode == 0, done.stderr
    words += [f"--data={photographs}", "--batch_size=4", "--max_steps=1"]
    trained = finished(tmp_path / "run", *words)
    file.unlink()
    assert finished(tmp_path / "run", "--resume") == trained


@pytest.mark.parametrize(
    "word, expected",
    [
        ("keras", ("keras", None, None)),
        ("pytorchcv:bninception", ("pytorchcv", "bninception", None)),
        ("timm", ("timm", None, None)),
        ("timm:resnet50.a2_in1k", ("timm", "resnet50.a2_in1k", None)),
        ("a/b.pth", (None, None, "a/b.pth")),
        ("model.safetensors", (None, None, "model.safetensors")),
        ("timm:b.pth", ("timm", None, "b.pth")),
        ("a.weights.h5", ("keras", None, "a.weights.h5")),
    ],
)
def test_a_word_says_whose_weights_they_are(word, expected):
    assert published.split(word) == expected


def test_a_source_is_meant_even_beside_a_folder_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "timm").mkdir()
    monkeypatch.chdir(tmp_path)
    assert published.find("resnet50", "timm").row.tag == "resnet50.a1_in1k"
    assert published.split("./timm") == (None, None, "./timm")


def test_a_file_of_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="unknown source, expected keras, .* received torchvison"):
        models.pretrained("squeezenet1_1", "torchvison", file="a.pth")


def test_the_home_folder_is_known_after_a_source(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert published.split("timm:~/a.pth") == ("timm", None, "/home/me/a.pth")
    assert published.absolute("timm:~/a.pth") == "timm:/home/me/a.pth"


@pytest.mark.parametrize("chosen", [("runs/a", {}), (None, {"checkpoint": "last"})])
def test_a_run_and_published_weights_are_not_both_used(chosen):
    path, more = chosen
    weights = loading.Weights(model="squeezenet1_1", init_from="torchvision", **more)
    with pytest.raises(ValueError, match="expected a run or checkpoint, or --model and --init_fro"):
        loading.open_network(path, weights)


@pytest.mark.parametrize("name", ["mobilenet_025", "nin_cifar"])
def test_a_flag_that_changes_the_network_of_the_weights_is_refused(name):
    flags = {"mobilenet_025": {"activation": "elu"}, "nin_cifar": {"pooling": "average"}}[name]
    recipe = Recipe(model=name, init_from="pytorchcv", **flags)
    with pytest.raises(ValueError, match="does not go with --init_from=pytorchcv, whose network h"):
        parts.network_options(recipe)
    same = Recipe(model="mobilenet_025", init_from="pytorchcv", activation="relu")
    assert parts.network_options(same)["activation"] == "relu"


@pytest.mark.parametrize(
    "name, word, complaint",
    [
        ("resnet50", "weights.txt", r"expected a source \(keras, .*file \(.safetensors, .pth, "),
        ("resnet50", "torchvision:V3", "V3 is neither .* torchvision's, expected IMAGENET1K_V2, "),
        ("lenet5", "timm", "no weights of timm for it, expected densenet121, .* received lenet5"),
        ("dpn68", "torchvision:a.pth", "no weights of torchvision for it"),
        ("resnet18", "timm:resnet50.a2_in1k", "timm's resnet50.a2_in1k is not resnet18, expected"),
    ],
)
def test_weights_that_nobody_has_are_refused(name, word, complaint):
    with pytest.raises(ValueError, match=complaint):
        published.find(name, word)


def test_the_names_in_a_file_say_whose_it_is(tmp_path):
    listed = listed_state_dicts()
    for (source, name), expected in {
        ("timm", "preresnet50"): "timm's resnetv2_50.a1h_in1k",
        ("pytorchcv", "squeezenet1_1"): "pytorchcv's squeezenet_v1_1",
        (
            "timm",
            "resnet18",
        ): "timm's resnet18.a1_in1k (--init_from=torchvision:FILE if they are not)",
    }.items():
        state = {key: np.zeros([1] * len(shape)) for key, shape in listed[source, name].items()}
        safetensors.numpy.save_file(state, tmp_path / "a.safetensors")
        found = published.find(name, str(tmp_path / "a.safetensors"))
        assert str(found) == f"{tmp_path / 'a.safetensors'} as {expected}"
    complaint = "expected timm or pytorchcv's weights of preresnet50, received other names in"
    with pytest.raises(ValueError, match=complaint):
        published.find("preresnet50", str(tmp_path / "a.safetensors"))


def test_a_file_with_a_published_name_has_that_tags_preprocessing():
    sides = {"resnet50-0676ba61.pth": 256, "resnet50-11ad3fa6.pth": 232, "other.pth": 232}
    for file, side in sides.items():
        row = published.find("resnet50", "torchvision", file).row
        assert row.preprocessing.short_side == side
    place = "models--timm--inception_v3.gluon_in1k/snapshots/0/model.safetensors"  # of the hub
    words = ("timm:inception_v3.gluon_in1k", "model.safetensors"), ("timm", place)
    for word, file in words:
        gluon = published.find("inception_v3", word, file)
        assert gluon.options["mean"] == models.registry.IMAGENET_MEAN
    assert published.find("inception_v3", "timm").options["mean"] == (127.5, 127.5, 127.5)


def test_a_file_of_another_network_is_refused_in_one_line(draw, tmp_path):
    safetensors.numpy.save_file(squeezenet(draw), tmp_path / "a.safetensors")
    complaint = (
        "wrong weights file, expected torchvision's weights of squeezenet1_0, received .*a.saf"
    )
    with pytest.raises(ValueError, match=complaint):
        models.pretrained("squeezenet1_0", "torchvision", file=tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="wrong weights file .*b.safetensors: "):
        models.pretrained("squeezenet1_0", "torchvision", file=tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError, match="no weights file, expected a .safetensors"):
        models.pretrained("squeezenet1_0", "torchvision", file=tmp_path / "c.safetensors")


def safetensors_file(header, data=bytes(16), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin, end, shape=(4,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(safetensors_file(b"{}", b"", length=3), id="cut in the header"),
        pytest.param(safetensors_file(b"{}", b"", length=1 << 62), id="huge header"),
        pytest.param(safetensors_file(b"[]", b""), id="no names"),
        pytest.param(safetensors_file(b'{"a": ' * 5000, b""), id="deep header"),
        pytest.param(safetensors_file({"a": tensor(0, 16), "b": tensor(0, 16)}), id="overlap"),
        pytest.param(safetensors_file({"a": tensor(4, 20)}, bytes(20)), id="hole"),
        pytest.param(safetensors_file({"a": tensor(0, 1 << 62, (1 << 60,))}), id="huge offset"),
        pytest.param(safetensors_file({"a": tensor(0, 16, (1 << 62, 1 << 62))}), id="huge shape"),
        pytest.param(safetensors_file({"a": tensor(0, 16, (-4,))}), id="negative shape"),
        pytest.param(safetensors_file({"a": tensor(0, 16, (5,))}), id="other size"),
        pytest.param(safetensors_file({"a": tensor(16, 0)}), id="ends before it begins"),
        pytest.param(safetensors_file({"a": tensor(0, 16)}, bytes(8)), id="cut in the data"),
        pytest.param(safetensors_file({"a": tensor(0, 16)}, bytes(24)), id="longer"),
        pytest.param(safetensors_file({"a": tensor(0, 16, dtype="O")}), id="objects"),
        pytest.param(safetensors_file({"a": tensor(0, 16, (16,), "F8_E4M3")}), id="8 bits"),
    ],
)
def test_hostile_safetensors_are_refused_in_one_line(content, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="wrong weights file") as error, memory(10e6):
        models.pretrained("resnet18", "timm", file=tmp_path / "a.safetensors")
    assert "\n" not in str(error.value)


def test_files_of_the_table_are_asked_for_where_the_sources_have_them(monkeypatch):
    asked = []
    for name in ("from_url", "from_hub"):
        monkeypatch.setattr(
            downloads, name, lambda *words, _name=name, **o: asked.append((_name, *words, o))
        )
    for network, source in {"resnet18": "torchvision", "wrn28_10": "pytorchcv"}.items():
        published.fetch(published.find(network, source).row)
    published.fetch(published.find("resnet50", "timm:resnet50.a2_in1k").row)
    published.fetch(published.find("xception", "timm").row)
    (_, first, o1), (_, second, o2), hub, (_, third, o3) = asked
    assert first.endswith("/models/resnet18-f37072fd.pth") and o1 == {"hash_prefix": "f37072fd"}
    assert second.endswith("/wrn28_10_cifar10-0239-fe97dcd6.pth.zip")
    assert o2 == {"hash_prefix": "fe97dcd6", "algorithm": "sha1", "zipped": True}
    assert hub == ("from_hub", "timm/resnet50.a2_in1k", {})
    assert third.endswith("/xception-43020ad28.pth") and o3 == {"hash_prefix": "43020ad28"}
    with pytest.raises(ValueError, match="weights of caffe are not downloaded, expected --init_fr"):
        published.fetch(published.find("alexnet", "caffe").row)


def classified_without_a_run(folder, photographs):
    words = [sys.executable, ROOT / "classify.py", next(photographs.rglob("*.jpg")), "--json"]
    environment = {**os.environ, "CONVNETS_CACHE": str(folder), "HF_ENDPOINT": "http://127.0.0.1:9"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def test_without_any_run_timms_mobilenet_answers(draw, photographs, tmp_path):
    tag = "mobilenetv1_100.ra4_e3600_r224_in1k"
    place = tmp_path / "weights" / f"{tag}.safetensors"
    done = classified_without_a_run(tmp_path, photographs)
    assert done.returncode == 2 and done.stdout == ""
    assert f"put the file at {place}" in done.stderr.splitlines()[-1]

    state = {
        name: np.abs(draw(*shape)) if name.endswith("weight") and len(shape) == 1 else draw(*shape)
        for name, shape in listed_state_dicts()["timm", "mobilenet_100"].items()
    }
    means = [name for name in state if name.endswith("running_mean")]
    state |= {name.replace("mean", "var"): np.ones_like(state[name]) for name in means}
    place.parent.mkdir(exist_ok=True)
    safetensors.numpy.save_file(state, place)
    done = classified_without_a_run(tmp_path, photographs)
    said = f"no run found: mobilenet_100 with weights from timm's {tag}, published top-1 75.388 %"
    assert done.stderr.splitlines()[-1] == said
    first = json.loads(done.stdout)["predictions"][0]
    assert first["class"] in imagenet.class_names() and 0 < first["probability"] <= 1


def test_weights_for_cifar_know_its_classes(draw, tmp_path):
    shapes = listed_state_dicts()["pytorchcv", "nin_cifar"]
    state = {name: draw(*shape) for name, shape in shapes.items()}
    for name, first in {"a": "airplane", "nin_svhn": "0"}.items():
        safetensors.numpy.save_file(state, tmp_path / f"{name}.safetensors")
        word = f"pytorchcv:{tmp_path / name}.safetensors"
        network = loading.open_network(None, loading.Weights(model="nin_cifar", init_from=word))
        assert network.class_names[0] == first and len(network.class_names) == 10
        assert network.storage == Resized(32, 32, "bilinear")
