"""Devices, threads, replicas and precision."""

import os

import keras
import tensorflow as tf

PRECISIONS = ("auto", "float32", "mixed_bfloat16")


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def configure(threads: int, log_placement: bool = False) -> None:
    """Sets TensorFlow's thread counts; they are part of what makes runs bit-identical.

    Call it before the first operation; in a process whose threads are running already it raises.

    Args:
        threads: Threads within one operation, and operations at a time.
        log_placement: Whether TensorFlow prints the device of every operation.

    Raises:
        RuntimeError: If TensorFlow has started already.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.debugging.set_log_device_placement(log_placement)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def make_strategy() -> tf.distribute.Strategy:
    """All visible GPUs, each a replica; without one, the CPU's logical devices (usually one)."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1 and devices[0].device_type == "CPU":
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def set_precision(precision: str) -> str:
    """Sets the global precision and returns its name.

    `auto` is mixed_bfloat16 where every GPU has bfloat16 tensor cores (compute capability 8.0),
    else float32.

    Args:
        precision: One of `PRECISIONS`.
    """
    if precision == "auto":
        gpus = tf.config.list_physical_devices("GPU")
        capabilities = [
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
            for gpu in gpus
        ]
        fast = bool(gpus) and min(capabilities) >= (8, 0)
        precision = "mixed_bfloat16" if fast else "float32"
    keras.config.set_dtype_policy(precision)
    return precision


def describe(strategy: tf.distribute.Strategy, threads: int) -> dict:
    """What bit-identical results depend on besides versions, as JSON values."""
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "devices": gpus or ["CPU"],
        "replicas": strategy.num_replicas_in_sync,
        "threads": threads,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
    }
