"""Trains on one device divided into logical ones: `... -m benchmarks.gpu.divided N MIB -- FLAGS`.

N logical GPUs of MIB memory each; without a GPU, N parts of the CPU. FLAGS are those of train.py,
which trains on each part as a replica. TensorFloat-32 is off, so that float32 is what it says.
"""

from unittest import mock

from runtime import console

with console.quiet_import():
    import tensorflow as tf

    import train
    from engine import devices


def divide(count: int, mebibytes: int) -> None:
    """Divides the first GPU, or else the CPU; must be called before the first operation."""
    gpus, cpus = (tf.config.list_physical_devices(kind) for kind in ("GPU", "CPU"))
    if gpus:
        tf.config.set_visible_devices(gpus[0], "GPU")
    part = tf.config.LogicalDeviceConfiguration(memory_limit=mebibytes if gpus else None)
    tf.config.set_logical_device_configuration((gpus or cpus)[0], [part] * count)
    tf.config.experimental.enable_tensor_float_32_execution(False)


def main(argv: list[str]) -> None:
    """Divides the device and trains."""
    program, count, mebibytes, _, *flags = argv
    divide(int(count), int(mebibytes))
    configure = devices.configure

    def without_growth(*arguments: object, **options: object) -> None:
        with mock.patch.object(tf.config.experimental, "set_memory_growth"):  # parts have limits
            configure(*arguments, **options)

    with mock.patch.object(devices, "configure", without_growth):
        train.main([program, *flags])


if __name__ == "__main__":
    console.run(main)
