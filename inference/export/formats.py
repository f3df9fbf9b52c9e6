"""The export formats: how each writes a trained network and reads it back."""

import contextlib
import dataclasses
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from inference.export import decode_graph, keras_equivalents
from inference.loading import Trained
from runtime import console, extras

IMAGE_BYTES = "serving_default"  # signatures of the SavedModel
IMAGES = "serving_images"
LABELS = "labels.txt"  # class names, one per line, in the order of the probabilities
_TOP = 5

Predictor = Callable[[np.ndarray], np.ndarray]  # images uint8 [B, S, S, 3] -> float32 [B, K]


@dataclasses.dataclass(frozen=True)
class Format:
    """An export format.

    Attributes:
        title: Name of the format in messages.
        file: File name of the model in the export folder; "." is the folder itself.
        packages: Import names of the packages it needs out of requirements-export.txt.
        write: Function that writes a network into an existing folder.
        open: Function that reads the export back, with the runtime that users of the format use.
    """

    title: str
    file: str
    packages: tuple[str, ...]
    write: Callable[[Trained, Path], None]
    open: Callable[[Path], Predictor]

    def require(self) -> None:
        """Raises ValueError if a package is missing."""
        extras.require(self.packages, self.title, "requirements-export.txt")


def labels(network: Trained) -> str:
    """Returns the content of `LABELS`."""
    return "".join(f"{console.one_line(name)}\n" for name in network.class_names)


def open_bytes_predictor(folder: Path) -> Callable[[bytes], np.ndarray]:
    """Opens a SavedModel as a function from an image file's bytes to probabilities, float32 [K]."""
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures[IMAGE_BYTES]

    def predict_bytes(data: bytes) -> np.ndarray:
        return signature(image_bytes=tf.constant([data]))["probabilities"][0].numpy()

    predict_bytes.model = loaded  # the signature holds no reference to the variables
    return predict_bytes


def _probabilities(network: Trained, images: tf.Tensor) -> tf.Tensor:
    logits = network.model(tf.cast(images, tf.float32), training=False)["logits"]
    return tf.nn.softmax(logits / network.temperature)


def _spec(network: Trained) -> tf.TensorSpec:
    return tf.TensorSpec([None, *network.model.input_shape[1:]], tf.uint8, name="images")


def _write_saved_model(network: Trained, folder: Path) -> None:
    module = tf.Module()
    module.all_variables = [variable.value for variable in network.model.variables]
    names = [name.encode("utf-8", "backslashreplace") for name in network.class_names]
    module.names = tf.constant(names)
    count = min(_TOP, len(network.class_names))

    def from_images(images):
        probabilities = _probabilities(network, images)
        top, indices = tf.math.top_k(probabilities, count)
        return {
            "probabilities": probabilities,
            "top_probabilities": top,
            "top_classes": tf.gather(module.names, indices),
        }

    def from_bytes(image_bytes):
        return from_images(
            decode_graph.centre_views(image_bytes, network.storage, network.model.input_shape[1])
        )

    files = tf.TensorSpec([None], tf.string, name="image_bytes")
    signatures = {
        IMAGE_BYTES: tf.function(from_bytes, [files], autograph=False),
        IMAGES: tf.function(from_images, [_spec(network)], autograph=False),
    }
    tf.saved_model.save(module, str(folder), signatures)


def _open_saved_model(folder: Path) -> Predictor:
    loaded = tf.saved_model.load(str(folder))

    def predict(images: np.ndarray) -> np.ndarray:
        outputs = loaded.signatures[IMAGES](images=tf.constant(images))
        return outputs["probabilities"].numpy()

    return predict


@contextlib.contextmanager
def _conversion_errors() -> Iterator[None]:
    """Turns a converter's error into a ValueError that points to a format that works."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # converters raise exceptions of any type
        raise ValueError(
            "the network does not fit the format, --format=saved_model takes every network: "
            f"{error}"
        ) from error


def _write_keras(network: Trained, folder: Path) -> None:
    with _conversion_errors():
        model = keras_equivalents.classifier(network.model, network.temperature)
        model.save(folder / FORMATS["keras"].file)


def _open_keras(folder: Path) -> Predictor:
    with _conversion_errors():  # Keras recurses through the graph, too deep for some networks
        model = keras.models.load_model(folder / FORMATS["keras"].file, compile=False)
    return lambda images: model(images, training=False).numpy()


def _write_onnx(network: Trained, folder: Path) -> None:
    import onnx

    from inference.export import onnx_graph

    metadata = {
        "class_names": json.dumps(network.class_names),
        "checkpoint_sha256": network.digest or "",
    }
    with _conversion_errors():
        model = keras_equivalents.classifier(network.model, network.temperature)
        graph = onnx_graph.convert(model, metadata)
    onnx.save(graph, folder / FORMATS["onnx"].file)


def _open_onnx(folder: Path) -> Predictor:
    import onnxruntime

    path = str(folder / FORMATS["onnx"].file)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def _write_litert(network: Trained, folder: Path) -> None:
    def probabilities(images):
        return {"probabilities": _probabilities(network, images)}

    module = tf.Module()
    module.all_variables = [variable.value for variable in network.model.variables]
    module.answer = tf.function(probabilities, [_spec(network)], autograph=False)
    graph = module.answer.get_concrete_function()
    with _conversion_errors():
        converted = tf.lite.TFLiteConverter.from_concrete_functions([graph], module).convert()
    path = folder / FORMATS["litert"].file
    path.write_bytes(converted)
    with zipfile.ZipFile(path, "a") as attached:  # TensorFlow Lite's place for labels
        attached.writestr(LABELS, labels(network))


def _open_litert(folder: Path) -> Predictor:
    with console.quiet_import():
        from ai_edge_litert import interpreter

        path = str(folder / FORMATS["litert"].file)
        runner = interpreter.Interpreter(path).get_signature_runner()
        runner(images=np.zeros(runner.get_input_details()["images"]["shape"], np.uint8))
    return lambda images: runner(images=images)["probabilities"]


FORMATS = {
    "saved_model": Format("a SavedModel", ".", (), _write_saved_model, _open_saved_model),
    "keras": Format("a Keras file", "model.keras", (), _write_keras, _open_keras),
    "onnx": Format("an ONNX file", "model.onnx", ("onnx", "onnxruntime"), _write_onnx, _open_onnx),
    "litert": Format(
        "a LiteRT file", "model.tflite", ("ai_edge_litert",), _write_litert, _open_litert
    ),
}
