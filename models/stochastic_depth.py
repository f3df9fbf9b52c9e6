"""Stochastic depth: a CIFAR ResNet that skips whole blocks at random during training.

Gao Huang, Yu Sun, Zhuang Liu, Daniel Sedra, Kilian Weinberger, "Deep networks with stochastic
depth", ECCV 2016, arXiv:1603.09382. Transcribes equations 2 to 5: block l of L survives a
mini-batch with probability p_l = 1 - l / L (1 - p_L), p_L = 0.5; a test multiplies it by p_l.

Departures: a skipped block is computed and multiplied by zero, so that replicas may skip different
blocks; its moving statistics stay as they were, but no time is saved. Images are standardised per
channel, where the authors divide by one number.
"""

from functools import partial

import keras

from models import layers, pools, registry, resnet


def stochastic_depth(x, num_classes: int, *, depths, survival: float = 0.5):
    """The CIFAR ResNet with blocks that survive at random.

    Args:
        x: Standardised images, float32 [B, 32, 32, C].
        num_classes: Number of classes K.
        depths: Blocks in each stage.
        survival: Probability p_L of the last block; it falls linearly from 1 before the first.

    Returns:
        {"logits": float32 [B, K]}.
    """
    odds = iter(linear_decay(sum(depths), survival))

    def block(x, filters, *, stride, name, conv):
        alive = Survival(next(odds), name=f"{name}_survival")(x)

        def norm(x, *, name):
            return HeldBatchNorm(name=name)(x, alive)

        def gate(residual):
            return Gate(name=f"{name}_gate")(residual, alive)

        conv = partial(conv, norm=norm)
        join = {"shortcut": average_and_pad, "gate": gate}
        return resnet.basic(x, filters, stride=stride, name=name, conv=conv, **join)

    # 32 x 32 x 16, 16 x 16 x 32, 8 x 8 x 64
    stem = resnet.cifar_stem
    return resnet.resnet(x, num_classes, stem=stem, block=block, depths=depths, filters=16)


def linear_decay(blocks: int, last: float) -> list[float]:
    """Returns the survival probability of each of `blocks` blocks, down to `last` (equation 4)."""
    return [1 - (1 - last) * number / blocks for number in range(1, blocks + 1)]


def average_and_pad(x, filters: int, *, stride: int, name: str, conv=None):
    """Averages 2 x 2 pixels and appends channels of zeros where the shape changes (section 4)."""
    if stride > 1:
        x = pools.pool(x, 2, stride, kind="average", ceil=True, name=f"{name}_shortcut_pool")
    return resnet.zero_padding(x, filters, stride=1, name=name)


class Survival(keras.layers.Layer):
    """Draws once per mini-batch whether a block survives.

    Args:
        probability: Probability of survival, in [0, 1].
        name: Name of the layer.
    """

    def __init__(self, probability: float, *, name: str):
        super().__init__(dtype="float32", name=name)
        self.probability = probability
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, x, training=False):
        """Returns float32 [1]: 1 or 0 during training, otherwise the probability."""
        if not training:
            return keras.ops.full((1,), self.probability, "float32")
        draw = keras.random.uniform((1,), dtype="float32", seed=self.seed_generator)
        return keras.ops.cast(draw < self.probability, "float32")

    def compute_output_shape(self, input_shape):
        """Returns the shape of the result."""
        return (1,)


class Gate(keras.layers.Layer):
    """Multiplies a residual by the result of `Survival`."""

    def call(self, x, alive):
        """Maps [B, H, W, C] and [1] to [B, H, W, C]."""
        return x * alive

    def compute_output_shape(self, input_shape):
        """Returns the shape of the residual."""
        return input_shape


class HeldBatchNorm(layers.BatchNorm):
    """Batch normalisation that keeps its moving statistics while its block is skipped."""

    def call(self, inputs, alive, training=None):
        """Maps [B, H, W, C] and the result of `Survival`, [1], to [B, H, W, C]."""
        statistics = (self.moving_mean, self.moving_variance)
        before = [keras.ops.copy(each) for each in statistics]
        y = super().call(inputs, training=training)
        if training:
            for each, old in zip(statistics, before, strict=True):
                each.assign(keras.ops.where(alive > 0, each.value, old))
        return y


def _cifar(n, error):
    """The network of 6n + 2 layers."""
    graph = partial(stochastic_depth, depths=(n, n, n))
    row = partial(registry.Variant, paper="Huang et al. 2016", year=2016)
    return row(graph, image_size=32, policy="cifar", error=f"{error} CIFAR-10+")


VARIANTS = {
    "cifar_resnet110_sd": _cifar(18, "5.23"),
    "cifar_resnet1202_sd": _cifar(200, "4.91"),
}
