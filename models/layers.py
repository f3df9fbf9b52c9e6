"""Layers that Keras lacks or runs slowly.

Pure Keras 3, except for fast paths that are taken on the TensorFlow backend only: batch
normalisation and smooth activations (one kernel instead of a dozen), and grouped convolution.
"""

import functools
import itertools
import math
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from models import registry


class Normalize(keras.layers.Layer):
    """`(images - mean) / std`, without variables, in float32 under every precision policy.

    Args:
        mean: One number or one per channel, in the units of the images (0..255).
        std: One number or one per channel, in the same units.
        name: Name of the layer.
    """

    def __init__(self, mean: registry.Pixel, std: registry.Pixel, *, name: str):
        super().__init__(dtype="float32", trainable=False, name=name)
        self.mean = np.asarray(mean, "float32")
        self.std = np.asarray(std, "float32")

    def call(self, images):
        """Maps images [B, H, W, C] in 0..255 to float32 of the same shape."""
        return (ops.cast(images, "float32") - self.mean) / self.std


class SubtractMeanImage(keras.layers.Layer):
    """`images - mean image`; the mean image is a fixed weight, measured on the training images.

    Args:
        name: Name of the layer.
    """

    def __init__(self, *, name: str):
        super().__init__(dtype="float32", trainable=False, name=name)

    def build(self, input_shape):
        """Creates the mean image, all zero."""
        shape = input_shape[1:]
        self.mean = self.add_weight(shape=shape, initializer="zeros", name="mean", trainable=False)

    def measure(self, batches: Iterable[np.ndarray]):
        """Sets the mean image to the average of images, batches of [B, H, W, C]."""
        total, count = 0.0, 0
        for images in batches:
            total, count = total + images.sum(axis=0, dtype=np.float64), count + len(images)
        self.mean.assign((total / count).astype(np.float32))

    def call(self, images):
        """Maps images [B, H, W, C] in 0..255 to float32 of the same shape."""
        return ops.cast(images, "float32") - self.mean


