"""Checks claims of papers about the cost of convolutions, by counting and by measuring.

    python benchmarks/claims.py

Counts are of built networks. Times are medians over alternating turns on this machine, forward
passes only, float32. `docs/claims.md` cites the source of each claim.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console

with console.quiet_import():
    import keras
    import numpy as np
    import tensorflow as tf

    import models
    from models.tools import graphs

TURNS = 7


def chain(side: int, channels: int, *convolutions: Callable) -> keras.Model:
    """Builds a network of a few layers on maps [side, side, channels]."""
    keras.utils.clear_session()
    maps = keras.Input((side, side, channels))
    x = maps
    for convolution in convolutions:
        x = convolution(x)
    return keras.Model(maps, x)


def conv(filters: int, size: int) -> Callable:
    """Returns a convolution that keeps the size of the maps."""
    return keras.layers.Conv2D(filters, size, padding="same", use_bias=False)


def seconds(*functions: Callable[[], object]) -> list[float]:
    """Measures functions in turns; returns the median time of each in seconds."""
    for function in functions:
        function()
    taken = [[] for _ in functions]
    for _ in range(TURNS):
        for function, times in zip(functions, taken, strict=True):
            began = time.perf_counter()
            function()
            times.append(time.perf_counter() - began)
    return [statistics.median(times) for times in taken]


def run(model: keras.Model, batch: int = 16) -> Callable[[], object]:
    """Returns a function to measure, which runs a network on random images."""
    images = tf.random.stateless_uniform([batch, *model.input_shape[1:]], [0, 0])
    call = tf.function(lambda: model(images, training=False), autograph=False)
    return lambda: tf.nest.map_structure(lambda y: y.numpy(), call())


def cheaper(cheap: keras.Model, dear: keras.Model) -> str:
    """Formats how many times cheaper a network is than another, counted and measured."""
    adds = [graphs.multiply_adds(model) for model in (cheap, dear)]
    times = seconds(run(cheap), run(dear))
    return (
        f"{adds[0] / 1e6:,.1f} against {adds[1] / 1e6:,.1f} million multiply-adds (1/"
        f"{adds[1] / adds[0]:.2f}); time 1/{times[1] / times[0]:.2f}"
    )


def separable() -> str:
    """MobileNet: 3 x 3 depthwise and 1 x 1 instead of 3 x 3."""
    depthwise = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)
    both = chain(14, 512, depthwise, conv(512, 1))
    return cheaper(both, chain(14, 512, conv(512, 3)))


def three_small() -> str:
    """VGG: three 3 x 3 instead of one 7 x 7."""
    small = [conv(128, 3) for _ in range(3)]
    return cheaper(chain(28, 128, *small), chain(28, 128, conv(128, 7)))


def bottleneck() -> str:
    """GoogLeNet: 1 x 1 to 16 channels before 5 x 5."""
    return cheaper(chain(28, 192, conv(16, 1), conv(32, 5)), chain(28, 192, conv(32, 5)))


def sizes() -> str:
    """LeNet-5 and AlexNet: number of parameters, and units of AlexNet's layers."""
    lenet, alexnet = (models.build(name, n) for name, n in (("lenet5", 10), ("alexnet", 1000)))
    units = sum(
        np.prod(layer.output.shape[1:])
        for layer in alexnet.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    )
    return (
        f"LeNet-5 {graphs.parameters(lenet.weights):,} parameters; AlexNet "
        f"{graphs.parameters(alexnet.weights):,} parameters, {units:,} units"
    )


def share() -> str:
    """AlexNet: share of the convolutions in its time and in its parameters."""
    whole = models.build("alexnet", 1000)
    last = whole.get_layer("pool5").output
    trunk = keras.Model(whole.input, last)
    kernels = [layer for layer in trunk.layers if isinstance(layer, keras.layers.Conv2D)]
    times = seconds(run(trunk), run(whole))
    adds = sum(map(graphs.layer_multiply_adds, kernels)) / graphs.multiply_adds(whole)
    weights = sum(graphs.parameters(layer.weights) for layer in kernels)
    return (
        f"{100 * times[0] / times[1]:.0f} % of the time of a forward pass of 16 images, "
        f"with pooling and normalisation; {100 * adds:.0f} % of the multiply-adds, "
        f"{100 * weights / graphs.parameters(whole.weights):.0f} % of the parameters"
    )


def sparse() -> str:
    """GoogLeNet: a product with a sparse matrix against a dense one of the same size."""
    random, lines = np.random.default_rng(0), []
    dense = random.normal(size=(1024, 1024)).astype(np.float32)
    columns = tf.constant(random.normal(size=(1024, 256)).astype(np.float32))
    for density in (0.5, 0.1, 0.01):
        kept = np.where(random.random(dense.shape) < density, dense, 0)
        matrix, full = tf.sparse.from_dense(kept), tf.constant(kept)
        times = seconds(
            lambda matrix=matrix: tf.sparse.sparse_dense_matmul(matrix, columns).numpy(),
            lambda full=full: tf.matmul(full, columns).numpy(),
        )
        lines.append(f"{100 * density:g} % kept: {times[0] / times[1]:.1f} x the time")
    return "; ".join(lines)


CLAIMS = {
    "separable convolution": separable,
    "three 3 x 3 for one 7 x 7": three_small,
    "1 x 1 before 5 x 5": bottleneck,
    "sizes": sizes,
    "convolutions' share": share,
    "sparse against dense": sparse,
}


def main() -> None:
    """Prints a line per claim."""
    console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False).parse_args()
    for name, claim in CLAIMS.items():
        print(f"{name}: {claim()}", flush=True)


if __name__ == "__main__":
    main()
