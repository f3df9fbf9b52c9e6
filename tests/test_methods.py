"""Methods of training, each against a computation by hand on a network of one layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import trainers

from engine import averages, checkpoints, losses, optimizers
from engine.mixing import Mixing
from models import initializers, layers

BATCH, SIZE, CLASSES, RATE = 8, 4, 5, 0.1
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6 * BATCH, SIZE, SIZE, 3), dtype=np.uint8)
LABELS = RANDOM.integers(0, CLASSES, 6 * BATCH, dtype=np.int32)
ONES = np.ones(6 * BATCH, np.float32)
STRATEGY = tf.distribute.get_strategy()


def network(norm=False, dropout=0.0):
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    images = keras.Input((SIZE, SIZE, 3), name="images")
    x = keras.layers.Rescaling(1 / 255, name="normalize")(images)
    if norm:
        x = layers.BatchNorm(name="norm")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="drop")(x)
    return keras.Model(images, {"logits": keras.layers.Dense(CLASSES, name="fc")(x)})


def trained(count=1, model=None, optimizer="momentum", momentum=0.0, layer="fc", **options):
    """A layer's kernel after some steps; without momentum by default."""
    model = model or network()
    rule = optimizers.build(optimizer, RATE, momentum, options.pop("weight_decay", 0.0))
    trainer = trainers.build(STRATEGY, model, rule, batch_size=BATCH, seed=0, **options)
    rows = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, ONES)).batch(BATCH)
    trainer.train(trainer.iterate(rows), [RATE] * count)
    return model.get_layer(layer).kernel.numpy()


def gradient(targets, kernel=None, images=IMAGES[:BATCH]):
    """Of the mean cross entropy with soft targets [B, K], by hand: x' (p - t) / B."""
    model = network()
    kernel = model.get_layer("fc").kernel.numpy() if kernel is None else kernel
    x = images.reshape(len(images), -1) / 255
    logits = x @ kernel
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return kernel, x.T @ (p - targets) / len(images)


ONE_HOT = np.eye(CLASSES)[LABELS[:BATCH]]


def test_a_plain_step():
    kernel, slope = gradient(ONE_HOT)
    np.testing.assert_allclose(trained(), kernel - RATE * slope, atol=1e-6)


def test_label_smoothing():
    kernel, slope = gradient(0.9 * ONE_HOT + 0.1 / CLASSES)
    found = trained(objective=losses.Objective(smoothing=0.1))
    np.testing.assert_allclose(found, kernel - RATE * slope, atol=1e-6)


def test_l1_and_l2():
    kernel, slope = gradient(ONE_HOT)
    found = trained(objective=losses.Objective(l1=0.02, l2=0.3))
    expected = kernel - RATE * (slope + 0.02 * np.sign(kernel) + 0.3 * kernel)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_class_weights():
    weights = np.arange(1, CLASSES + 1) / 3
    x = IMAGES[:BATCH].reshape(BATCH, -1) / 255
    kernel, _ = gradient(ONE_HOT)
    p = np.exp(x @ kernel) / np.exp(x @ kernel).sum(1, keepdims=True)
    slope = x.T @ ((p - ONE_HOT) * weights[LABELS[:BATCH], None]) / BATCH
    found = trained(objective=losses.Objective(class_weights=tuple(weights)))
    np.testing.assert_allclose(found, kernel - RATE * slope, atol=1e-6)


def test_clipping_shortens_the_whole_gradient():
    kernel, slope = gradient(ONE_HOT)
    x, p = IMAGES[:BATCH].reshape(BATCH, -1) / 255, None
    p = np.exp(x @ kernel) / np.exp(x @ kernel).sum(1, keepdims=True)
    norm = np.sqrt((slope**2).sum() + ((p - ONE_HOT).mean(0) ** 2).sum())
    found = trained(clip_norm=0.01)
    np.testing.assert_allclose(found, kernel - RATE * slope * 0.01 / norm, atol=1e-6)
    np.testing.assert_array_equal(trained(clip_norm=1e6), trained())


def test_mixed_images_have_both_labels():
    model = network()
    plain = trained(model=model, mix=Mixing(mixup=1.0))
    from engine import mixing

    rows = mixing.plan(Mixing(mixup=1.0), 0, tf.constant(0, tf.int64), BATCH, SIZE)
    images, own = mixing.mixed(tf.cast(IMAGES[:BATCH], tf.float32), rows)
    own = own.numpy()[:, None]
    targets = own * ONE_HOT + (1 - own) * ONE_HOT[[1, 0, 3, 2, 5, 4, 7, 6]]
    kernel, slope = gradient(targets, images=images.numpy())
    np.testing.assert_allclose(plain, kernel - RATE * slope, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((1, 2, 4), {"objective": losses.Objective(l2=0.3, smoothing=0.1), "clip_norm": 0.5}),
        ((2, 4), {"mix": Mixing(0.5, 1.0)}),
    ],
)
def test_the_gradients_of_parts_add_up(sizes, options):
    whole = trained(4, **options)
    for size in sizes:
        parts = trained(4, micro_batch=size, **options)
        np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_parts_drop_other_units():
    """With the same mask for each part, twice the same images would give the same gradient."""
    model, masks = network(dropout=0.5), []
    trainer = trainers.build(
        STRATEGY,
        model,
        optimizers.build("momentum", RATE, 0.0),
        batch_size=8,
        seed=0,
        micro_batch=4,
    )
    drop = model.get_layer("drop")
    for part in (0, 1):
        trainer._gradients._dropout.part = part
        masks.append(drop(tf.ones((1, 500)), training=True).numpy() > 0)
    assert 0.3 < (masks[0] != masks[1]).mean() < 0.7


