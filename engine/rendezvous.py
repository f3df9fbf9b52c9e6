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

_MAX_BYTES = 1 << 20  # maximum size of a worker's introduction
_PATIENCE = 5.0  # timeout in seconds for a connected peer to send something
_RETRY = 0.2  # seconds between two attempts
_QUIET, _REPEAT = 2.0, 30.0  # seconds before the first message, between messages

Report = Callable[[str], object]


def _print_line(line: str) -> None:
    print(line, flush=True)


def meet(
    cluster: Cluster, settings: Mapping, timeout: float, report: Report = _print_line
) -> list[dict]:
    """Waits until all workers have connected, and exchanges their settings.

    Args:
        cluster: The workers.
        settings: Settings that this worker sends to the others: JSON objects by name.
        timeout: Maximum time to wait, in seconds.
        report: Function that receives messages about missing workers.

    Returns:
        The settings of each worker, in order.

    Raises:
        PeerLost: If a worker does not connect in time.
        ValueError: If a worker was started with another list of workers.
        OSError: If the chief's port is in use.
    """
    waiting = _WaitMonitor(cluster, timeout, report)
    return (_collect if cluster.is_chief else _join)(cluster, settings, waiting)


class _WaitMonitor:
    """Reports missing workers periodically and enforces the timeout."""

    def __init__(self, cluster: Cluster, timeout: float, report: Report) -> None:
        self._cluster, self._report = cluster, report
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self._next_report = time.monotonic() + _QUIET

    def report_missing(self, missing: Sequence[int]) -> None:
        """Reports missing workers periodically; must be called repeatedly while waiting.

        Raises:
            PeerLost: If the timeout has passed.
        """
        names = ", ".join(map(self._cluster.name, missing))
        if time.monotonic() > self._end:
            raise PeerLost(
                f"worker {self._cluster.index} of {self._cluster.size}: {names} did not come "
                f"within {self._timeout:g} s (--cluster_timeout)"
            )
        if time.monotonic() > self._next_report:
            self._report(f"waiting for {names}")
            self._next_report = time.monotonic() + _REPEAT


def _collect(cluster: Cluster, settings: Mapping, waiting: _WaitMonitor) -> list[dict]:
    """Runs the chief's side: collects all workers' settings, then sends them to everyone."""
    _, port = _host_and_port(cluster.workers[0])
    with contextlib.ExitStack() as open_sockets:
        try:
            server = open_sockets.enter_context(_server(port))
        except OSError as error:
            raise OSError(f"the chief cannot listen on port {port}: {error.strerror}") from None
        collector = open_sockets.enter_context(_SettingsCollector(cluster, settings, server))
        while collector.missing:
            waiting.report_missing(collector.missing)
            collector.poll()
        return collector.close()


class _SettingsCollector:
    """Server of the chief: collects the settings of the workers, drops other connections."""

    def __init__(self, cluster: Cluster, settings: Mapping, server: socket.socket) -> None:
        self._cluster, self._server = cluster, server
        self._settings = {0: json.loads(json.dumps(settings))}
        self._connected: dict[int, socket.socket] = {}
        self._pending: dict[socket.socket, tuple[bytearray, float]] = {}  # received bytes, deadline
        self._selector = selectors.DefaultSelector()
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ)

    def __enter__(self) -> "_SettingsCollector":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in [*self._pending, *self._connected.values()]:
            connection.close()
        self._selector.close()

    @property
    def missing(self) -> list[int]:
        """Indices of the workers that have not connected yet or have disconnected."""
        return [index for index in range(self._cluster.size) if index not in self._settings]

    def poll(self) -> None:
        """Accepts and reads connections, drops late ones, and sends the list of missing workers."""
        for key, _ in self._selector.select(_RETRY):
            if key.fileobj is self._server:
                self._accept()
            elif key.fileobj.fileno() >= 0:  # not closed just now by a reconnect
                self._read(key.fileobj)
        for connection in [
            each for each, (_, deadline) in self._pending.items() if deadline < time.monotonic()
        ]:
            self._drop(connection)
        for connection in self._connected.values():
            _send(connection, {"missing": self.missing})

    def close(self) -> list[dict]:
        """Sends all settings to all workers and returns them."""
        settings = [self._settings[index] for index in range(self._cluster.size)]
        for connection in self._connected.values():
            _send(connection, {"words": settings})
        return settings

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # already closed, or too many open files at the moment
            connection, _ = self._server.accept()
            connection.settimeout(_PATIENCE)
            self._selector.register(connection, selectors.EVENT_READ)
            self._pending[connection] = bytearray(), time.monotonic() + _PATIENCE

    def _read(self, connection: socket.socket) -> None:
        """Reads more of an introduction; a known worker sends nothing more, so it has ended."""
        data = b""
        with contextlib.suppress(OSError):
            data = connection.recv(_MAX_BYTES)
        received, _ = self._pending.get(connection, (None, 0.0))
        if received is None or not data or len(received) > _MAX_BYTES:
            return self._drop(connection)
        received += data
        if b"\n" in received:
            self._register(connection, bytes(received))

    def _register(self, connection: socket.socket, line: bytes) -> None:
        """Parses an introduction and registers the worker."""
        introduction = _introduction(line)
        if introduction is None or introduction["index"] not in range(1, self._cluster.size):
            return self._drop(connection)
        if introduction["workers"] != list(self._cluster.workers):
            _send(connection, {"error": f"the chief knows the workers {self._cluster.workers}"})
            return self._drop(connection)
        if introduction["index"] in self._connected:  # the worker was restarted
            self._drop(self._connected[introduction["index"]])
        del self._pending[connection]
        self._connected[introduction["index"]], self._settings[introduction["index"]] = (
            connection,
            introduction["word"],
        )

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._pending.pop(connection, None)
        for index in [index for index, each in self._connected.items() if each is connection]:
            del self._connected[index], self._settings[index]
        connection.close()


def _introduction(line: bytes) -> dict | None:
    """Parses a worker's introduction; returns None if it is malformed."""
    try:
        introduction = json.loads(line)
        is_valid = type(introduction["index"]) is int and all(
            type(each) is dict for each in (introduction["word"], *introduction["word"].values())
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None
    return introduction if is_valid else None


def _send(connection: socket.socket, message: Mapping) -> None:
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


def _join(cluster: Cluster, settings: Mapping, waiting: _WaitMonitor) -> list[dict]:
    """Runs a worker's side: connects until the chief is up, then waits for all settings."""
    introduction = {"workers": cluster.workers, "index": cluster.index, "word": settings}
    while True:
        waiting.report_missing([0])
        with contextlib.suppress(OSError), _connection(cluster.workers[0]) as chief:
            _send(chief, introduction)
            for message in _messages(chief):
                if "error" in message:
                    _refuse(cluster, message["error"])
                if "words" in message:
                    return message["words"]
                waiting.report_missing(message["missing"])
        time.sleep(_RETRY)


def _messages(connection: socket.socket) -> Iterator[dict]:
    """Yields the chief's messages until the connection closes or a message is malformed."""
    connection.settimeout(_PATIENCE)
    with connection.makefile("rb") as lines, contextlib.suppress(ValueError):
        for line in iter(functools.partial(lines.readline, _MAX_BYTES), b""):
            yield json.loads(line)


def _refuse(cluster: Cluster, reason: str) -> NoReturn:
    raise ValueError(
        f"worker {cluster.index} was told of the workers {cluster.workers}, but {reason}"
    )
