"""Compares convolution as a matrix product (im2col), forward and backward, with TensorFlow's.

    python benchmarks/convolution.py

As described by Chellapilla, Puri and Simard (2006) and implemented in Caffe, patches become rows
and kernels columns of matrices. The gradients are products too: transposed patches times the
output's gradient give the kernel's; the output's gradient times the transposed kernel gives that of
the patches, which is summed where patches overlap. Prints the largest difference of each, relative
to the largest value.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console

with console.quiet_import():
    import numpy as np
    import tensorflow as tf

# batch, side, channels, filters, kernel, stride, padding
CASES = {
    "3 x 3": (4, 14, 8, 16, 3, 1, 1),
    "5 x 5, stride 2": (4, 15, 3, 8, 5, 2, 0),
    "1 x 1": (4, 14, 32, 8, 1, 1, 0),
    "AlexNet's first": (2, 227, 3, 96, 11, 4, 0),
}


def patches(images: np.ndarray, size: int, stride: int, padding: int) -> np.ndarray:
    """Extracts the patches of images [B, H, W, C] as rows, [B, H', W', size * size * C]."""
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images, border)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    windows = windows[:, ::stride, ::stride].transpose([0, 1, 2, 4, 5, 3])
    return windows.reshape([*windows.shape[:3], -1])


def added_up(rows: np.ndarray, shape: tuple, size: int, stride: int, padding: int) -> np.ndarray:
    """Returns images of `shape` from the rows of `patches`, summed where patches overlap."""
    batch, height, width, channels = shape
    padded = np.zeros((batch, height + 2 * padding, width + 2 * padding, channels), rows.dtype)
    rows = rows.reshape([*rows.shape[:3], size, size, channels])
    down, right = rows.shape[1:3]
    for y in range(size):
        for x in range(size):
            places = padded[:, y : y + stride * down : stride, x : x + stride * right : stride]
            places += rows[:, :, :, y, x]
    return padded[:, padding : padding + height, padding : padding + width]


def forward(images: np.ndarray, kernel: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Convolves images [B, H, W, C] with a kernel [k, k, C, F] to maps [B, H', W', F]."""
    size, filters = kernel.shape[0], kernel.shape[-1]
    return patches(images, size, stride, padding) @ kernel.reshape([-1, filters])


def backward(
    images: np.ndarray, kernel: np.ndarray, gradient: np.ndarray, stride: int, padding: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gradients of images and kernel, given the output's gradient [B, H', W', F]."""
    size, filters = kernel.shape[0], kernel.shape[-1]
    rows = patches(images, size, stride, padding)
    of_kernel = rows.reshape([-1, rows.shape[-1]]).T @ gradient.reshape([-1, filters])
    of_rows = gradient @ kernel.reshape([-1, filters]).T
    of_images = added_up(of_rows, images.shape, size, stride, padding)
    return of_images, of_kernel.reshape(kernel.shape)


def differences(case: tuple) -> dict[str, float]:
    """Returns the largest differences from TensorFlow, relative to the largest value."""
    batch, side, channels, filters, size, stride, padding = case
    random = np.random.default_rng(0)
    images = random.normal(size=(batch, side, side, channels)).astype(np.float32)
    kernel = random.normal(size=(size, size, channels, filters)).astype(np.float32)
    x, w = tf.constant(images), tf.constant(kernel)
    border = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        theirs = tf.nn.conv2d(tf.pad(x, border), w, stride, "VALID")
        weights = random.normal(size=theirs.shape).astype(np.float32)
        total = tf.reduce_sum(theirs * weights)
    ours = (
        forward(images, kernel, stride, padding),
        *backward(images, kernel, weights, stride, padding),
    )
    pairs = zip(ours, (theirs, *tape.gradient(total, [x, w])), strict=True)
    names = ("result", "gradient of the images", "gradient of the kernel")
    return {
        name: float(np.abs(mine - other).max() / np.abs(other).max())
        for name, (mine, other) in zip(names, pairs, strict=True)
    }


def main() -> None:
    """Prints a line per case."""
    console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False).parse_args()
    for name, case in CASES.items():
        found = ", ".join(f"{what} {value:.1e}" for what, value in differences(case).items())
        print(f"{name}: {found}")


if __name__ == "__main__":
    main()