def test_parts_that_are_not_even_are_refused():
    with pytest.raises(ValueError, match="--micro_batch expects a divisor of 8 "):
        trained(micro_batch=3)
    with pytest.raises(ValueError, match="a multiple of 2"):
        trained(micro_batch=1, mix=Mixing(1.0))


def test_a_device_without_memory(monkeypatch):
    """What failed leaves the weights as they were."""
    model = network(norm=True)
    rule = optimizers.build("momentum", RATE, 0.9)
    trainer = trainers.build(STRATEGY, model, rule, batch_size=BATCH, seed=0)
    before = checkpoints.digest(checkpoints.values(checkpoints.named_variables(model, rule)))
    assert trainer.fits()
    after = checkpoints.digest(checkpoints.values(checkpoints.named_variables(model, rule)))
    assert before == after

    def fail(*arguments):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    monkeypatch.setattr(trainer, "_train", fail)
    assert not trainer.fits()
    with pytest.raises(
        tf.errors.ResourceExhaustedError, match=f"for a batch of {BATCH} images: try"
    ):
        trainer.train(None, [RATE])


def test_an_average_follows_the_weights():
    model = network(norm=True)
    average = averages.Average(STRATEGY, model, 0.6)
    by_hand = {weight.path: weight.numpy() for weight in model.weights}
    rule = optimizers.build("momentum", RATE, 0.9)
    trainer = trainers.build(STRATEGY, model, rule, batch_size=BATCH, seed=0, average=average)
    rows = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, ONES)).batch(BATCH)
    iterator = trainer.iterate(rows)
    for step in range(1, 7):
        trainer.train(iterator, [RATE])
        decay = min(0.6, (1 + step) / (10 + step))
        for weight in model.weights:
            by_hand[weight.path] = decay * by_hand[weight.path] + (1 - decay) * weight.numpy()
    trained = {weight.path: weight.numpy() for weight in model.weights}
    with average.in_use():
        for weight in model.weights:
            np.testing.assert_allclose(weight.numpy(), by_hand[weight.path], atol=1e-5)
            assert (weight.numpy() != trained[weight.path]).any()
    for weight in model.weights:
        np.testing.assert_array_equal(weight.numpy(), trained[weight.path])


