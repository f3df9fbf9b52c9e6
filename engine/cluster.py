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
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

import numpy as np
import tensorflow as tf

from runtime import console

_MOST_BYTES = 1 << 20  # of what a worker says when it comes
_PATIENCE = 5.0  # seconds for a worker that is there to say something
_RETRY = 0.2
_QUIET, _REPEAT = 2.0, 30.0  # seconds before a worker says for whom it waits, and says it again
_SLURM_PORTS = range(10_000, 30_000, 16)  # first ones: jobs that share a machine have others
_CAUSE = re.compile(r"aborted by: (.*)")  # in a message of many lines
_ERRORS = (  # what TensorFlow raises when another worker is gone
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)

_JOINING = 60  # seconds for TensorFlow to join workers that have just met
# Waits until its input is closed, at most so many seconds; then it ends a process.
_WATCH = """import os, select, signal, sys
seconds, process, line = sys.argv[1:]
if not select.select([sys.stdin], [], [], float(seconds))[0]:
    print(line, file=sys.stderr, flush=True)
    os.kill(int(process), signal.SIGKILL)
"""

Say = Callable[[str], object]


def _say(line: str) -> None:
    print(line, flush=True)


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

    def strategy(self) -> tf.distribute.Strategy:
        """Joins the workers, which have met, through TensorFlow; no operation may have run before.

        If one has gone since, the others are ended by SIGKILL: TensorFlow would wait for it, with
        Python's lock.
        """
        line = (
            f"error: worker {self.index} of {self.size}: another worker has ended; start all again"
        )
        with _by_default(*console.stops()), _ended_after(_JOINING, line):
            return tf.distribute.MultiWorkerMirroredStrategy(self.resolver())

    def resolver(self) -> tf.distribute.cluster_resolver.ClusterResolver:
        """The workers, as TensorFlow has them: with as many GPUs each as are visible here."""
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(self.workers)}),
            task_type="worker",
            task_id=self.index,
            num_accelerators={"GPU": len(tf.config.get_visible_devices("GPU"))},
            rpc_layer="grpc",
        )

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
                "of them again, with --resume where the run has begun"
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


@contextlib.contextmanager
def _ended_after(seconds: float, line: str) -> Iterator[None]:
    """Prints a line and ends this process unless it gets on in time."""
    words = [sys.executable, "-S", "-c", _WATCH, str(seconds), str(os.getpid()), line]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as watch:
        try:
            yield
        finally:
            watch.stdin.close()


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
    host, place = (os.environ.get(name) for name in ("SLURMD_NODENAME", "SLURM_LOCALID"))
    mine = f"{host}:{first + int(place or 0)}"
    if mine not in workers:
        raise ValueError(
            f"Slurm's tasks are at {', '.join(workers)}: expected this one, SLURMD_NODENAME={host} "
            f"SLURM_LOCALID={place}, among them"
        )
    return Cluster(tuple(workers), workers.index(mine))


def meet(cluster: Cluster, word: Mapping, timeout: float, say: Say = _say) -> list[dict]:
    """Waits until all workers are there.

    Args:
        cluster: Who they are.
        word: What this one tells the others: JSON objects by name.
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
    _, port = _host_and_port(cluster.workers[0])
    with contextlib.ExitStack() as open_sockets:
        try:
            server = open_sockets.enter_context(_server(port))
        except OSError as error:
            raise OSError(f"the chief cannot listen on port {port}: {error.strerror}") from None
        door = open_sockets.enter_context(_Door(cluster, word, server))
        while door.missing:
            waiting.for_workers(door.missing)
            door.attend()
        return door.close()


class _Door:
    """Where workers come in; strangers are sent away, whatever they say or do not say."""

    def __init__(self, cluster: Cluster, word: Mapping, server: socket.socket) -> None:
        self._cluster, self._server = cluster, server
        self._words = {0: json.loads(json.dumps(word))}
        self._there: dict[int, socket.socket] = {}
        self._said: dict[socket.socket, tuple[bytearray, float]] = {}  # so far, until when
        self._selector = selectors.DefaultSelector()
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ)

    def __enter__(self) -> "_Door":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in [*self._said, *self._there.values()]:
            connection.close()
        self._selector.close()

    @property
    def missing(self) -> list[int]:
        """Who has not come yet, or has gone again."""
        return [index for index in range(self._cluster.size) if index not in self._words]

    def attend(self) -> None:
        """Lets in who comes, listens to who speaks, and tells those who wait for whom."""
        for key, _ in self._selector.select(_RETRY):
            if key.fileobj is self._server:
                self._let_in()
            elif key.fileobj.fileno() >= 0:  # not sent away just now, when its worker came again
                self._listen(key.fileobj)
        for connection in [each for each, (_, end) in self._said.items() if end < time.monotonic()]:
            self._send_away(connection)
        for connection in self._there.values():
            _tell(connection, {"missing": self.missing})

    def close(self) -> list[dict]:
        """Tells all what all bring, and returns it."""
        found = [self._words[index] for index in range(self._cluster.size)]
        for connection in self._there.values():
            _tell(connection, {"words": found})
        return found

    def _let_in(self) -> None:
        with contextlib.suppress(OSError):  # gone again; or too many are open, for a while
            connection, _ = self._server.accept()
            connection.settimeout(_PATIENCE)
            self._selector.register(connection, selectors.EVENT_READ)
            self._said[connection] = bytearray(), time.monotonic() + _PATIENCE

    def _listen(self, connection: socket.socket) -> None:
        """Hears more of who it is; a worker that is known says no more but ends."""
        data = b""
        with contextlib.suppress(OSError):
            data = connection.recv(_MOST_BYTES)
        said, _ = self._said.get(connection, (None, 0.0))
        if said is None or not data or len(said) > _MOST_BYTES:
            return self._send_away(connection)
        said += data
        if b"\n" in said:
            self._recognise(connection, bytes(said))

    def _recognise(self, connection: socket.socket, line: bytes) -> None:
        """Notes what a worker brings."""
        told = _introduction(line)
        if told is None or told["index"] not in range(1, self._cluster.size):
            return self._send_away(connection)
        if told["workers"] != list(self._cluster.workers):
            _tell(connection, {"error": f"the chief knows the workers {self._cluster.workers}"})
            return self._send_away(connection)
        if told["index"] in self._there:  # it was started again
            self._send_away(self._there[told["index"]])
        del self._said[connection]
        self._there[told["index"]], self._words[told["index"]] = connection, told["word"]

    def _send_away(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._said.pop(connection, None)
        for index in [index for index, each in self._there.items() if each is connection]:
            del self._there[index], self._words[index]
        connection.close()


def _introduction(line: bytes) -> dict | None:
    """What a worker says when it comes; None if it is none."""
    try:
        told = json.loads(line)
        is_one = type(told["index"]) is int and all(
            type(each) is dict for each in (told["word"], *told["word"].values())
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None
    return told if is_one else None


def _tell(connection: socket.socket, message: Mapping) -> None:
    with contextlib.suppress(OSError):  # it has gone, which is seen elsewhere
        connection.sendall(json.dumps(message).encode() + b"\n")


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
