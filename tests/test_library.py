"""The pipeline as a library: the example of docs/pipeline.md, on a smaller scale."""

import re

import keras
import pytest
from conftest import ROOT


@pytest.mark.slow
@pytest.mark.filterwarnings("error:Your input ran out of data")
def test_the_example_of_the_docs(photographs):
    page = (ROOT / "docs" / "pipeline.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    smaller = {
        '"IMAGES"': repr(str(photographs)),
        "224": "32",
        "128": "8",
        "10_000": "12",
        "1_000": "4",
        "epochs=10,": "epochs=3,",
    }
    for usual, small in sorted(smaller.items(), key=lambda item: -len(item[0])):
        assert usual in example
        example = example.replace(usual, small)
    images = keras.Input((32, 32, 3))
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, keras.layers.Dense(3)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, weighted_metrics=["accuracy"])
    names = {"model": model}
    exec(example.replace("model.fit", "history = model.fit"), names)
    history = names["history"].history
    assert len(history["loss"]) == len(history["val_accuracy"]) == 3
    assert names["train"].cardinality() == 12 and names["test"].cardinality() == 1
