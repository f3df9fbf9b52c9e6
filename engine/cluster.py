"""Several processes, on one machine or many, that train one network: who they are, how they meet.

Every one of them, a worker, runs the same command. Who the others are stands in its environment:
in TF_CONFIG, TensorFlow's convention, or in what Slurm sets. The first is the chief. TensorFlow
itself waits for a missing worker without a word, and no signal ends that; so the workers meet at
the chief's address before TensorFlow joins them, and compare what they are about to do.
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

import numpy as np
import tensorflow as tf

_MOST_BYTES = 1 << 20  # of what a worker says when it comes
_PATIENCE = 5.0  # seconds for a worker that is there to say something
_RETRY = 0.2
_QUIET, _REPEAT = 2.0, 30.0  # seconds before a worker says for whom it waits, and says it again
_SLURM_PORTS = range(10_000, 30_000)  # jobs that share a machine have different ones
_CAUSE = re.compile(r"aborted by: (.*)")  # in a message of many lines
_ERRORS = (  # what TensorFlow raises when another worker is gone
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)

Say = Callable[[str], object]


class PeerLost(Exception):
    """Another worker has ended, or did not come: all have to be started again."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a training, as one of them sees them.

    Attributes:
        workers: Address of each, HOST:PORT; the first is the chief's.
        index: Which one this is.
    """

    workers: tuple[str, ...] = ("localhost:0",)
    index: int = 0

    @property
    def size(self) -> int:
        """How many workers there are; 1 where nothing was said of others."""
        return len(self.workers)

    @property
    def is_chief(self) -> bool:
        """Whether this one writes the run folder."""
        return self.index == 0

    def name(self, index: int) -> str:
        """As in "worker 1 (node7:2222)"."""
        return f"worker {index} ({self.workers[index]})"

    def strategy(self, timeout: float) -> tf.distribute.Strategy:
        """Joins the workers, which have met, through TensorFlow; no operation may have run before.

        Args:
            timeout: Seconds after which the system ends a process (SIGALRM) whose peers have gone
                since; TensorFlow would wait.
        """
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(self.workers)}),
            task_type="worker",
            task_id=self.index,
            rpc_layer="grpc",
        )
        with _by_default(signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.alarm(max(1, round(timeout)))
            strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
            signal.alarm(0)
        return strategy

    def gathered(self, strategy: tf.distribute.Strategy, numbers: Sequence[float]) -> np.ndarray:
        """What every worker has: float64 [workers, n] of its n numbers; all must call it."""
        rows = np.zeros([self.size, len(numbers)])
        rows[self.index] = numbers
        return summed(strategy, rows)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Says in one line that a worker is gone, where TensorFlow raises one of many errors.

        Raises:
            PeerLost: Instead.
        """
        try:
            yield
        except _ERRORS as error:
            if self.size == 1:
                raise
            found = _CAUSE.search(error.message)
            why = (found.group(1) if found else error.message.strip().partition("\n")[0]).rstrip(
                ":"
            )
            raise PeerLost(
                f"worker {self.index} of {self.size}: another worker has ended ({why}); start all "
                "of them again, with --resume"
            ) from error


@contextlib.contextmanager
def _by_default(*signals: int) -> Iterator[None]:
    """Lets signals end the process at once: Python would handle them after TensorFlow's waiting."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def summed(strategy: tf.distribute.Strategy, array: np.ndarray) -> np.ndarray:
    """The sum of the arrays of all workers, of one shape and type; all must call it."""
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
    """Who the workers are: from TF_CONFIG, else from Slurm (`srun`), else this process alone.

    Raises:
        ValueError: If TF_CONFIG is not as TensorFlow documents it.
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
        before = {"chief": 0, "worker": len(jobs.get("chief", []))}
        index = before[task["type"]] + int(task["index"])
        hosts = {address.rpartition(":")[0] for address in workers}
        ports = [int(address.rpartition(":")[2]) for address in workers]
        mine = jobs[task["type"]][int(task["index"])]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{expected}, received {text} ({error!r})") from None
    if set(jobs) - {"chief", "worker"} or not all(hosts) or not all(0 < p < 1 << 16 for p in ports):
        raise ValueError(f"{expected}, or with one chief beside the workers, received {text}")
    if len(set(workers)) < len(workers) or not 0 <= index < len(workers) or before["worker"] > 1:
        raise ValueError(f"{expected}, every address once and one chief, received {text}")
    if workers[index] != mine:
        raise ValueError(f"{expected}, received {text}")
    return Cluster(tuple(workers), index)


def _from_slurm() -> Cluster:
    """The tasks of a job step; GPUs are bound to them by Slurm, if at all.

    TensorFlow's resolver sorts the machines by name, Slurm numbers the tasks in its own order; so
    a worker finds itself by its machine's name and its place there.
    """
    first = _SLURM_PORTS[int(os.environ.get("SLURM_JOB_ID", 0)) % len(_SLURM_PORTS)]
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=first, gpus_per_node=1 << 16, gpus_per_task=1, auto_set_gpu=False
    )
    workers = resolver.cluster_spec().job_tasks("worker")
    place = first + int(os.environ["SLURM_LOCALID"])
    return Cluster(tuple(workers), workers.index(f"{os.environ['SLURMD_NODENAME']}:{place}"))