def test_lookahead_returns_to_the_slow_weights():
    """Every second step of five, and at the end; in between the weights are those of training."""
    total = 5
    model = network(norm=True)
    lookahead = averages.Lookahead(STRATEGY, model, 2, total)
    slow = {weight.path: weight.numpy() for weight in model.weights}
    rule = optimizers.build("momentum", RATE, 0.9)
    trainer = trainers.build(STRATEGY, model, rule, batch_size=BATCH, seed=0, lookahead=lookahead)
    rows = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, ONES)).batch(BATCH)
    iterator = trainer.iterate(rows)
    for step in range(1, total + 1):
        twin, twins_rule = network(norm=True), optimizers.build("momentum", RATE, 0.9)
        alone = trainers.build(STRATEGY, twin, twins_rule, batch_size=BATCH, seed=0)
        pairs = zip(
            twin.weights + twins_rule.variables, model.weights + rule.variables, strict=True
        )
        for copy, variable in pairs:
            copy.assign(variable)
        alone.train(alone.iterate(rows.skip(step - 1)), [RATE])
        trainer.train(iterator, [RATE])
        keep = 0.95**2 * (step / total) ** 3
        for weight, fast in zip(model.weights, twin.weights, strict=True):
            path, expected = weight.path, fast.numpy()
            if step % 2 == 0:
                slow[path] = keep * slow[path] + (1 - keep) * expected
            if step % 2 == 0 or step == total:
                expected = slow[path]
            now, tolerance = lookahead.variables[path].numpy(), 1e-6 * (step % 2 == 0)
            np.testing.assert_allclose(now, slow[path], rtol=0, atol=tolerance)
            np.testing.assert_allclose(weight.numpy(), expected, rtol=0, atol=1e-6)
            slow[path] = now


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_factor_slows_a_variable_whatever_the_optimizer(optimizer):
    start = network().get_layer("fc").kernel.numpy()
    model = network()
    whole = trained(optimizer=optimizer, momentum=0.9, model=model)
    model = network()
    slow = trained(
        optimizer=optimizer,
        momentum=0.9,
        model=model,
        factors={model.get_layer("fc").kernel.path: 0.25},
    )
    np.testing.assert_allclose(slow - start, 0.25 * (whole - start), atol=1e-6)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_variable_is_held_in_the_first_steps_whatever_the_optimizer(optimizer):
    start = network().get_layer("fc").kernel.numpy()
    kernels = []
    for count in (1, 2, 3):
        model = network()
        path = model.get_layer("fc").kernel.path
        options = {"held": {path}, "held_steps": 2, "factors": {path: 0.5}, "weight_decay": 0.1}
        kernels.append(trained(count, model, optimizer, momentum=0.9, **options))
    np.testing.assert_array_equal(kernels[:2], [start, start])
    assert (kernels[2] != start).any()


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_learns_and_goes_on_where_it_was(name, tmp_path):
    rate = optimizers.OPTIMIZERS[name].learning_rate
    assert 0 < rate < 1
    rows = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, ONES)).batch(BATCH)

    def made():
        model = network(norm=True)
        rule = optimizers.build(name, rate, 0.9, 0.01)
        trainer = trainers.build(STRATEGY, model, rule, batch_size=BATCH, seed=0)
        return trainer, checkpoints.named_variables(model, rule)

    trainer, variables = made()
    iterator, before = trainer.iterate(rows), checkpoints.digest(checkpoints.values(variables))
    trainer.train(iterator, [rate] * 3)
    checkpoints.write(tmp_path / "x.safetensors", checkpoints.values(variables), {})
    trainer.train(iterator, [rate] * 3)
    expected = checkpoints.digest(checkpoints.values(variables))
    assert expected != before
    trainer, variables = made()
    checkpoints.assign(variables, checkpoints.read(tmp_path / "x.safetensors"))
    trainer.train(trainer.iterate(rows.skip(3)), [rate] * 3)
    assert checkpoints.digest(checkpoints.values(variables)) == expected


@pytest.mark.parametrize("name", [n for n, row in optimizers.OPTIMIZERS.items() if row.decoupled])
def test_decoupled_decay_is_beside_the_gradient_and_spares_biases(name):
    """On top of what the gradient does: w <- w - rate * decay * w, for kernels of any rank."""

    def made():
        keras.utils.clear_session()
        keras.utils.set_random_seed(3)
        images = keras.Input((SIZE, SIZE, 3), name="images")
        x = keras.layers.Conv2D(4, 3, name="conv", bias_initializer="ones")(images)
        x = keras.layers.Flatten(name="flatten")(x)
        logits = keras.layers.Dense(CLASSES, name="fc", bias_initializer="ones")(x)
        return keras.Model(images, {"logits": logits})

    start, plain, decayed = made(), made(), made()
    for model, decay in ((plain, 0.0), (decayed, 0.5)):
        trained(optimizer=name, momentum=0.9, weight_decay=decay, model=model, layer="conv")
    for before, without, with_decay in zip(
        start.weights, plain.weights, decayed.weights, strict=True
    ):
        shrunk = RATE * 0.5 * before.numpy() if len(before.shape) > 1 else 0
        if name == "lamb":  # the decay has a part in the trust ratio
            assert (with_decay.numpy() != without.numpy()).any() == (len(before.shape) > 1)
        else:
            np.testing.assert_allclose(with_decay.numpy(), without.numpy() - shrunk, atol=1e-5)


@pytest.mark.parametrize("kind", initializers.INITIALIZERS)
def test_kernels_start_as_asked(kind):
    images = keras.Input((8, 8, 16))
    x = keras.layers.DepthwiseConv2D(3, name="depthwise", bias_initializer="ones")(images)
    x = keras.layers.Conv2D(64, 3, name="conv")(x)
    model = keras.Model(images, x)
    initializers.initialise(model, kind, seed=1)
    first = [weight.numpy() for weight in model.weights]
    initializers.initialise(model, kind, seed=1)
    for weight, value in zip(model.weights, first, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert (model.get_layer("depthwise").bias.numpy() == 1).all()
    gains = {"lecun": 1 / 144, "glorot": 2 / (9 * 16 + 9 * 64), "he": 2 / 144}
    family, _, form = kind.partition("_")
    expected = {"normal": 0.01**2, "uniform": 0.05**2 / 3}.get(kind) or gains[family]
    kernel = model.get_layer("conv").kernel.numpy()
    assert kernel.var() == pytest.approx(expected, rel=0.1)
    of_each_channel = model.get_layer("depthwise").kernel.numpy().var()
    if family == "he":
        assert of_each_channel == pytest.approx(2 / 9, rel=0.3)
    uniform = abs(kernel).max() < 1.8 * kernel.std()
    assert uniform == (form == "uniform" or kind == "uniform")
