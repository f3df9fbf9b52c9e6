"""Devices, threads, replicas and precision."""

import os
from pathlib import Path

import keras
import tensorflow as tf

_DRIVER = Path("/proc/driver/nvidia/gpus")  # has a folder for each of them
_PROCESSOR = Path("/proc/cpuinfo")

PRECISIONS = ("auto", "float32", "mixed_bfloat16")


def configure(threads: int, log_placement: bool = False, devices: str = "all") -> None:
    """Sets what TensorFlow uses; thread counts are part of what makes runs bit-identical.

    Call it before the first operation; in a process whose threads are running already it raises.

    Args:
        threads: Threads within one operation, and operations at a time.
        log_placement: Whether TensorFlow prints the device of every operation.
        devices: "all"; a number of GPUs, or without one of parts of the CPU, each a replica; or
            the numbers of GPUs, from 0, as in "0,2" ("2," for one).

    Raises:
        ValueError: If there are no such devices.
        RuntimeError: If TensorFlow has started already.
    """
    _use(devices)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.debugging.set_log_device_placement(log_placement)
    for gpu in tf.config.get_visible_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def _use(devices: str) -> None:
    """Makes some GPUs visible, or divides the CPU."""
    gpus, cpus = (tf.config.list_physical_devices(kind) for kind in ("GPU", "CPU"))
    if devices == "all":
        return
    try:
        numbers = [int(part) for part in devices.removesuffix(",").split(",")]
    except ValueError:
        numbers = [-1]
    wanted = numbers if "," in devices else list(range(numbers[0]))
    if not wanted or min(wanted) < 0 or len(set(wanted)) < len(wanted):
        raise ValueError(f"--devices expects all, a number or GPUs as in 0,2, received {devices}")
    if not gpus and "," not in devices:
        parts = [tf.config.LogicalDeviceConfiguration()] * len(wanted)
        return tf.config.set_logical_device_configuration(cpus[0], parts)
    if max(wanted) >= len(gpus):
        raise ValueError(f"--devices={devices}, but TensorFlow finds {len(gpus)} GPUs here")
    tf.config.set_visible_devices([gpus[number] for number in wanted], "GPU")


def unused() -> str | None:
    """What to say of GPUs of this machine that are not used; None where all are."""
    found, used = tf.config.list_physical_devices("GPU"), tf.config.get_visible_devices("GPU")
    if len(used) < len(found):
        left = len(found) - len(used)
        return f"{left} of {len(found)} GPUs are not used: --devices=all uses them"
    known = len(list(_DRIVER.glob("*")))
    if known > len(found) and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return (
            f"{known} GPUs are not used: TensorFlow finds {len(found)}; "
            f'try pip install "tensorflow[and-cuda]=={tf.__version__}"'
        )
    return None


def make_strategy() -> tf.distribute.Strategy:
    """All visible GPUs, each a replica; without one, the CPU's logical devices (usually one)."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1 and devices[0].device_type == "CPU":
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def set_precision(precision: str, *, training: bool = True) -> str:
    """Sets the global precision and returns its name; arguments as of `precision_here`."""
    precision = precision_here(precision, training=training)
    keras.config.set_dtype_policy(precision)
    return precision


def precision_here(precision: str, *, training: bool = True) -> str:
    """What one of `PRECISIONS` is on these devices.

    `auto` is mixed_bfloat16 where they multiply bfloat16 numbers, else float32. A processor tests
    and classifies in float32, as what export.py makes of a network does.

    Args:
        precision: One of `PRECISIONS`.
        training: Whether a network is trained.
    """
    if precision != "auto":
        return precision
    gpus = tf.config.get_visible_devices("GPU")
    if gpus:
        fast = all(map(_gpu_has_bfloat16, gpus))
    else:
        fast = training and _processor_has_bfloat16()
    return "mixed_bfloat16" if fast else "float32"


def _gpu_has_bfloat16(gpu):
    """Whether it has tensor cores for it: compute capability 8.0."""
    details = tf.config.experimental.get_device_details(gpu)
    return details.get("compute_capability", (0, 0)) >= (8, 0)


def _processor_has_bfloat16():
    """Whether oneDNN's kernels are used and have instructions for it, of which AVX-512 is one set.

    On 2 cores that have them (Zen 5) AlexNet and ResNet-50 trained 1.6 times as fast as in float32,
    ResNet-20 1.5 times; on 2 cores that have none ResNet-20 is 30 times slower.
    """
    used = os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"
    return used and _PROCESSOR.exists() and "avx512_bf16" in _PROCESSOR.read_text().split()


def compiles(xla: str, strategy: tf.distribute.Strategy) -> bool:
    """Whether XLA compiles the training step; on processors its convolutions are slower.

    Args:
        xla: "on", "off", or "auto": where one GPU trains.
        strategy: Over whose replicas; several meet in BatchNorm, which XLA cannot compile.
    """
    gpu = bool(tf.config.list_logical_devices("GPU"))
    return xla == "on" or xla == "auto" and gpu and strategy.num_replicas_in_sync == 1


def describe(strategy: tf.distribute.Strategy, threads: int, workers: int = 1) -> dict:
    """What bit-identical results depend on besides versions, as JSON values.

    Args:
        strategy: Over whose replicas is trained.
        threads: Of a process.
        workers: Processes.
    """
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.get_visible_devices("GPU")
    ]
    return {
        "devices": gpus or ["CPU"],
        "replicas": strategy.num_replicas_in_sync,
        "threads": threads,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        **({"workers": workers} if workers > 1 else {}),
    }
