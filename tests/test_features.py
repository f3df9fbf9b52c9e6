"""What a frozen part of a network makes of the images is computed once."""

import keras
import numpy as np
import pytest
from conftest import killed_at, metrics

import models
from data import opening, pipeline
from data.pipeline import augment
from engine import checkpoints
from models.tools import graphs
from training import finetune, frozen


@pytest.fixture(autouse=True)
def session():
    yield
    keras.utils.clear_session()


@pytest.mark.parametrize(
    "name, what, end",
    [
        ("cifar_resnet20", "all", "pool"),
        ("cifar_resnet20", "stage:2", None),  # shortcuts without weights lead beyond it
        ("mobilenet_025", "all", "average"),
        ("alexnet", "all", "relu6"),  # dropout comes next
    ],
)
def test_where_the_frozen_part_ends(name, what, end):
    model = models.build(name, 5)
    new = {layer.name for layer in graphs.classifiers(model)}
    finetune.freeze(model, what, new)
    tensor = graphs.frozen_end(model)
    assert [layer.name for layer in model.layers if layer.output is tensor] == [end] * bool(end)


def test_trunk_and_head_are_the_network():
    model = models.build("cifar_resnet20", 5)
    finetune.freeze(model, "all", {"fc"})
    trunk, head = frozen.trunk_and_head(model, 100)
    images = np.random.default_rng(0).uniform(0, 255, [2, 32, 32, 3]).astype("float32")
    np.testing.assert_array_equal(head(trunk(images))["logits"], model(images)["logits"])
    assert [v.path for v in head.trainable_variables] == ["fc/kernel", "fc/bias"]
    assert frozen.trunk_and_head(model, 10**9) is None


def test_nothing_is_cut_where_all_layers_learn():
    assert frozen.trunk_and_head(models.build("cifar_resnet20", 5), 1) is None
    with_heads = models.build("googlenet", 5, image_size=96, aux_heads=True)
    finetune.freeze(with_heads, "all", {layer.name for layer in graphs.classifiers(with_heads)})
    assert frozen.trunk_and_head(with_heads, 1) is None  # three heads at three places


def test_features_come_in_the_order_of_the_images(photographs):
    dataset = opening.open_dataset(str(photographs), image_size=32)
    options = {"batch_size": 8, "seed": 3, "step": 2, "steps": 9}
    images = pipeline.train_batches(dataset, augment.POLICIES["none"], size=4, threads=1, **options)
    stored = pipeline.test_batches(dataset, "train", size=4, crops=1, batch_size=1, threads=1)
    stored = [(views[0, 0], labels[0]) for views, labels, _ in stored.as_numpy_iterator()]
    places = list(pipeline.train_indices(dataset, **options).as_numpy_iterator())
    assert len(places) == 7
    for batch, (seen, labels, _) in zip(places, images.as_numpy_iterator(), strict=True):
        for place, image, label in zip(batch, seen, labels, strict=True):
            np.testing.assert_array_equal(image, stored[place][0])
            assert label == stored[place][1]


@pytest.mark.slow
def test_a_head_is_trained_as_the_whole_network_would_be(photographs, tmp_path, finished):
    source = tmp_path / "source"
    finished(source, "--model=lenet5", "--max_steps=1")
    words = [f"--data={photographs}", "--model=lenet5", "--epochs=3", "--keep=9"]
    words += [f"--init_from={source}", "--freeze=all", "--augment=none", "--batch_size=8"]
    whole = finished(tmp_path / "whole", *words, "--checkpoint_steps=7")
    log = (tmp_path / "whole" / "train.log").read_text()
    assert "the frozen layers see every image once" in log
    stopped = killed_at(7, tmp_path / "whole", tmp_path / "stopped")
    assert finished(stopped, "--resume") == whole
    finished(tmp_path / "images", *words, "--cache=none")
    assert "see every image once" not in (tmp_path / "images" / "train.log").read_text()
    mine, others = (
        checkpoints.read(tmp_path / run / "checkpoints" / "best.safetensors").tensors
        for run in ("whole", "images")
    )
    assert mine.keys() == others.keys()
    for name, tensor in mine.items():
        np.testing.assert_allclose(tensor, others[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for row, other in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "images"), strict=True):
        assert float(row["validation_loss"]) == pytest.approx(float(other["validation_loss"]), 1e-4)
