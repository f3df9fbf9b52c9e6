"""The shared layers against Keras, TensorFlow's own kernels and published vectors."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from models import layers, ops, pools

RANDOM = np.random.default_rng(0)


def gradients(function, *inputs):
    """Values, and the gradients of their sum under random weights: a plain sum may hide errors."""
    inputs = [tf.convert_to_tensor(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
        weights = np.random.default_rng(1).normal(size=outputs.shape)
        total = tf.reduce_sum(tf.cast(outputs, "float32") * weights.astype("float32"))
    return [outputs, *tape.gradient(total, inputs)]


def normal(*shape, scale=1.0):
    return (scale * RANDOM.normal(size=shape)).astype("float32")


@pytest.mark.parametrize(
    ("options", "scale", "expected"),
    [
        (
            {},
            1,
            [0.594292, 1.187871, 1.780140, 2.370419, 2.958055, 3.542412, 4.135271, 4.730422],
        ),
        (
            {"bias": 1.0, "alpha": 2e-5},
            1,
            [0.999790, 1.999100, 2.997527, 3.994608, 4.989899, 5.982957, 6.981785, 7.982166],
        ),
        (
            {"bias": 2.0, "alpha": 2e-5},
            1,
            [0.594541, 1.188940, 1.783075, 2.376810, 2.970011, 3.562546, 4.156801, 4.751520],
        ),
        (
            {},
            50,
            [
                13.921883,
                18.480227,
                18.972774,
                18.161655,
                17.099483,
                16.075606,
                19.978344,
                25.508225,
            ],
        ),
    ],
    ids=["paper", "caffe", "cuda-convnet2", "paper, large"],
)
def test_local_response_norm_vectors(options, scale, expected):
    x = scale * np.arange(1, 9, dtype="float32").reshape(1, 1, 1, 8)
    result = layers.LocalResponseNorm(**options)(x)
    np.testing.assert_allclose(np.ravel(result), expected, rtol=2e-6, atol=0)


def test_local_response_norm_gradients():
    x = normal(2, 3, 3, 12, scale=100)
    ours = gradients(layers.LocalResponseNorm(), x)
    theirs = gradients(lambda x: tf.nn.lrn(x, depth_radius=2, bias=2, alpha=1e-4, beta=0.75), x)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_local_response_norm_sums_in_float32():
    x = normal(2, 3, 3, 12, scale=100).astype(tf.bfloat16.as_numpy_dtype)
    mixed = layers.LocalResponseNorm(dtype="mixed_bfloat16")(x)
    assert mixed.dtype == tf.bfloat16
    exact = layers.LocalResponseNorm()(tf.cast(x, tf.float32))
    np.testing.assert_array_equal(mixed, tf.cast(exact, tf.bfloat16))


def batch_norm_pair(shape, **options):
    """Our layer and Keras', with the same random weights and statistics."""
    pair = [
        layers.BatchNorm(**options),
        keras.layers.BatchNormalization(**{"momentum": 0.9, "epsilon": 1e-5} | options),
    ]
    for layer in pair:
        layer.build(shape)
    weights = [np.abs(normal(*w.shape)) + 0.5 for w in pair[0].weights]
    for layer in pair:
        layer.set_weights(weights)
    return pair


