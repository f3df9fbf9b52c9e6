"""Devices, threads, replicas and precision."""

import os
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

_DRIVER = Path("/proc/driver/nvidia/gpus")  # has a folder per GPU
_PROCESSOR = Path("/proc/cpuinfo")

PREFETCHED = 2  # batches that wait in a GPU's memory
PRECISIONS = ("auto", "float32", "mixed_bfloat16")


def configure(
    threads: int, log_placement: bool = False, devices: str = "all", deterministic: str = "off"
) -> None:
    """Sets TensorFlow's threads and devices; bit-identical runs need equal thread counts.

    Must be called before the first operation.

    Args:
        threads: Threads within an operation, and operations run in parallel.
        log_placement: Whether TensorFlow prints the device of each operation.
        devices: "all"; the number of GPUs to use, or of parts of the CPU if there is no GPU, each
            a replica; or indices of GPUs from 0, as in "0,2" ("2," for a single one).
        deterministic: See `is_deterministic`.

    Raises:
        ValueError: If the devices do not exist.
        RuntimeError: If TensorFlow has started already.
    """
    _use(devices)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.debugging.set_log_device_placement(log_placement)
    for gpu in tf.config.get_visible_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    if is_deterministic(deterministic):
        tf.config.experimental.enable_op_determinism()


def _use(devices: str) -> None:
    """Restricts the visible GPUs, or divides the CPU into logical devices."""
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
    """Returns a remark about unused GPUs of this machine; None if all are used."""
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


def is_deterministic(choice: str) -> bool:
    """Whether TensorFlow is restricted to deterministic kernels; on a CPU, ours always are.

    Args:
        choice: "on", "off", or "auto" for on with GPUs only.
    """
    return choice == "on" or choice == "auto" and bool(tf.config.get_visible_devices("GPU"))


def is_exact(choice: str) -> bool:
    """Whether equal runs have equal weights, bit for bit.

    Args:
        choice: See `is_deterministic`.
    """
    return not tf.config.get_visible_devices("GPU") or is_deterministic(choice)


def make_strategy() -> tf.distribute.Strategy:
    """Returns a strategy with one replica per visible GPU, or else per logical CPU device."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def prefetched(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Copies batches to the one GPU ahead of their use; does nothing where there is none."""
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        return batches
    return batches.apply(tf.data.experimental.prefetch_to_device(gpus[0].name, PREFETCHED))


def set_precision(precision: str, *, training: bool = True) -> str:
    """Sets the global dtype policy and returns its name; arguments as for `precision_here`."""
    precision = precision_here(precision, training=training)
    keras.config.set_dtype_policy(precision)
    return precision


def precision_here(precision: str, *, training: bool = True) -> str:
    """Resolves the precision "auto" for the visible devices.

    "auto" is mixed_bfloat16 if the hardware multiplies bfloat16 numbers, else float32. Inference
    on a CPU is always float32, like the exported network.

    Args:
        precision: One of `PRECISIONS`.
        training: Whether the network is trained.
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
    """Whether a GPU has bfloat16 tensor cores: compute capability 8.0 or higher."""
    details = tf.config.experimental.get_device_details(gpu)
    return details.get("compute_capability", (0, 0)) >= (8, 0)


def _processor_has_bfloat16():
    """Whether oneDNN is enabled and the CPU has bfloat16 instructions (AVX-512).

    On 2 cores with them (Zen 5), AlexNet and ResNet-50 train 1.6 times as fast as in float32,
    ResNet-20 1.5 times; on 2 cores without them, ResNet-20 is 30 times slower.
    """
    used = os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"
    return used and _PROCESSOR.exists() and "avx512_bf16" in _PROCESSOR.read_text().split()


def compiles(xla: str, strategy: tf.distribute.Strategy) -> bool:
    """Whether XLA compiles the training step; on CPUs its convolutions are slower.

    Args:
        xla: "on", "off", or "auto" for on with a single GPU only.
        strategy: Distribution strategy; XLA cannot compile BatchNorm synchronised over replicas.
    """
    gpu = bool(tf.config.list_logical_devices("GPU"))
    return xla == "on" or xla == "auto" and gpu and strategy.num_replicas_in_sync == 1


def compiled(function: Callable) -> Callable:
    """Compiles a function of tensors with XLA."""
    return tf.function(function, autograph=False, jit_compile=True)


def describe(
    strategy: tf.distribute.Strategy, threads: int, workers: int = 1, deterministic: str = "auto"
) -> dict:
    """Describes the devices and threads that bit-identical results depend on, as JSON values.

    Args:
        strategy: Distribution strategy over the replicas.
        threads: Threads per process.
        workers: Number of processes.
        deterministic: See `is_deterministic`.
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
        **({} if is_exact(deterministic) else {"exact": False}),
    }
