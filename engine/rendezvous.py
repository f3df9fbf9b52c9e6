"""Rendezvous of a cluster's workers before TensorFlow connects them.

TensorFlow waits silently for a missing worker and cannot be interrupted by signals. Therefore the
workers first meet at the chief's address and exchange their settings.
"""

import contextlib
import functools
import json
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

from engine.cluster import Cluster, PeerLost

_MOST_BYTES = 1 << 20  # maximum size of a worker's introduction
_PATIENCE = 5.0  # timeout in seconds for a connected peer to send something
_RETRY = 0.2  # seconds between two attempts
_QUIET, _REPEAT = 2.0, 30.0  # seconds before the first message, between messages

Say = Callable[[str], object]


def _say(line: str) -> None:
    print(line, flush=True)


def meet(cluster: Cluster, word: Mapping, timeout: float, say: Say = _say) -> list[dict]:
    """Waits until all workers are there.

    Args:
        cluster: The workers.
        word: Settings that this worker sends to the others: JSON objects by name.
        timeout: Maximum time to wait, in seconds.
        say: Function that receives messages about missing workers.

    Returns:
        The settings of each worker, in order.

    Raises:
        PeerLost: If a worker does not connect in time.
        ValueError: If a worker was started with another list of workers.
        OSError: If the chief's port is in use.
    """
    waiting = _Waiting(cluster, timeout, say)
    return (_receive if cluster.is_chief else _report)(cluster, word, waiting)


class _Waiting:
    """Reports missing workers periodically and enforces the timeout."""

    def __init__(self, cluster: Cluster, timeout: float, say: Say) -> None:
        self._cluster, self._say = cluster, say
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self._speaks = time.monotonic() + _QUIET

    def for_workers(self, missing: Sequence[int]) -> None:
        """Reports `missing` if it is time; must be called repeatedly while waiting."""
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
    """Runs the chief's side: collects all workers' settings, then sends them to everyone."""
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
    """Server of the chief, which accepts workers and drops all other connections."""

    def __init__(self, cluster: Cluster, word: Mapping, server: socket.socket) -> None:
        self._cluster, self._server = cluster, server
        self._words = {0: json.loads(json.dumps(word))}
        self._there: dict[int, socket.socket] = {}
        self._said: dict[socket.socket, tuple[bytearray, float]] = {}  # received bytes, deadline
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
        """Indices of the workers that have not connected yet or have disconnected."""
        return [index for index in range(self._cluster.size) if index not in self._words]

    def attend(self) -> None:
        """Accepts and reads connections, drops late ones, and sends the list of missing workers."""
        for key, _ in self._selector.select(_RETRY):
            if key.fileobj is self._server:
                self._let_in()
            elif key.fileobj.fileno() >= 0:  # not closed just now by a reconnect
                self._listen(key.fileobj)
        for connection in [each for each, (_, end) in self._said.items() if end < time.monotonic()]:
            self._send_away(connection)
        for connection in self._there.values():
            _tell(connection, {"missing": self.missing})

    def close(self) -> list[dict]:
        """Sends all settings to all workers and returns them."""
        found = [self._words[index] for index in range(self._cluster.size)]
        for connection in self._there.values():
            _tell(connection, {"words": found})
        return found

    def _let_in(self) -> None:
        with contextlib.suppress(OSError):  # already closed, or too many open files at the moment
            connection, _ = self._server.accept()
            connection.settimeout(_PATIENCE)
            self._selector.register(connection, selectors.EVENT_READ)
            self._said[connection] = bytearray(), time.monotonic() + _PATIENCE

    def _listen(self, connection: socket.socket) -> None:
        """Reads more of an introduction; a known worker sends nothing more, so it has ended."""
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
        """Parses an introduction and registers the worker."""
        told = _introduction(line)
        if told is None or told["index"] not in range(1, self._cluster.size):
            return self._send_away(connection)
        if told["workers"] != list(self._cluster.workers):
            _tell(connection, {"error": f"the chief knows the workers {self._cluster.workers}"})
            return self._send_away(connection)
        if told["index"] in self._there:  # the worker was restarted
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
    """Parses a worker's introduction; returns None if it is malformed."""
    try:
        told = json.loads(line)
        is_one = type(told["index"]) is int and all(
            type(each) is dict for each in (told["word"], *told["word"].values())
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None
    return told if is_one else None


def _tell(connection: socket.socket, message: Mapping) -> None:
    with contextlib.suppress(OSError):  # disconnected, which the reading side detects
        connection.sendall(json.dumps(message).encode() + b"\n")


def _server(port: int) -> socket.socket:
    """Listens on all interfaces, as TensorFlow will do on the same port."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _connection(address: str) -> socket.socket:
    return socket.create_connection(_host_and_port(address), _PATIENCE)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _report(cluster: Cluster, word: Mapping, waiting: _Waiting) -> list[dict]:
    """Runs a worker's side: connects until the chief is up, then waits for all settings."""
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
    """Yields the chief's messages until the connection closes or a message is malformed."""
    connection.settimeout(_PATIENCE)
    with connection.makefile("rb") as lines, contextlib.suppress(ValueError):
        for line in iter(functools.partial(lines.readline, _MOST_BYTES), b""):
            yield json.loads(line)


def _disagree(cluster: Cluster, why: str) -> NoReturn:
    raise ValueError(f"worker {cluster.index} was told of the workers {cluster.workers}, but {why}")
