"""Agreement between the workers of a cluster, before the training and after each call."""

import hashlib
import itertools

import tensorflow as tf

from engine import checkpoints, cluster, devices, rendezvous
from runtime import flags
from training.build import Setup
from training.recipe import Recipe, Running

_DIGITS = 12  # hex digits of a digest that float64 represents exactly


def join(
    recipe: Recipe, running: Running, workers: cluster.Cluster, precision: str
) -> tf.distribute.Strategy:
    """Configures TensorFlow and returns the distribution strategy, after all workers have met.

    Raises:
        PeerLost: If a worker is missing, or only some workers resume.
        ValueError: If workers were started differently, or devices are not available.
    """
    devices.configure(
        running.threads, running.log_device_placement, running.devices, recipe.deterministic
    )
    if remark := devices.unused():
        print(remark, flush=True)
    if workers.size > 1:
        _meet(recipe, running, workers, precision)
    strategy = workers.strategy() if workers.size > 1 else devices.make_strategy()
    if recipe.xla == "on" and strategy.num_replicas_in_sync > 1:
        raise ValueError(f"--xla=on expects one replica, received {strategy.num_replicas_in_sync}")
    return strategy


def _meet(recipe: Recipe, running: Running, workers: cluster.Cluster, precision: str) -> None:
    """Waits for all workers and checks that they were started with the same settings."""
    refuse(recipe, running, workers)
    own = flags.names(Recipe, Running, of_worker=True)
    values = flags.values(recipe, running).items()
    here = {
        "GPUs": len(tf.config.get_visible_devices("GPU")),
        "precision": devices.precision_here(precision),
    }
    word = {
        "flags": {name: value for name, value in values if name not in own},
        "versions": checkpoints.versions(),
        "devices": here,
    }
    compare(workers, rendezvous.meet(workers, word, running.cluster_timeout))


def refuse(recipe: Recipe, running: Running, workers: cluster.Cluster) -> None:
    """Raises ValueError if a flag is incompatible with several workers."""
    for name in sorted(flags.names(Running, alone=True)):
        value = getattr(running, name)
        if value is not None and value is not False:
            raise ValueError(f"--{name} is for one process, received {workers.size} workers")
    if not running.run_dir:
        raise ValueError("several workers expect --run_dir, the same for all")
    if recipe.micro_batch == "auto" and not running.resume:
        raise ValueError("several workers expect --micro_batch with a number, received auto")
    if running.devices not in ("all", "1") and not tf.config.list_physical_devices("GPU"):
        raise ValueError(
            f"--devices={running.devices} divides the CPU of one process, received "
            f"{workers.size} workers"
        )


def compare(workers: cluster.Cluster, words: list[dict]) -> None:
    """Checks that all workers were started with the same settings.

    Raises:
        PeerLost: If only some of them resume, because one was restarted before the others.
        ValueError: If any other setting differs.
    """
    for index, kind in itertools.product(range(1, workers.size), words[0]):
        for name, value in words[0][kind].items():
            other = words[index].get(kind, {}).get(name)
            if other == value:
                continue
            if name == "resume":
                raise cluster.PeerLost("not all workers were started with --resume: start again")
            raise ValueError(
                f"{workers.name(index)} has {name}={other}, {workers.name(0)} {name}={value}: "
                "expected the same"
            )


def slowest_and_signal(setup: Setup, seconds: float, received: int | None) -> tuple[float, int]:
    """Returns the slowest worker's duration and a signal that any worker has received.

    All workers act on the same result, so that all of them stop at the same step.

    Args:
        setup: Objects of the training.
        seconds: Duration of this worker's last call.
        received: Number of the signal that this worker has received, or None.

    Returns:
        The duration in seconds, and the signal's number, 0 for none.
    """
    mine = [seconds, received or 0]
    slowest, signal = setup.workers.gathered(setup.strategy, mine).max(axis=0)
    return float(slowest), int(signal)


def wait_for_all(setup: Setup) -> None:
    """Blocks until all workers have called it: none runs ahead, or exits while still needed."""
    setup.workers.gathered(setup.strategy, [0.0])


def check_weights(setup: Setup, folder: object) -> None:
    """Raises PeerLost if a worker's weights differ from the chief's."""
    if other := other_than_the_chief(setup, checkpoints.weights_digest(setup.model)):
        raise cluster.PeerLost(
            f"{other} goes on from other weights than the chief: start all of them again; "
            f"does {folder} show the same files to all?"
        )


def other_than_the_chief(setup: Setup, text: str) -> str | None:
    """Returns the name of a worker whose text differs from the chief's; all must call it."""
    mine = int(hashlib.sha256(text.encode()).hexdigest()[:_DIGITS], 16)
    (chiefs,), *others = setup.workers.gathered(setup.strategy, [mine])
    different = [index for index, (digest,) in enumerate(others, 1) if digest != chiefs]
    return setup.workers.name(different[0]) if different else None
