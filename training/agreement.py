"""What the processes that train together agree on, before the training and step by step."""

import hashlib
import itertools

import tensorflow as tf

from engine import checkpoints, cluster, devices, rendezvous
from runtime import flags
from training.build import Setup
from training.recipe import Recipe, Running

_DIGITS = 12  # hexadecimal ones of a digest that a float64 can hold


def join(
    recipe: Recipe, running: Running, workers: cluster.Cluster, precision: str
) -> tf.distribute.Strategy:
    """Starts TensorFlow, in all processes that train together once all are there.

    Raises:
        PeerLost: If one does not come, or takes up another moment of the run.
        ValueError: If they were not started alike, or devices are wrong.
    """
    devices.configure(running.threads, running.log_device_placement, running.devices)
    if remark := devices.unused():
        print(remark, flush=True)
    if workers.size > 1:
        _meet(recipe, running, workers, precision)
    strategy = workers.strategy() if workers.size > 1 else devices.make_strategy()
    if recipe.xla == "on" and strategy.num_replicas_in_sync > 1:
        raise ValueError(f"--xla=on expects one replica, received {strategy.num_replicas_in_sync}")
    return strategy


def _meet(recipe: Recipe, running: Running, workers: cluster.Cluster, precision: str) -> None:
    """Waits until all workers are there, and finds out whether they were started alike."""
    refuse(recipe, running, workers)
    own = flags.names(Recipe, Running, of_worker=True)
    values = (vars(recipe) | vars(running)).items()
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
    """Raises ValueError for flags that do not go together with several workers."""
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
    """Finds differences between what the workers were started with.

    Raises:
        PeerLost: If only some go on with a run: one was started again when others were not yet.
        ValueError: If there is another difference.
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
    """How long the slowest worker took, and the signal that stops all: one that any has received.

    Looked at once: who stops has saved.

    Args:
        setup: What the training works with.
        seconds: Time that this worker took.
        received: The signal that it has received; None for none.

    Returns:
        Seconds, and the signal's number; 0 for none.
    """
    mine = [seconds, received or 0]
    slowest, signal = setup.workers.gathered(setup.strategy, mine).max(axis=0)
    return float(slowest), int(signal)


def wait_for_all(setup: Setup) -> None:
    """Lets no worker go on alone, or end while another one needs it."""
    setup.workers.gathered(setup.strategy, [0.0])


def check_weights(setup: Setup, folder: object) -> None:
    """Raises PeerLost if another worker has other weights than the chief."""
    if other := other_than_the_chief(setup, checkpoints.weights_digest(setup.model)):
        raise cluster.PeerLost(
            f"{other} goes on from other weights than the chief: start all of them again; "
            f"does {folder} show the same files to all?"
        )


def other_than_the_chief(setup: Setup, text: str) -> str | None:
    """The name of a worker that has another text; all must call it."""
    mine = int(hashlib.sha256(text.encode()).hexdigest()[:_DIGITS], 16)
    (chiefs,), *others = setup.workers.gathered(setup.strategy, [mine])
    different = [index for index, (digest,) in enumerate(others, 1) if digest != chiefs]
    return setup.workers.name(different[0]) if different else None