def run_batch_norm(layer, x, training):
    """Output, the gradients of x, gamma and beta, and the moving statistics afterwards."""
    x = tf.convert_to_tensor(x)
    sources = [x, *(v.value for v in layer.trainable_variables)]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        total = tf.reduce_sum(tf.cast(y, "float32") * np.random.default_rng(1).normal(size=x.shape))
    return [y, *tape.gradient(total, sources), layer.moving_mean, layer.moving_variance]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 4, 5, 6), {}),
        ((2, 1, 1, 6), {"momentum": 0.7, "epsilon": 1e-3}),
        ((3, 4, 5, 6), {"scale": False}),
        ((3, 4, 5, 6), {"center": False}),
        ((8, 6), {}),
    ],
    ids=["maps", "two values", "no gamma", "no beta", "vectors"],
)
def test_batch_norm_equals_keras(shape, options, training):
    ours, theirs = batch_norm_pair(shape, **options)
    x = normal(*shape, scale=2) + 1
    for a, b in zip(
        run_batch_norm(ours, x, training), run_batch_norm(theirs, x, training), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_batch_norm_goes_through_the_fused_kernel():
    layer = layers.BatchNorm()
    layer.build((None, 4, 4, 3))
    graph = tf.function(lambda x: layer(x, training=True), autograph=False)
    concrete = graph.get_concrete_function(tf.TensorSpec([None, 4, 4, 3]))
    assert "FusedBatchNormV3" in {op.type for op in concrete.graph.get_operations()}


def test_frozen_batch_norm_keeps_its_statistics():
    layer, _ = batch_norm_pair((2, 4, 4, 3))
    layer.trainable = False
    before = [w.numpy() for w in layer.weights]
    layer(normal(2, 4, 4, 3), training=True)
    for a, b in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_batch_norm_under_mixed_precision():
    ours, theirs = batch_norm_pair((4, 5, 5, 3), dtype="mixed_bfloat16")
    x = tf.cast(normal(4, 5, 5, 3), tf.bfloat16)
    results = run_batch_norm(ours, x, True), run_batch_norm(theirs, x, True)
    assert results[0][0].dtype == tf.bfloat16
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(
            tf.cast(a, "float32"), tf.cast(b, "float32"), rtol=0.02, atol=0.1
        )


@pytest.mark.parametrize("way", ["grouped kernel", "split"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("groups", [2, 8])
def test_grouped_convolution(way, groups, dtype, monkeypatch):
    if way == "split":
        monkeypatch.setattr(layers, "_grouped_kernels_run", lambda dtype: False)
    elif not layers._grouped_kernels_run(dtype):
        pytest.skip("TensorFlow has no grouped kernels here")
    image = tf.cast(normal(2, 9, 9, 16), dtype)
    layer = layers.GroupedConv2D(24, 3, strides=2, groups=groups, dtype=dtype)
    layer.build(image.shape)
    assert layer.kernel.shape == (3, 3, 16 // groups, 24)

    def reference(image, kernel):
        pairs = zip(tf.split(image, groups, -1), tf.split(kernel, groups, -1), strict=True)
        return tf.concat([tf.nn.conv2d(*pair, 2, "VALID") for pair in pairs], -1)

    sources = image, tf.convert_to_tensor(layer.kernel)
    ours = gradients(tf.function(layer.convolution_op, autograph=False), *sources)
    tolerance = 1e-5 if dtype == "float32" else 0.05
    for a, b in zip(ours, gradients(reference, *sources), strict=True):
        a, b = tf.cast(a, "float32"), tf.cast(b, "float32")
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=10 * tolerance)
    np.testing.assert_array_equal(layer(image), ours[0])


def test_conv_with_groups_takes_the_fast_path():
    model_input = keras.Input((9, 9, 4))
    result = ops.conv(model_input, 4, 3, groups=2, name="conv")
    assert isinstance(keras.Model(model_input, result).get_layer("conv"), layers.GroupedConv2D)


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(3, 2, 1), (7, 2, 3), (3, 1, 1), (5, 1, 0)]
)
def test_conv_pads_symmetrically(size, stride, padding):
    images = keras.Input((16, 16, 3))
    model = keras.Model(
        images, ops.conv(images, 4, size, stride=stride, padding=padding, name="conv")
    )
    x, sides = normal(2, 16, 16, 3), [padding, padding]
    expected = tf.nn.conv2d(
        x, model.get_layer("conv").kernel, stride, [[0, 0], sides, sides, [0, 0]]
    )
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


def pooled(x, *arguments, **options):
    images = keras.Input(x.shape[1:])
    return keras.Model(images, pools.pool(images, *arguments, **options, name="pool"))(x)


@pytest.mark.parametrize("size, stride", [(2, 2), (3, 2), (2, 3), (3, 1)])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("length", [7, 8])
def test_max_pool_is_the_same_where_xla_compiles_it(size, stride, padding, length):
    """With many equal numbers, whose gradient goes to the first."""
    layer = layers.MaxPool(size, stride, padding=padding)
    x = RANDOM.integers(0, 3, (2, length, length + 1, 3)).astype("float32")
    compiled = tf.function(gradients, jit_compile=True, autograph=False)(layer, x)
    for mine, theirs in zip(compiled, gradients(layer, x), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    graph = compiled_graph(layer, x.shape)
    assert "select-and-scatter" not in graph and "reduce-window" not in graph


def compiled_graph(layer, shape):
    """XLA's program for the gradient of a layer."""

    @tf.function(jit_compile=True, autograph=False)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(tf.square(layer(x)))
        return tape.gradient(total, x)

    return gradient.experimental_get_compiler_ir(tf.zeros(shape))(stage="hlo")


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("compiled", [False, True])
def test_subsampling_takes_every_pixel_of_a_grid(stride, compiled):
    x = normal(2, 7, 8, 3)
    taken = functools.partial(pools.subsample, stride=stride)
    step = tf.function(gradients, jit_compile=compiled, autograph=False)
    sliced = gradients(lambda x: x[:, ::stride, ::stride], x)
    for mine, theirs in zip(step(taken, x), sliced, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kind", ["gelu", "silu"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_smooth_activations_are_those_of_keras(kind, policy):
    layer = layers.SmoothActivation(kind, dtype=policy)
    x = keras.ops.cast(normal(2, 5, 5, 3, scale=3.0), layer.compute_dtype)
    mine = gradients(functools.partial(layer, training=True), x)
    theirs = gradients(keras.layers.Activation(kind), keras.ops.cast(x, "float32"))
    tolerance = 1e-6 if policy == "float32" else 1e-2
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(
            keras.ops.cast(one, "float32"), other, rtol=tolerance, atol=3 * tolerance
        )
    np.testing.assert_array_equal(layer(x), keras.layers.Activation(kind, dtype=policy)(x))


@pytest.mark.parametrize("n", [12, 13])
def test_pool_rounds_up_as_caffe_does(n):
    x = np.abs(normal(1, n, n, 1))
    full = np.pad(x, ((0, 0), (0, n % 2 == 0), (0, n % 2 == 0), (0, 0)), constant_values=-np.inf)
    np.testing.assert_array_equal(pooled(x, 3, 2, ceil=True), tf.nn.max_pool2d(full, 3, 2, "VALID"))
    assert pooled(x, 3, 2).shape[1] == (n - 3) // 2 + 1


def test_pool_with_padding_is_centred_as_in_torch():
    x = np.abs(normal(1, 8, 8, 1))
    full = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    np.testing.assert_array_equal(pooled(x, 3, 2, padding=1), tf.nn.max_pool2d(full, 3, 2, "VALID"))


def test_average_pool():
    x = normal(1, 4, 4, 1)
    np.testing.assert_allclose(
        pooled(x, 2, 2, kind="average"), tf.nn.avg_pool2d(x, 2, 2, "VALID"), rtol=1e-6
    )
    with pytest.raises(ValueError, match="unknown pooling, expected one of max, average, received"):
        pooled(x, 2, 2, kind="median")


@pytest.mark.parametrize("side", [6, 7])
def test_centred_maxima_ignore_the_border(side):
    maps = -np.arange(1, side * side + 1, dtype=np.float32).reshape(1, side, side, 1)
    x = keras.Input((side, side, 1))
    received = keras.Model(x, pools.centred_max(x, name="pool"))(maps)
    padded = np.pad(maps[0, :, :, 0], 1, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))[::2, ::2]
    np.testing.assert_array_equal(received[0, :, :, 0], windows.max(axis=(2, 3)))


def test_a_preactivated_stem_that_pools_first_is_right_for_negative_scales():
    options = {"activated": True, "pool_first": True, "depths": (1,)}
    model = models.build("preresnet50", 2, image_size=32, **options)
    norm = model.get_layer("stem_norm")
    norm.gamma.assign(-norm.gamma)
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype("float32")
    names = ("stem_conv", "stem_relu")
    maps, received = keras.Model(model.input, [model.get_layer(n).output for n in names])(images)
    padded = np.pad(maps[0], [(1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))[::2, ::2]
    expected = np.maximum(-windows.max(axis=(3, 4)) / np.sqrt(1 + norm.epsilon), 0)
    assert (expected > 0).any()
    np.testing.assert_allclose(received[0], expected, rtol=1e-5, atol=1e-6)
