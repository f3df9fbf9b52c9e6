"""Grad-CAM: which places of an image speak for a class.

R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, arXiv:1610.02391, section 3, equations 1 and 2.
Departure: divided by its largest value, so that pictures can be drawn of it.
"""

import keras
import tensorflow as tf


def grad_cam(network: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Weighs the maps of a layer by their influence on a logit.

    Args:
        network: Maps float32 images in 0..255 to {"maps": [B, h, w, C], "logits": [B, K]}, of
            which the logits are computed from the maps.
        images: float32 [B, S, S, 3].
        labels: integer [B], the class of every image that is explained.

    Returns:
        float32 [B, h, w] in 0..1; 1 at the strongest place, 0 everywhere where nothing speaks for
        the class.
    """
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = network(images, training=False)
        scores = tf.gather(outputs["logits"], labels, batch_dims=1)
    gradients = tape.gradient(scores, outputs["maps"])
    maps, gradients = (tf.cast(each, tf.float32) for each in (outputs["maps"], gradients))
    weights = tf.reduce_mean(gradients, axis=[1, 2], keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))
    return tf.math.divide_no_nan(heat, tf.reduce_max(heat, axis=[1, 2], keepdims=True))