class Whitening(keras.layers.Conv2D):
    """A convolution that whitens patches of the training images; only its bias is trained.

    It has two filters per principal axis of the patches: the axis and its negative, divided by the
    standard deviation along it (Jordan 2024, arXiv:2404.00498, section 3.2). The filters are random
    until `measure` is called.

    Args:
        kernel_size: Height and width of the patches, pixels.
        name: Name of the layer.
    """

    _EPSILON = 5e-4  # added to the variances

    def __init__(self, kernel_size: int, *, name: str):
        super().__init__(1, kernel_size, name=name)

    def build(self, input_shape):
        """Creates the weights; the number of filters follows from the number of channels."""
        self.filters = 2 * math.prod(self.kernel_size) * input_shape[-1]
        super().build(input_shape)
        self.kernel.trainable = False

    def measure(self, batches: Iterable[np.ndarray]):
        """Sets the filters from the patches of batches of the layer's input, [B, H, W, C]."""
        covariance, count = 0.0, 0
        for x in batches:
            patches = np.lib.stride_tricks.sliding_window_view(x, self.kernel_size, axis=(1, 2))
            patches = np.moveaxis(patches, 3, -1).reshape([-1, self.filters // 2])
            covariance = covariance + patches.T.astype(np.float64) @ patches
            count += len(patches)
        variances, axes = np.linalg.eigh(covariance / count)
        filters = (axes / np.sqrt(variances + self._EPSILON))[:, ::-1]
        pairs = np.concatenate([filters, -filters], axis=1)
        self.kernel.assign(pairs.reshape(self.kernel.shape).astype(np.float32))


class LocalResponseNorm(keras.layers.Layer):
    """Divides by the energy of the neighbouring channels (Krizhevsky 2012, section 3.3).

    `y_i = x_i / (bias + alpha * sum_j x_j^2) ** 0.75`, j from i - radius to i + radius. alpha is
    not divided by the window: Caffe's `local_size 5, alpha 1e-4` is `radius=2, alpha=2e-5` here.
    The sum is a product with a band matrix, in float32 under every policy: on a CPU it is as fast
    as TensorFlow's own kernel, and it runs on every backend.

    Args:
        radius: Neighbours on each side; the paper's n = 5 is radius 2.
        bias: The paper's k.
        alpha: The paper's alpha.
        **options: Options of every Keras layer: name, dtype.
    """

    def __init__(self, *, radius: int = 2, bias: float = 2.0, alpha: float = 1e-4, **options):
        super().__init__(**options)
        self.radius, self.bias, self.alpha = radius, bias, alpha

    def call(self, x):
        """Maps [..., C] to the same shape in the layer's compute dtype."""
        channel = np.arange(x.shape[-1])
        band = (abs(channel[:, None] - channel) <= self.radius).astype("float32")
        x = ops.cast(x, "float32")
        inverse = ops.rsqrt(self.bias + self.alpha * ops.tensordot(ops.square(x), band, axes=1))
        # d ** -0.75 = d ** -0.5 * d ** -0.25: two cheap instructions where a power is slow.
        return ops.cast(x * inverse * ops.sqrt(inverse), self.compute_dtype)


class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation with Keras' results, trained through TensorFlow's fused kernel.

    The kernel sees one replica only. With several replicas, one all-reduce sums their statistics,
    where Keras has three in a row that each wait for the network. The kernel returns the unbiased
    variance, n / (n - 1) times the biased one, which Keras keeps and so do we. At inference the
    kernel gains little, and TensorFlow fails where it fuses it with a tanh.

    Args:
        momentum: Fraction of the moving averages that is kept at each step.
        epsilon: Number added to the variance.
        **options: Further options of `keras.layers.BatchNormalization`.
    """

    def __init__(self, *, momentum: float = 0.9, epsilon: float = 1e-5, **options):
        options.setdefault("synchronized", keras.backend.backend() == "tensorflow")
        super().__init__(momentum=momentum, epsilon=epsilon, **options)

    def call(self, inputs, training=None, mask=None):
        """Maps [B, H, W, C] to the same shape; updates the moving statistics during training."""
        in_training = training and self.trainable and mask is None
        if not in_training or len(inputs.shape) != 4 or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        return self._train(inputs) if _one_replica() else self._train_replicas(inputs)

    def _train_replicas(self, x):
        import tensorflow as tf

        wide = tf.cast(x, tf.float32)
        near = wide - tf.stop_gradient(self.moving_mean.value)  # small numbers: exact variance
        moments = tf.stack(
            [tf.reduce_mean(power, axis=[0, 1, 2]) for power in (near, tf.square(near))]
        )
        replica = tf.distribute.get_replica_context()
        offset, squares = tf.unstack(replica.all_reduce(tf.distribute.ReduceOp.MEAN, moments))
        mean = offset + tf.stop_gradient(self.moving_mean.value)
        variance = tf.maximum(squares - tf.square(offset), 0.0)
        self._update(self.moving_mean, mean)
        self._update(self.moving_variance, variance)
        beta, gamma = self.beta, self.gamma
        y = tf.nn.batch_normalization(wide, mean, variance, beta, gamma, self.epsilon)
        return tf.cast(y, x.dtype)

    def _train(self, x):
        import tensorflow as tf

        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=ops.ones_like(self.moving_mean) if self.gamma is None else self.gamma,
            offset=ops.zeros_like(self.moving_mean) if self.beta is None else self.beta,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        n = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
        self._update(self.moving_mean, mean)
        self._update(self.moving_variance, variance * ((n - 1) / n))
        return y

    def _update(self, average, value):
        average.assign(average * self.momentum + value * (1 - self.momentum))


class MaxPool(keras.layers.MaxPooling2D):
    """Max pooling with Keras' results, whose gradient XLA computes fast and in a fixed order.

    XLA scatters the gradient of its own pooling: with atomic additions on a GPU, or one window
    after another where the order has to be fixed. Compiled by XLA, this layer takes the maximum
    of shifted views instead, whose gradient is sums and selections. Both give a window's gradient
    to the first of equal maxima.
    """

    def call(self, inputs):
        """Maps [B, H, W, C] to [B, H', W', C]."""
        return _shifted_maximum(self, inputs) if compiled_by_xla() else super().call(inputs)


class SmoothActivation(keras.layers.Activation):
    """`keras.layers.Activation` for gelu and silu, trained in one pass forward and one backward.

    On CPUs, TensorFlow computes them by a dozen passes over memory; XLA makes one loop of each
    direction. Measured on 2 cores with AVX512_BF16, forward and backward, milliseconds for 29
    million values (elu and tanh, which have kernels of their own, gain nothing):

                             Keras   one pass
        gelu, bfloat16         297        104
        gelu, float32          215        101
        silu, bfloat16         158         84
        silu, float32          125         84
    """

    def call(self, x, training=None):
        """Maps [...] to the same shape."""
        if not training or keras.backend.backend() != "tensorflow" or not _on_cpu():
            return super().call(x)
        return _in_one_pass(self.activation)(x)


class ConcatenatedReLU(keras.layers.Layer):
    """The rectified x and the rectified -x of every channel, next to each other.

    Groups of contiguous channels, such as AlexNet's towers, stay contiguous.
    """

    def call(self, x):
        """Maps [B, ..., C] to [B, ..., 2 C]."""
        pairs = ops.relu(ops.stack([x, -x], axis=-1))
        return ops.reshape(pairs, (-1, *x.shape[1:-1], 2 * x.shape[-1]))


class GroupedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with groups, without the XLA function that Keras uses for them.

    Measured on 2 CPU cores, forward and backward, milliseconds; the results are equal:

                                            Keras   split + concat   grouped kernel
        27 x 27 x 96 -> 256, 5 x 5, g 2      1471              144              135   (batch 32)
        28 x 28 x 128, 3 x 3, g 32           4413               32               13   (batch 16)

    oneDNN and cuDNN have the grouped kernel; where TensorFlow has neither, the convolution is
    split.
    """

    def convolution_op(self, inputs, kernel):
        """Convolves [B, H, W, C] with a kernel [kh, kw, C / groups, filters]."""
        if keras.backend.backend() != "tensorflow":
            return super().convolution_op(inputs, kernel)
        import tensorflow as tf

        pieces = 1 if _grouped_kernels_run(self.compute_dtype) else self.groups
        images = tf.split(inputs, pieces, axis=-1)
        kernels = tf.split(kernel, pieces, axis=-1)
        maps = [
            tf.nn.conv2d(*pair, self.strides, self.padding.upper(), dilations=self.dilation_rate)
            for pair in zip(images, kernels, strict=True)
        ]
        return tf.concat(maps, axis=-1)


def _shifted_maximum(layer, x):
    """Pools [B, H, W, C] as a Keras pooling layer does, from slices with its strides."""
    import tensorflow as tf

    borders, windows = [], []
    for length, size, stride in zip(x.shape[1:3], layer.pool_size, layer.strides, strict=True):
        count = -(-length // stride) if layer.padding == "same" else (length - size) // stride + 1
        missing = max((count - 1) * stride + size - length, 0)
        borders.append((missing // 2, missing - missing // 2))
        windows.append([slice(at, at + (count - 1) * stride + 1, stride) for at in range(size)])
    if np.any(borders):
        x = tf.pad(x, [(0, 0), *borders, (0, 0)], constant_values=x.dtype.min)
    views = [x[:, rows, columns] for rows, columns in itertools.product(*windows)]
    return functools.reduce(tf.maximum, views)


def compiled_by_xla():
    """Whether the graph that is being traced is to be compiled by XLA."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util  # TensorFlow has no public function

    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def _on_cpu():
    """Whether TensorFlow computes on this machine's CPU."""
    import tensorflow as tf

    return not tf.config.get_visible_devices("GPU")


@functools.cache
def _in_one_pass(function):
    """Returns an elementwise function that is compiled by XLA, and so is its gradient."""
    import tensorflow as tf

    def gradient(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x, upstream)

    compiled = functools.partial(tf.function, jit_compile=True, autograph=False)
    forward, backward = compiled(function), compiled(gradient)

    return tf.custom_gradient(lambda x: (forward(x), functools.partial(backward, x)))


def _one_replica():
    """Whether TensorFlow runs on one replica, which then holds the whole batch."""
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync == 1


@functools.cache
def _grouped_kernels_run(dtype):
    """Whether TensorFlow's kernels on this machine support groups in the backward pass.

    Tried once per dtype: oneDNN supports bfloat16 only on processors with AVX-512.
    """
    import tensorflow as tf

    with tf.init_scope():
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=[1, 3, 3, 4],
                filter=tf.ones([3, 3, 2, 4], dtype),
                out_backprop=tf.ones([1, 3, 3, 4], dtype),
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
        except tf.errors.OpError:
            return False
    return True