def meet(cluster: Cluster, word: Mapping, timeout: float, say: Say = print) -> list[dict]:
    """Waits until all workers are there.

    Args:
        cluster: Who they are.
        word: What this one tells the others, as JSON values.
        timeout: Seconds to wait at most.
        say: Is told for whom it waits.

    Returns:
        What each worker tells.

    Raises:
        PeerLost: If one does not come in time.
        ValueError: If a worker that comes was told of other workers.
        OSError: If the chief's port is taken.
    """
    waiting = _Waiting(cluster, timeout, say)
    return (_receive if cluster.is_chief else _report)(cluster, word, waiting)


class _Waiting:
    """Says now and then for whom a worker waits, and ends it in time."""

    def __init__(self, cluster: Cluster, timeout: float, say: Say) -> None:
        self._cluster, self._say = cluster, say
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self._speaks = time.monotonic() + _QUIET

    def for_workers(self, missing: Sequence[int]) -> None:
        """Called again and again, with whom it waits for."""
        names = ", ".join(map(self._cluster.name, missing))
        if time.monotonic() > self._end:
            raise PeerLost(
                f"worker {self._cluster.index} of {self._cluster.size}: {names} did not come "
                f"within {self._timeout:g} s (--cluster_timeout)"
            )
        if time.monotonic() > self._speaks:
            self._say(f"waiting for {names}")
            self._speaks = time.monotonic() + _REPEAT


def _receive(cluster: Cluster, word: Mapping, waiting: _Waiting) -> list[dict]:
    """The chief's part: takes down who comes, and tells all of them when they are complete."""
    words, there = {0: json.loads(json.dumps(word))}, {}
    _, port = _host_and_port(cluster.workers[0])
    with contextlib.ExitStack() as open_connections:
        try:
            server = open_connections.enter_context(_server(port))
        except OSError as error:
            raise OSError(f"the chief cannot listen on port {port}: {error.strerror}") from None
        server.settimeout(_RETRY)
        while len(words) < cluster.size:
            waiting.for_workers([i for i in range(cluster.size) if i not in words])
            with contextlib.suppress(TimeoutError):
                connection = open_connections.enter_context(server.accept()[0])
                index, said = _first_words(connection, cluster)
                if index is not None:
                    words[index], there[index] = said, connection
            for index in [i for i, each in there.items() if _has_gone(each)]:
                del words[index], there[index]
            for connection in there.values():
                _tell(connection, {"missing": [i for i in range(cluster.size) if i not in words]})
        found = [words[index] for index in range(cluster.size)]
        for connection in there.values():
            _tell(connection, {"words": found})
    return found


def _server(port: int) -> socket.socket:
    """Listens on all interfaces, as TensorFlow will at the same port."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _connection(address: str) -> socket.socket:
    return socket.create_connection(_host_and_port(address), _PATIENCE)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _first_words(connection: socket.socket, cluster: Cluster) -> tuple[int | None, dict]:
    """Who it is that has come, and what it says; None for a stranger."""
    connection.settimeout(_PATIENCE)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(connection.makefile("rb").readline(_MOST_BYTES))
        if said["workers"] != list(cluster.workers):
            _tell(connection, {"error": f"the chief knows the workers {cluster.workers}"})
        elif said["index"] in range(1, cluster.size):
            return said["index"], said["word"]
    return None, {}


def _has_gone(connection: socket.socket) -> bool:
    """Whether the other end is closed; who waits says nothing more."""
    return bool(select.select([connection], [], [], 0)[0])


def _tell(connection: socket.socket, message: Mapping) -> None:
    with contextlib.suppress(OSError):  # it has gone, which is seen elsewhere
        connection.sendall(json.dumps(message).encode() + b"\n")


def _report(cluster: Cluster, word: Mapping, waiting: _Waiting) -> list[dict]:
    """What a worker does that is not the chief: comes, again and again until the chief is there."""
    told = {"workers": cluster.workers, "index": cluster.index, "word": word}
    while True:
        waiting.for_workers([0])
        with contextlib.suppress(OSError), _connection(cluster.workers[0]) as chief:
            _tell(chief, told)
            for message in _messages(chief):
                if "error" in message:
                    _disagree(cluster, message["error"])
                if "words" in message:
                    return message["words"]
                waiting.for_workers(message["missing"])
        time.sleep(_RETRY)


def _messages(connection: socket.socket) -> Iterator[dict]:
    """What the chief says; ends when it says nothing more, or something else."""
    connection.settimeout(_PATIENCE)
    with connection.makefile("rb") as lines, contextlib.suppress(ValueError):
        for line in iter(functools.partial(lines.readline, _MOST_BYTES), b""):
            yield json.loads(line)


def _disagree(cluster: Cluster, why: str) -> NoReturn:
    raise ValueError(f"worker {cluster.index} was told of the workers {cluster.workers}, but {why}")
