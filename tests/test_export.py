"""Exports: they are the network, run without this project, and say what they are."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import cv2
import keras
import numpy as np
import onnxruntime
import pytest
import reduced
import tensorflow as tf
from conftest import PIPES, ROOT, photograph

import models
from data import pipeline
from data.images import decode
from data.images.resized import Resized
from data.pipeline import pixels
from engine import checkpoints, runs
from engine.evaluator import predict
from inference import loading
from inference.export import decode_graph, keras_equivalents, onnx_graph

FORMATS = ("saved_model", "keras", "onnx", "litert")
TEMPERATURE = 1.7

# What to add to the example of a model card, which has opened the model.
ASK = {
    "saved_model": """
import numpy as np
asked = model.signatures["serving_images"](images=tf.constant(np.load("images.npy")))
answers = asked["probabilities"].numpy()""",
    "keras": 'answers = model.predict(np.load("images.npy"), verbose=0)',
    "onnx": '(answers,) = model.run(None, {"images": np.load("images.npy")})',
    "litert": 'answers = model(images=np.load("images.npy"))["probabilities"]',
}
ALONE = """
import sys
np.save("answers.npy", answers)
assert not {"runtime", "models", "data", "engine", "report", "inference"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def run(command, tmp_path_factory):
    """A short training with a temperature."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    done = command("train.py", f"--run_dir={folder}", "--max_steps=30")
    assert done.returncode == 0, done.stderr
    digest = runs.Run(folder).find("best").about["sha256"]
    text = json.dumps({"temperature": TEMPERATURE, "digest": digest})
    (folder / loading.CALIBRATION).write_text(text)
    return folder


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, run, command):
    """The format, the folder, and what was printed."""
    done = command("export.py", run, f"--format={request.param}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return request.param, run / "export" / request.param, done.stdout


def test_an_export_says_what_it_is(exported, run):
    format, folder, output = exported
    assert re.search(r"^120 views of 12 images: .* at most \d\.\de-\d\d$", output, re.M)
    assert output.splitlines()[-1] == f"done: {folder}"
    assert (folder / "labels.txt").read_text().split() == [str(digit) for digit in range(10)]
    card = (folder / "README.md").read_text()
    about = runs.Run(run).find("best").about
    for fact in ("lenet5", "LeCun", "top-1", "1.7000", about["sha256"], "Licence", "2.21"):
        assert fact in card, fact
    assert sorted(each.name for each in folder.parent.iterdir() if each.name[0] == ".") == []


def test_an_export_needs_nothing_of_this_project(exported, run, tmp_path):
    """The card's example runs elsewhere, and its model says what the network says."""
    format, folder, _ = exported
    alone = shutil.copytree(folder, tmp_path / "alone")
    shutil.copy(ROOT / "data" / "samples" / "digit_3.png", alone / "photo.jpg")
    images = np.stack([photograph(seed, 32, 32) for seed in range(100)])
    np.save(alone / "images.npy", images)
    (example,) = re.findall(r"```python\n(.*?)```", (alone / "README.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example + ASK[format] + ALONE],
        cwd=alone,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        **PIPES,
    )
    assert done.returncode == 0, done.stderr
    network = loading.open_network(str(run))
    assert network.temperature == TEMPERATURE
    expected = np.exp(predict(network.model, images[:, np.newaxis], TEMPERATURE))
    np.testing.assert_allclose(np.load(alone / "answers.npy"), expected, rtol=0, atol=1e-4)
    percent, name = done.stdout.splitlines()[0].split(" %  ")
    assert name in network.class_names and 10 < float(percent) < 100


def test_names_are_in_files_that_hold_them(exported):
    format, folder, _ = exported
    digits = [str(digit) for digit in range(10)]
    if format == "onnx":
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == digits
    if format == "litert":
        with zipfile.ZipFile(folder / "model.tflite") as file:
            assert file.read("labels.txt").decode().split() == digits


NAMES = [
    "\u732b\u3000\u72ac",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a\u00a0b",
    "$1",
    "back\\slash \\n",
    "two\r\nlines",
    "three\n\u2028lines",
    "tab\t",
    "caf\udce9",  # a byte that is not UTF-8, of a checkpoint from before names were text
    "caf\u00e9",
]
LINES = NAMES[:5] + ["two lines", "three  lines", "tab\t", "caf\\udce9", "caf\u00e9"]


@pytest.mark.parametrize("format", FORMATS)
def test_any_names_are_one_a_line(format, run, command, tmp_path):
    found = runs.Run(run).find("best")
    path = tmp_path / "odd.safetensors"
    checkpoints.write(path, found.tensors, found.about | {"class_names": NAMES})
    folder = tmp_path / "export"
    done = command("export.py", path, f"--format={format}", f"--output={folder}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    text = "".join(f"{line}\n" for line in LINES)
    assert (folder / "labels.txt").read_bytes() == text.encode()
    assert text.splitlines() == LINES
    if format == "litert":
        with zipfile.ZipFile(folder / "model.tflite") as file:
            assert file.read("labels.txt") == text.encode()
    if format == "saved_model":
        images = np.stack([photograph(seed, 32, 32) for seed in range(30)])
        ask = tf.saved_model.load(str(folder)).signatures["serving_images"]
        answer = {name: value.numpy() for name, value in ask(images=images).items()}
        names = [name.encode("utf-8", "backslashreplace") for name in NAMES]
        best = np.argsort(-answer["probabilities"], axis=1)[:, :5]
        assert set(best.ravel()) == set(range(10))
        assert answer["top_classes"].tolist() == [[names[label] for label in row] for row in best]


def test_a_file_of_another_size_is_served_as_classify_sees_it(photographs, run, command, tmp_path):
    words = [run, f"--images={photographs}", f"--output={tmp_path}/made/here"]
    done = command("export.py", *words)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^48 files.* at most (\S+), on average (\S+);", done.stdout, re.M)
    assert float(found[1]) < 0.02 and float(found[2]) < 0.005, done.stdout
    assert (tmp_path / "made" / "here" / "saved_model.pb").exists()


@pytest.mark.parametrize("encoding", decode.ENCODINGS)
@pytest.mark.parametrize("sides", [(300, 400), (420, 211), (90, 50)])
def test_files_are_reduced_and_not_compressed(encoding, sides):
    """As by OpenCV, within a few levels, of which JPEG of quality 1 would make many."""
    image = photograph(3, *sides)
    storage = decode.Storage(short_side=80, quality=1, encoding=encoding)
    file = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    (seen,) = decode_graph.centre_views(tf.constant([file]), storage, 64).numpy()
    short = min(80, *sides)
    scale = short / min(sides)
    height, width = (max(short, round(side * scale)) for side in sides)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    side = min(short, max(64, round(7 / 8 * short)))
    top, left = (height - side) // 2, (width - side) // 2
    expected = pixels.resize(small[top : top + side, left : left + side], np.empty_like(seen))
    assert np.abs(seen.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sides", [(300, 400), (421, 211), (90, 50)])
def test_files_are_resized_as_the_source_of_the_weights_does(sides, interpolation):
    file = cv2.imencode(".png", photograph(3, *sides)[..., ::-1])[1].tobytes()
    resized = Resized(64, 73, interpolation)
    (seen,) = decode_graph.centre_views(tf.constant([file]), resized, 64).numpy()
    stored = decode.prepare(file, resized)
    (expected,) = pipeline.views_of([stored], size=64, crops=1)[0]
    assert np.abs(seen.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("kind", ["grey", "colour", "alpha", "eight bits", "JPEG"])
@pytest.mark.parametrize("bits", decode.BITS)
def test_files_of_16_bits_are_scaled_as_by_classify(bits, kind):
    image = photograph(3, 40, 40).astype(np.uint16) << (bits - 8)
    image = {"grey": image[..., 0], "alpha": np.dstack([image, image[..., 0]])}.get(kind, image)
    if kind in ("eight bits", "JPEG"):
        image = (image >> (bits - 8)).astype(np.uint8)
    file = cv2.imencode(".jpg" if kind == "JPEG" else ".png", image)[1].tobytes()
    storage = decode.Storage(short_side=40, bits=bits)
    (seen,) = decode_graph.centre_views(tf.constant([file]), storage, 40).numpy()
    np.testing.assert_array_equal(seen, decode.decode(file, bits))


WRONG = [
    ("{run} --format=pickle", "pickle"),
    ("{tmp}/none", "none"),
    ("{tmp}/damaged.safetensors --output={tmp}/new", "damaged"),
    ("{tmp}/alone.safetensors", "--output"),
    ("{run} --output={tmp}", "exists"),
    ("{run} --output={tmp}/alone.safetensors/new", "is a file"),
    ("{run} --output={tmp}/new --images={tmp}/none.jpg", "none.jpg"),
    ("{run} {run} --output={tmp}/new", "one run"),
]


@pytest.mark.parametrize("words, holds", WRONG)
def test_wrong_input_is_one_error_line(words, holds, run, command, tmp_path):
    best = run / "checkpoints" / "best.safetensors"
    shutil.copy(best, tmp_path / "alone.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(best.read_bytes()[:-9])
    before = sorted(run.rglob("*")), sorted(tmp_path.rglob("*"))
    done = command("export.py", *words.format(run=run, tmp=tmp_path).split())
    assert done.returncode == 2, done.stderr
    (error,) = done.stderr.splitlines()
    assert error.startswith("error: ") and holds in error
    assert (sorted(run.rglob("*")), sorted(tmp_path.rglob("*"))) == before


# Trouble that a test has to make: what to change, the exit code, what is said.
TROUBLE = [
    (
        """
real = formats.FORMATS["onnx"]
def open(folder):
    answer = real.open(folder)
    return lambda images: answer(images) + np.float32(2e-4)
formats.FORMATS["onnx"] = dataclasses.replace(real, open=open)""",
        1,
        "the export is not the network, and was removed: probabilities differ by 2.0e-04",
    ),
    (
        "shutil.disk_usage = lambda path: types.SimpleNamespace(free=1000)",
        1,
        "0 MB of the disk are free",
    ),
    (
        "importlib.util.find_spec = lambda name: None",
        2,
        "needs onnx, onnxruntime, not installed here: pip install -r requirements-export.txt",
    ),
]


@pytest.mark.parametrize("change, code, holds", TROUBLE, ids=["differs", "full", "packages"])
def test_what_cannot_be_exported_leaves_nothing(change, code, holds, run, command, tmp_path):
    modules = "import dataclasses, importlib.util, shutil, types\nimport numpy as np\n"
    script = tmp_path / "script.py"
    script.write_text(
        f"{modules}import export\nfrom inference.export import formats\n"
        f"from runtime import console\n{change}\nconsole.run(export.main)"
    )
    done = command(script, run, "--format=onnx", f"--output={tmp_path}/a/b/new")
    assert done.returncode == code, done.stderr
    (error,) = done.stderr.splitlines()
    assert error.startswith("error: ") and holds in error
    assert list(tmp_path.iterdir()) == [script]


# Networks whose kinds of layers are those of all families.
NETWORKS = [
    ("lenet5", {}),
    ("lenet5", {"activation": "crelu", "preprocessing": "mean_image"}),
    ("lenet5", {"activation": "abs_tanh", "pooling": "max_overlapping"}),
    ("lenet5", {"activation": "swish", "pooling": "average_overlapping"}),
    ("lenet5", {"activation": "elu", "preprocessing": "mean"}),
    *(
        (name, {})
        for name in (
            "airbench94",
            "all_cnn_c",
            "cifar_preresnet164",
            "cifar_resnet110_sd",
            "cifar_resnet20",
            "cifarnet",
            "densenet40_k12",
            "dpn68",
            "dsn",
            "fractalnet21",
            "highway19",
            "mobilenet_025",
            "resnext29_8x64d",
            "squeezenet1_1",
            "study2017_3x3",
            "wrn52_1",
        )
    ),
]


def stirred(model, seed=0):
    """The model with weights at which every one of them counts."""
    draw = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path == "normalize/mean":
            weight.assign(draw.uniform(0, 255, weight.shape))
        elif weight.name == "moving_variance":
            weight.assign(draw.uniform(0.5, 2, weight.shape))
        elif len(weight.shape) == 1:
            weight.assign(weight + draw.normal(0, 0.1, weight.shape))
    return model


def run_onnx(model, images):
    session = onnxruntime.InferenceSession(onnx_graph.convert(model, {}).SerializeToString())
    return session.run(["probabilities"], {"images": images})[0]


@pytest.mark.parametrize("name, options", NETWORKS)
def test_a_network_of_keras_own_layers_says_the_same(name, options):
    model = stirred(reduced.build(name, **options))
    images = np.stack([photograph(seed, *model.input_shape[1:3]) for seed in range(3)])
    expected = np.exp(predict(model, images[:, np.newaxis], TEMPERATURE))
    same = keras_equivalents.classifier(model, TEMPERATURE)
    assert not [op for op in same.operations if not type(op).__module__.startswith("keras.")]
    np.testing.assert_allclose(same(images), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(run_onnx(same, images), expected, rtol=0, atol=2e-5)


def test_onnx_has_the_layers_that_only_large_networks_have():
    images = x = keras.Input((9, 8, 3), dtype="uint8", name="images")
    x = keras.layers.Rescaling([0.01, 0.02, 0.03], [0.1, 0.2, 0.3])(x)
    x = keras.layers.ZeroPadding2D(((0, 1), (2, 0)))(x)
    x = keras.layers.Cropping2D(((1, 0), (0, 2)))(x)
    x = keras.layers.SeparableConv2D(4, 3, strides=2, padding="same", depth_multiplier=2)(x)
    x = keras.layers.Conv2D(4, 3, padding="same", dilation_rate=2, groups=2)(x)
    pools = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
    x = keras.layers.Concatenate()([pool(3, 2, padding="same")(x) for pool in pools])
    x = keras.layers.Flatten()(x)
    x = keras.layers.Softmax(name="probabilities")(keras.layers.Dense(5)(x))
    model = stirred(keras.Model(images, x, name="small"))
    batch = np.random.default_rng(0).integers(0, 256, (4, 9, 8, 3), dtype=np.uint8)
    np.testing.assert_allclose(run_onnx(model, batch), model(batch), rtol=0, atol=1e-6)


def test_every_layer_of_ours_has_an_equivalent():
    ours = {
        kind
        for module in (models.layers, *models.FAMILIES)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, keras.layers.Layer)
    }
    assert ours and ours <= set(keras_equivalents.EQUIVALENTS)


def test_an_unknown_layer_is_refused_by_name():
    class Unheard(keras.layers.Layer):
        def call(self, x):
            return x

    images = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(Unheard(name="odd_one")(images))
    model = keras.Model(images, {"logits": keras.layers.Dense(2)(x)})
    with pytest.raises(ValueError, match=r"odd_one \(Unheard\) has no equivalent"):
        keras_equivalents.classifier(model)
