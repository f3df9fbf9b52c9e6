"""Every network learns with all of its weights, whatever the number of classes."""

import keras
import numpy as np
import pytest
import reduced
import tensorflow as tf

# Otherwise chance decides whether a block gets a gradient.
CERTAIN = {"cifar_resnet110_sd": {"survival": 1.0}, "fractalnet21": {"drop_path": 0.0}}


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield
    keras.config.set_dtype_policy(before)
    keras.backend.clear_session(free_memory=False)


@pytest.mark.parametrize(
    ("name", "num_classes", "policy"),
    [(name, 10, "float32") for name in reduced.distinct()]
    + [(name, 1000, "mixed_bfloat16") for name in reduced.CHEAPEST],
    indirect=["policy"],
)
def test_gradients_reach_every_variable(name, num_classes, policy):
    keras.utils.set_random_seed(1)
    model = reduced.build(name, num_classes, **CERTAIN.get(name, {}))
    labels = np.array([0, 1, num_classes - 2, num_classes - 1])
    images = np.random.default_rng(1).uniform(0, 255, (4, *model.input_shape[1:]))
    with tf.GradientTape() as tape:
        outputs = model(tf.constant(images, "float32"), training=True)
        loss = sum(
            keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            for logits in outputs.values()
        )
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for logits in outputs.values():
        assert logits.shape == (4, num_classes)
        assert logits.dtype == "float32" and np.isfinite(logits).all()
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None and np.isfinite(gradient).all(), variable.path
        assert np.any(gradient), variable.path
