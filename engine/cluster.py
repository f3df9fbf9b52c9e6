"""The cluster: processes, on one machine or several, that train one network together.

Each process, called a worker, runs the same command and learns the addresses of all workers from
the environment: from TF_CONFIG, TensorFlow's convention, or from Slurm's variables. The first
worker is the chief.
"""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from runtime import console

_SLURM_PORTS = range(10_000, 30_000, 16)  # first ports; jobs on one machine get different ones
_CAUSE = re.compile(r"aborted by: (.*)")  # the cause within a message of many lines
_ERRORS = (  # raised by TensorFlow when another worker has ended
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)

_JOINING = 60  # timeout in seconds for TensorFlow to connect workers that have just met
# Kills a process unless stdin is closed within the given number of seconds.
_WATCH = """import os, select, signal, sys
seconds, process, line = sys.argv[1:]
if not select.select([sys.stdin], [], [], float(seconds))[0]:
    print(line, file=sys.stderr, flush=True)
    os.kill(int(process), signal.SIGKILL)
"""


class PeerLost(Exception):
    """Raised if another worker has ended or is missing: all must be started again."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a training and this worker's index among them.

    Attributes:
        workers: Address of each worker, HOST:PORT; the first is the chief's.
        index: Index of this worker.
    """

    workers: tuple[str, ...] = ("localhost:0",)
    index: int = 0

    @property
    def size(self) -> int:
        """Number of workers; 1 without a cluster."""
        return len(self.workers)

    @property
    def is_chief(self) -> bool:
        """Whether this worker is the chief, which writes the run folder."""
        return self.index == 0

    def name(self, index: int) -> str:
        """Returns a worker's name for messages, as in "worker 1 (node7:2222)"."""
        return f"worker {index} ({self.workers[index]})"

    def strategy(self) -> tf.distribute.Strategy:
        """Connects the workers through TensorFlow; must precede the first operation.

        The workers have met before (`rendezvous.meet`). If one has ended since, the others kill
        themselves by SIGKILL, because TensorFlow would wait for it and hold the GIL.
        """
        line = (
            f"error: worker {self.index} of {self.size}: another worker has ended; start all again"
        )
        with _by_default(*console.stop_signals()), _ended_after(_JOINING, line):
            return tf.distribute.MultiWorkerMirroredStrategy(self.resolver())

    def resolver(self) -> tf.distribute.cluster_resolver.ClusterResolver:
        """Describes the workers to TensorFlow; each is taken to have this one's number of GPUs."""
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(self.workers)}),
            task_type="worker",
            task_id=self.index,
            num_accelerators={"GPU": len(tf.config.get_visible_devices("GPU"))},
            rpc_layer="grpc",
        )

    def gathered(self, strategy: tf.distribute.Strategy, numbers: Sequence[float]) -> np.ndarray:
        """Gathers n numbers from each worker, float64 [workers, n]; all workers must call it."""
        rows = np.zeros([self.size, len(numbers)])
        rows[self.index] = numbers
        return summed(strategy, rows)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Converts the errors that TensorFlow raises when a worker has ended into `PeerLost`.

        Raises:
            PeerLost: If another worker has ended.
        """
        try:
            yield
        except _ERRORS as error:
            if self.size == 1:
                raise
            match = _CAUSE.search(error.message)
            cause = (match.group(1) if match else error.message.strip().partition("\n")[0]).rstrip(
                ":"
            )
            raise PeerLost(
                f"worker {self.index} of {self.size}: another worker has ended ({cause}); start "
                "all of them again, with --resume where the run has begun"
            ) from error


@contextlib.contextmanager
def _by_default(*signals: int) -> Iterator[None]:
    """Restores the default signal handlers for the duration of a `with` block.

    Python runs its own handlers only after TensorFlow's blocking call returns.
    """
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ended_after(seconds: float, line: str) -> Iterator[None]:
    """Prints a line and kills this process if the body takes longer than `seconds`."""
    command = [sys.executable, "-S", "-c", _WATCH, str(seconds), str(os.getpid()), line]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as watch:
        try:
            yield
        finally:
            watch.stdin.close()


def summed(strategy: tf.distribute.Strategy, array: np.ndarray) -> np.ndarray:
    """Sums arrays of equal shape and dtype over all workers; all workers must call it."""
    replicas = strategy.num_replicas_in_sync
    local = 1 if replicas == 1 else len(strategy.extended.worker_devices)
    if local == replicas:
        return array
    parts = iter([array, *[np.zeros_like(array)] * (local - 1)])
    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(next(parts))
    )
    return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()


def from_environment() -> Cluster:
    """Reads the cluster from TF_CONFIG or from Slurm (`srun`); without both, returns this process.

    Raises:
        ValueError: If TF_CONFIG does not have TensorFlow's documented form.
    """
    if os.environ.get("TF_CONFIG"):
        return _from_tf_config(os.environ["TF_CONFIG"])
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return _from_slurm()
    return Cluster()


def _from_tf_config(text: str) -> Cluster:
    expected = (
        'TF_CONFIG expects {"cluster": {"worker": ["HOST:PORT", ...]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        workers = [address for job in ("chief", "worker") for address in jobs.get(job, [])]
        offsets = {"chief": 0, "worker": len(jobs.get("chief", []))}
        index = offsets[task["type"]] + int(task["index"])
        hosts = {address.rpartition(":")[0] for address in workers}
        ports = [int(address.rpartition(":")[2]) for address in workers]
        own_address = jobs[task["type"]][int(task["index"])]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{expected}, received {text} ({error!r})") from None
    if set(jobs) - {"chief", "worker"} or not all(hosts) or not all(0 < p < 1 << 16 for p in ports):
        raise ValueError(f"{expected}, or with one chief beside the workers, received {text}")
    if len(set(workers)) < len(workers) or not 0 <= index < len(workers) or offsets["worker"] > 1:
        raise ValueError(f"{expected}, every address once and one chief, received {text}")
    if workers[index] != own_address:
        raise ValueError(f"{expected}, received {text}")
    return Cluster(tuple(workers), index)


def _from_slurm() -> Cluster:
    """Reads the tasks of a Slurm job step; binding GPUs to tasks is left to Slurm.

    TensorFlow's resolver sorts the machines by name, whereas Slurm numbers the tasks in its own
    order, so a worker identifies itself by its machine's name and its local task number.
    """
    first = _SLURM_PORTS[int(os.environ.get("SLURM_JOB_ID", 0)) % len(_SLURM_PORTS)]
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=first, gpus_per_node=1 << 16, gpus_per_task=1, auto_set_gpu=False
    )
    workers = resolver.cluster_spec().job_tasks("worker")
    host, local_id = (os.environ.get(name) for name in ("SLURMD_NODENAME", "SLURM_LOCALID"))
    address = f"{host}:{first + int(local_id or 0)}"
    if address not in workers:
        raise ValueError(
            f"Slurm's tasks are at {', '.join(workers)}: expected this one, SLURMD_NODENAME={host} "
            f"SLURM_LOCALID={local_id}, among them"
        )
    return Cluster(tuple(workers), workers.index(address))
