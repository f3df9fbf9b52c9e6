"""Tests a network on JAX, with several views of each image."""

import jax
import keras
import numpy as np

from benchmarks.in_memory import augment
from benchmarks.in_memory.training import kinds, values

BATCH = 500  # images


def test(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Tests a network with each number of views, as `test.py --crops` averages them.

    Args:
        model: The network.
        images: uint8 [N, S, S, 3].
        labels: int32 [N].

    Returns:
        Top-1 accuracies in %, by the number of views.
    """

    @jax.jit
    def predict(trainable, others, batch):
        def probabilities(view):
            seen = augment.seen(view, batch).astype("float32")
            return jax.nn.softmax(model.stateless_call(trainable, others, seen)[0]["logits"])

        found = {view: probabilities(view) for view in augment.VIEWS[max(augment.VIEWS)]}
        return {
            count: sum(weight * found[view] for view, weight in weights.items()).argmax(1)
            for count, weights in augment.VIEWS.items()
        }

    weights = [values(variables) for variables in kinds(model)]
    right = dict.fromkeys(augment.VIEWS, 0)
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        for count, predicted in predict(*weights, images[part]).items():
            right[count] += int((predicted == labels[part]).sum())
    return {count: 100 * number / len(images) for count, number in right.items()}
