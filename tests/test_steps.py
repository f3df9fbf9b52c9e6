import keras
import numpy as np
import pytest
import tensorflow as tf
import trainers

from engine import averages, checkpoints, losses, optimizers
from engine.dropout_seeds import DropoutSeeds
from engine.evaluator import Evaluator, predict
from engine.totals import Totals
from engine.trainer import NotFinite
from models import layers

BATCH, SIZE, CLASSES = 8, 6, 7


def network(dropout=0.5, norm=False):
    keras.utils.set_random_seed(3)
    images = keras.Input((SIZE, SIZE, 3), name="images")
    x = keras.layers.Rescaling(1 / 255, name="normalize")(images)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv1")(x)
    x = layers.BatchNorm(name="norm1")(x) if norm else x
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dropout(dropout, name="drop1")(x)
    return keras.Model(images, {"logits": keras.layers.Dense(CLASSES, name="fc2")(x)})


def trainer(model, **options):
    optimizer = optimizers.build("momentum", 0.1, 0.9)
    options = {"batch_size": BATCH, "objective": losses.Objective(l2=1e-3), "seed": 0, **options}
    return trainers.build(tf.distribute.get_strategy(), model, optimizer, **options)


def batches(count=6):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count * BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    labels = generator.integers(0, CLASSES, count * BATCH, dtype=np.int32)
    weights = np.ones(count * BATCH, np.float32)
    return tf.data.Dataset.from_tensor_slices((images, labels, weights)).batch(BATCH)


def trained(*calls, seed=0):
    """Digest and totals after the steps of each call."""
    model, totals = network(), Totals()
    of_model = trainer(model, seed=seed)
    iterator = of_model.iterate(batches(sum(calls)))
    for count in calls:
        totals += of_model.train(iterator, [0.1] * count).totals
    assert of_model.step == sum(calls)
    return checkpoints.weights_digest(model), totals


def test_steps_in_one_call_are_the_steps_of_many():
    assert trained(6) == trained(1, 2, 3)
    assert trained(6)[1].examples == 6 * BATCH


def test_what_xla_compiles_trains_alike():
    """With everything that is part of an update, in parts of a batch."""
    ends = []
    for xla in (False, True):
        model = network(dropout=0.0, norm=True)
        average = averages.Average(tf.distribute.get_strategy(), model, 0.9)
        factors = {model.trainable_variables[0].path: 0.5}
        options = {"micro_batch": 4, "clip_norm": 1.0, "average": average, "factors": factors}
        of_model = trainer(model, xla=xla, **options)
        weights = [*model.weights, *average.variables.values()]
        before = [weight.numpy() for weight in weights]
        progress = of_model.train(of_model.iterate(batches(3)), [0.1] * 3)
        changes = [w.numpy() - b for w, b in zip(weights, before, strict=True)]
        ends.append([progress.totals.loss, progress.gradient_norm, *changes])
    for plain, compiled in zip(*ends, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-5)
    assert any(np.abs(change).max() > 1e-3 for change in ends[1][2:])


def test_the_seed_decides_the_dropout_masks():
    assert trained(4)[0] != trained(4, seed=1)[0]


def test_dropout_masks_follow_the_clock_and_no_hidden_state():
    model = keras.Sequential(
        [keras.layers.Dropout(0.5, name="a"), keras.layers.Dropout(0.5, name="b")]
    )
    ones = tf.ones((1, 500))
    model(ones)
    step = tf.Variable(5, dtype=tf.int64)
    DropoutSeeds(model, seed=0, step=step)

    def masks():
        return [layer(ones, training=True).numpy() > 0 for layer in model.layers]

    first = masks()
    np.testing.assert_array_equal(masks(), first)
    assert (first[0] != first[1]).any()
    step.assign(6)
    assert (masks()[0] != first[0]).any()
    step.assign(5)
    np.testing.assert_array_equal(masks(), first)


@pytest.mark.parametrize("more", [(), (0.1,), (0.1, 0.1)])
def test_a_loss_that_is_not_finite_names_its_step(more):
    model = network()
    of_model = trainer(model)
    iterator = of_model.iterate(batches())
    of_model.train(iterator, [0.1])
    with pytest.raises(NotFinite, match="step 3, learning rate 0.25") as raised:
        of_model.train(iterator, [0.1, 3e38, 0.25, *more])  # the second spoils the third
    assert raised.value.step == 3


def test_weight_decay_and_learning_rate_do_what_the_paper_says():
    """One step without momentum's memory: w <- w - rate * (gradient + decay * w)."""
    before, plain, decayed = (network(dropout=0.0) for _ in range(3))
    for model, decay in ((plain, 0.0), (decayed, 0.5)):
        of_model = trainer(model, objective=losses.Objective(l2=decay))
        of_model.train(of_model.iterate(batches(1)), [0.1])
    for start, without, with_decay in zip(
        before.trainable_weights, plain.trainable_weights, decayed.trainable_weights, strict=True
    ):
        shrunk = 0.1 * 0.5 * start.numpy() if len(start.shape) > 1 else 0
        np.testing.assert_allclose(with_decay.numpy(), without.numpy() - shrunk, atol=1e-6)


def test_prediction_averages_the_probabilities_of_the_views():
    model = network()
    views = np.random.default_rng(1).integers(0, 256, (3, 5, SIZE, SIZE, 3), dtype=np.uint8)
    probabilities = [
        tf.nn.softmax(model(tf.cast(views[:, index], tf.float32), training=False)["logits"])
        for index in range(5)
    ]
    found = np.exp(predict(model, tf.constant(views)))
    np.testing.assert_allclose(found, np.mean(probabilities, axis=0), rtol=1e-5)


def test_evaluation_counts_every_example_once_and_padding_never():
    model = network()
    generator = np.random.default_rng(2)
    views = generator.integers(0, 256, (BATCH * 2, 1, SIZE, SIZE, 3), dtype=np.uint8)
    labels = generator.integers(0, CLASSES, BATCH * 2, dtype=np.int32)
    weights = np.array([1] * 11 + [0] * 5, np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((views, labels, weights)).batch(BATCH)
    totals = Evaluator(tf.distribute.get_strategy(), model).evaluate(dataset)
    order = np.argsort(-predict(model, tf.constant(views)).numpy(), axis=1)
    hits = order == labels[:, None]
    assert totals.examples == 11
    assert totals.top1 == hits[:11, 0].sum()
    assert totals.top5 == hits[:11, :5].sum()
