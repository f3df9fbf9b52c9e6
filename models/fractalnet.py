"""FractalNet: depth without residuals, by columns of doubling depth whose outputs are averaged.

Gustav Larsson, Michael Maire, Gregory Shakhnarovich, "FractalNet: ultra-deep neural networks
without residuals", ICLR 2017, arXiv:1605.07648. Transcribes figure 1 and section 4: 5 blocks of
C = 3 columns are 5 x 4 convolutions deep, 21 layers with the classifier. Drop-path (section 3):
half of the mini-batches drop each input of each join ("local", at least one is kept), the other
half keep one column of the whole network ("global").

Departures: batch normalisation has a scale and an offset, where the authors' Caffe layer has none.
Each column is pooled before the last join of its block, as in their code. Weights start uniform
over the incoming connections (Caffe's "xavier").
"""

from functools import partial

import keras

from models import initializers, ops, pools, registry

FILTERS_21 = (64, 128, 256, 512, 512)  # channels of each block


def fractalnet(
    x,
    num_classes: int,
    *,
    filters=FILTERS_21,
    columns: int = 3,
    dropout: float = 0.4,
    drop_path: float = 0.15,
):
    """Fractal blocks, each of which halves the maps.

    Args:
        x: Standardised images, float32 [B, 32, 32, C].
        num_classes: Number of classes K.
        filters: Channels of each block.
        columns: Columns C of a block; column c has 2 ** (c - 1) convolutions.
        dropout: Fraction dropped in the last block; rises linearly from 0 in the first.
        drop_path: Fraction of a join's inputs that is dropped in local mini-batches; 0 switches
            drop-path off, global mini-batches included.

    Returns:
        {"logits": float32 [B, K]}.
    """
    column = PathChoice(columns, name="column")(x)
    join = partial(_join, column=column, drop_path=drop_path)
    for index, channels in enumerate(filters):
        # 16 x 16 x 64, 8 x 8 x 128, 4 x 4 x 256, 2 x 2 x 512, 1 x 1 x 512
        rate = dropout * index / max(1, len(filters) - 1)
        unit = partial(_unit, filters=channels, dropout=rate)
        x = _block(x, columns, unit=unit, join=join, name=f"block{index + 1}")
    return {"logits": ops.pooled_logits(x, num_classes)}


def _block(x, columns, *, unit, join, name):
    """Figure 1, right: columns that end in the same row are averaged and continue from the mean."""
    rows = 2 ** (columns - 1)
    maps = [x] * columns
    for row in range(1, rows + 1):
        # Column c convolves every rows / 2 ** (c - 1) rows: those that end here are the deepest.
        ending = [c for c in range(columns) if row % (rows >> c) == 0]
        for c in ending:
            maps[c] = unit(maps[c], name=f"{name}_column{c + 1}_row{row}")
        if row == rows:
            maps = [
                pools.pool(y, 2, 2, name=f"{name}_column{c + 1}_pool") for c, y in enumerate(maps)
            ]
        joined = join([maps[c] for c in ending], name=f"{name}_join{row}")
        for c in ending:
            maps[c] = joined
    return joined


def _unit(x, *, filters, dropout, name):
    """Convolution, dropout, batch normalisation, ReLU."""
    xavier = initializers.caffe_xavier()
    x = ops.conv(x, filters, 3, padding=1, kernel_initializer=xavier, name=f"{name}_conv")
    if dropout:
        x = keras.layers.Dropout(dropout, name=f"{name}_dropout")(x)
    return ops.norm_relu(x, name=name)


def _join(maps, *, column, drop_path, name):
    """Averages the maps, or with drop-path the maps that are kept."""
    if len(maps) == 1:
        return maps[0]
    if not drop_path:
        return keras.layers.Average(name=name)(maps)
    return DropPathJoin(drop_path, name=name)(maps, column)


class PathChoice(keras.layers.Layer):
    """Draws once per mini-batch whether drop-path is global, and the column it then keeps.

    Args:
        columns: Number of columns C.
        name: Name of the layer.
    """

    def __init__(self, columns: int, *, name: str):
        super().__init__(dtype="float32", trainable=False, name=name)
        self.columns = columns
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, x, training=False):
        """Returns float32 [C]: 1 at the column that is kept; zeros when local or not training."""
        if not training:
            return keras.ops.zeros((self.columns,), "float32")
        draw = keras.random.uniform((), dtype="float32", seed=self.seed_generator)
        kept = keras.ops.floor(2 * self.columns * draw)  # C and above: local
        return keras.ops.one_hot(keras.ops.cast(kept, "int32"), self.columns, dtype="float32")

    def compute_output_shape(self, input_shape):
        """Returns the shape of the result."""
        return (self.columns,)


class DropPathJoin(keras.layers.Layer):
    """Averages the inputs that drop-path keeps; outside training, all inputs.

    Args:
        rate: Fraction of the inputs that is dropped when drop-path is local.
        name: Name of the layer.
    """

    def __init__(self, rate: float, *, name: str):
        super().__init__(name=name)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, maps, column, training=False):
        """Maps k tensors [B, H, W, F], of the k deepest columns, to one.

        Where the global column does not reach this join, the result never reaches the logits; the
        join then drops as if drop-path were local.
        """
        if not training:
            return sum(maps) / len(maps)
        draws = keras.random.uniform((len(maps),), dtype="float32", seed=self.seed_generator)
        threshold = keras.ops.maximum(1 - self.rate, keras.ops.min(draws))
        local = keras.ops.cast(draws <= threshold, "float32")
        chosen = keras.ops.cast(column[-len(maps) :], "float32")
        kept = keras.ops.where(keras.ops.any(chosen > 0), chosen, local)
        weights = keras.ops.cast(kept / keras.ops.sum(kept), self.compute_dtype)
        return sum(weights[i] * each for i, each in enumerate(maps))

    def compute_output_shape(self, maps_shape, column_shape):
        """Returns the shape of one of the inputs."""
        return maps_shape[0]


VARIANTS = {
    "fractalnet21": registry.Variant(
        fractalnet,
        image_size=32,
        policy="cifar",
        paper="Larsson et al. 2017",
        year=2016,
        error="4.60 CIFAR-10+",
    ),
}
