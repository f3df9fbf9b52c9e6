"""Grad-CAM: heat maps of the regions of an image that are evidence for a class.

R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, arXiv:1610.02391, section 3, equations 1 and 2.
Departure: a heat map is divided by its maximum, so that it can be drawn.
"""

import keras
import tensorflow as tf


def grad_cam(network: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Sums the feature maps of a layer, weighted by their mean gradients.

    Args:
        network: Model from float32 images in 0..255 to {"maps": [B, h, w, C], "logits": [B, K]},
            where the logits are computed from the maps.
        images: Images, float32 [B, S, S, 3].
        labels: Class to explain for each image, integer [B].

    Returns:
        Heat maps, float32 [B, h, w] in 0..1: 1 at the maximum, and 0 everywhere if an image has no
        evidence for the class.
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
