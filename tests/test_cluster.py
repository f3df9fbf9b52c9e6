"""Who the workers are, and how they meet."""

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow as tf

from engine import cluster, devices, rendezvous
from runtime import console, flags
from tests.stress.workers import free_ports
from training import agreement
from training.recipe import Recipe, Running


def config(index=0, kind="worker", **jobs):
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


@pytest.fixture
def set_config(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    return lambda text: monkeypatch.setenv("TF_CONFIG", text)


def test_without_a_word_of_others_a_process_is_alone(set_config):
    alone = cluster.from_environment()
    assert (alone.size, alone.index, alone.is_chief) == (1, 0, True)
    strategy = tf.distribute.get_strategy()
    assert alone.gathered(strategy, [3.0, 4.0]).tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize(
    "text, workers, index",
    [
        (config(1, worker=["a:1", "b:2"]), ("a:1", "b:2"), 1),
        (config(0, "chief", chief=["c:9"], worker=["a:1", "b:2"]), ("c:9", "a:1", "b:2"), 0),
        (config(1, chief=["c:9"], worker=["a:1", "b:2"]), ("c:9", "a:1", "b:2"), 2),
        (config(0, worker=["[::1]:2222"]), ("[::1]:2222",), 0),
    ],
)
def test_tf_config_names_the_workers(set_config, text, workers, index):
    set_config(text)
    assert cluster.from_environment() == cluster.Cluster(workers, index)


@pytest.mark.parametrize(
    "text",
    [
        "worker:0",
        "[]",
        "{}",
        config(0),
        config(2, worker=["a:1", "b:2"]),
        config(-1, worker=["a:1", "b:2"]),
        config("x", worker=["a:1", "b:2"]),
        config(0, "evaluator", worker=["a:1"], evaluator=["b:2"]),
        config(0, worker=["a:1"], ps=["b:2"]),
        config(0, worker=["a", "b:2"]),
        config(0, worker=[":1", "b:2"]),
        config(0, worker=["a:0", "b:2"]),
        config(0, worker=["a:1", "a:1"]),
        config(0, worker="a:1"),
        config(0, worker=[["a:1"]]),
        config(0, "chief", chief=["c:8", "c:9"], worker=["a:1"]),
    ],
)
def test_a_wrong_tf_config_is_explained(set_config, text):
    set_config(text)
    with pytest.raises(ValueError, match=r'TF_CONFIG expects .*"HOST:PORT".* received '):
        cluster.from_environment()


def workers_of(count):
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(count))
    return [cluster.Cluster(addresses, index) for index in range(count)]


def meeting(workers, said, timeout=20.0, words=None):
    """Futures of what `meet` returns to each; what it says is appended to `said`."""
    pool = ThreadPoolExecutor(len(workers))
    words = words or [{"n": {"i": each.index}} for each in workers]
    return [
        pool.submit(
            rendezvous.meet, each, word, timeout, lambda line, i=each.index: said.append((i, line))
        )
        for each, word in zip(workers, words, strict=True)
    ]


def test_all_workers_learn_what_all_bring():
    said = []
    for future in meeting(workers_of(3), said):
        assert future.result(30) == [{"n": {"i": index}} for index in range(3)]
    assert said == []


def test_who_waits_says_for_whom(monkeypatch):
    monkeypatch.setattr(rendezvous, "_QUIET", 0.1)
    said, workers = [], workers_of(3)
    early = meeting(workers[:2], said)
    while {index for index, _ in said} != {0, 1}:
        assert not any(future.done() for future in early)
        time.sleep(0.01)
    (late,) = meeting(workers[2:], said)
    assert late.result(30) == early[0].result(30) == early[1].result(30)
    first, second, third = (f"worker {i} ({place})" for i, place in enumerate(workers[0].workers))
    assert {line for _, line in said} <= {
        f"waiting for {third}",
        f"waiting for {first}",  # before it listens
        f"waiting for {second}, {third}",  # before the second has come
    }
    assert any("worker 2" in line for _, line in said)


@pytest.mark.parametrize("present, missing", [(0, 1), (1, 0)])
def test_who_does_not_come_is_named_in_time(present, missing):
    workers = workers_of(2)
    (future,) = meeting([workers[present]], [], timeout=0.5)
    message = rf"worker {present} of 2: worker {missing} \(127.0.0.1:\d+\) did not come within 0.5"
    with pytest.raises(cluster.PeerLost, match=message):
        future.result(30)


def test_a_worker_of_another_cluster_is_sent_away():
    first, second = workers_of(2)
    other = cluster.Cluster((*second.workers, "127.0.0.1:9"), 1)
    chief, stranger = meeting([first, other], [], timeout=1.5)
    with pytest.raises(ValueError, match="was told of the workers .* but the chief knows"):
        stranger.result(30)
    with pytest.raises(cluster.PeerLost):
        chief.result(30)


def test_a_worker_that_goes_and_comes_again_is_one():
    chief, worker = workers_of(2)
    three = cluster.Cluster((*chief.workers, f"127.0.0.1:{free_ports(1)[0]}"), 0)
    waiting, *_ = meeting([three], [])
    port = int(chief.workers[0].rpartition(":")[2])
    for word in ("old", "new"):
        while True:
            try:
                gone = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                continue
        told = {"workers": three.workers, "index": 1, "word": {"n": {"i": word}}}
        gone.sendall(json.dumps(told).encode() + b"\n")
        assert b"missing" in gone.makefile("rb").readline()
        if word == "old":
            gone.close()
    (last,) = meeting([cluster.Cluster(three.workers, 2)], [])
    assert [word["n"]["i"] for word in waiting.result(30)] == [0, "new", 2]
    assert len(last.result(30)) == 3


def test_a_worker_comes_again_in_the_moment_in_which_its_old_end_is_seen():
    workers = workers_of(2)
    with (
        rendezvous._server(0) as server,
        rendezvous._SettingsCollector(workers[0], {}, server) as collector,
        contextlib.ExitStack() as ends,
    ):

        def comes():
            ends.enter_context(worker := socket.create_connection(server.getsockname()[:2]))
            collector.poll()
            return worker

        old = comes()
        old.sendall(introduction(workers))
        collector.poll()
        new = comes()
        old.close()
        new.sendall(introduction(workers, word={"n": {"i": "new"}}))
        select, keys = collector._selector.select, []
        while len(keys) < 2:
            keys = sorted(select(1), key=lambda each: each[0].fd, reverse=True)  # the new one first
        collector._selector.select = lambda timeout: keys
        collector.poll()
        assert collector.close() == [{}, {"n": {"i": "new"}}]


def introduction(workers, **changes):
    told = {"workers": workers[0].workers, "index": 1, "word": {"n": {"i": 1}}}
    return json.dumps({**told, **changes}).encode() + b"\n"


NOISE = {
    "nothing": lambda workers: b"",
    "an empty line": lambda workers: b"\n",
    "gRPC": lambda workers: b"PRI * HTTP/2.0\r\n\r\n",
    "a list": lambda workers: b"[1]\n",
    "an object": lambda workers: b"{}\n",
    "no text": lambda workers: b"\xff\n",
    "a deep list": lambda workers: b"[" * 200_000 + b"\n",
    "no end": lambda workers: b"x" * 3_000_000,
    "another index": lambda workers: introduction(workers, index=2),
    "the chief": lambda workers: introduction(workers, index=0),
    "a nested index": lambda workers: introduction(workers, index=[1]),
    "a list as word": lambda workers: introduction(workers, word=[1]),
    "a number in the word": lambda workers: introduction(workers, word={"flags": 3}),
}


def connected(workers):
    """A connection to the chief, as soon as it listens."""
    host, port = workers[0].workers[0].split(":")
    while True:
        try:
            return socket.create_connection((host, int(port)))
        except ConnectionRefusedError:
            continue


@pytest.mark.parametrize("kind", NOISE)
def test_strangers_do_not_disturb(kind):
    workers, said = workers_of(2), []
    (chief,) = meeting(workers[:1], said)
    for _ in range(2):
        with connected(workers) as stranger, contextlib.suppress(ConnectionError):
            stranger.sendall(NOISE[kind](workers))
    (worker,) = meeting(workers[1:], said)
    assert chief.result(30) == worker.result(30) == [{"n": {"i": 0}}, {"n": {"i": 1}}]


def test_many_and_slow_strangers_do_not_keep_the_workers_apart():
    workers = workers_of(2)
    (chief,) = meeting(workers[:1], [])
    slow = [connected(workers) for _ in range(50)]
    for stranger in slow:
        stranger.sendall(b"{")
    (worker,) = meeting(workers[1:], [])
    assert chief.result(10) == worker.result(10)
    for stranger in slow:
        stranger.close()


def test_a_stranger_does_not_put_off_the_end(monkeypatch):
    monkeypatch.setattr(rendezvous, "_PATIENCE", 0.3)
    workers = workers_of(2)
    (chief,) = meeting(workers[:1], [], timeout=1.5)
    with connected(workers) as slow, pytest.raises(cluster.PeerLost):
        with contextlib.suppress(ConnectionError):
            while not chief.done():
                slow.sendall(b" ")
                time.sleep(0.05)
        chief.result(10)


def test_tensorflow_learns_of_the_gpus_of_a_worker(monkeypatch):
    Gpus(monkeypatch, 4)
    devices._use("1,3")
    resolver = cluster.Cluster(("a:1", "b:2"), 1).resolver()
    assert resolver.num_accelerators() == {"GPU": 2}
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


JOINING = """
import sys, time
from engine import cluster
with cluster._ended_after(float(sys.argv[1]), "error: gone"):
    time.sleep(float(sys.argv[2]))
"""


def test_joining_ends_the_process_where_it_takes_too_long(command, tmp_path):
    script = tmp_path / "joining.py"
    script.write_text(JOINING)
    for seconds, sleep, status, line in ((0.5, 60, -9, "error: gone\n"), (60, 0.1, 0, "")):
        done = command(script, seconds, sleep)
        assert done.returncode == status and done.stderr.endswith(line)


def test_the_port_of_another_program_is_not_the_chief():
    """As that of TensorFlow in a chief of before, which is still ending."""
    first, second = workers_of(2)
    port = int(first.workers[0].rpartition(":")[2])
    server = socket.create_server(("127.0.0.1", port))

    def answer():
        connection, _ = server.accept()
        connection.sendall(b"\x00\x00\x12\x04\n")
        connection.close()
        server.close()

    thread = threading.Thread(target=answer)
    thread.start()
    (worker,) = meeting([second], [])
    thread.join()
    (chief,) = meeting([first], [])
    assert worker.result(30) == chief.result(30)


def test_a_taken_port_is_named():
    first, _ = workers_of(2)
    port = int(first.workers[0].rpartition(":")[2])
    with socket.create_server(("", port)), pytest.raises(OSError, match=f"listen on port {port}"):
        rendezvous.meet(first, {}, 1)


def words(**changes):
    flags = {"seed": 0, "resume": False}
    return {"flags": {**flags, **changes}, "versions": {"keras": "3"}}


def test_workers_that_were_started_otherwise_are_told():
    workers = cluster.Cluster(("a:1", "b:2"))
    agreement.compare(workers, [words(), words()])
    with pytest.raises(ValueError, match=r"worker 1 \(b:2\) has seed=1, worker 0 \(a:1\) seed=0"):
        agreement.compare(workers, [words(), words(seed=1)])
    with pytest.raises(ValueError, match="has keras=4"):
        agreement.compare(workers, [words(), words() | {"versions": {"keras": "4"}}])
    with pytest.raises(cluster.PeerLost, match="--resume"):
        agreement.compare(workers, [words(resume=True), words()])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"run_dir": None}, "several workers expect --run_dir"),
        ({"micro_batch": "auto"}, "expect --micro_batch with a number"),
        ({"devices": "2"}, "--devices=2 divides the CPU of one process"),
        ({"meter": True}, "--meter is for one process, received 2 workers"),
        ({"show_step": 0}, "--show_step is for one process"),
    ],
)
def test_what_several_workers_cannot_do(options, message):
    fine = {"run_dir": "run"}
    workers = cluster.Cluster(("a:1", "b:2"))
    agreement.refuse(Recipe(), Running(**fine), workers)
    recipe, running = (flags.restored(kind, fine | options) for kind in (Recipe, Running))
    with pytest.raises(ValueError, match=message):
        agreement.refuse(recipe, running, workers)


def test_what_tensorflow_raises_of_a_lost_worker_becomes_one_line():
    error = tf.errors.UnavailableError(
        None, None, "{{function_node __f}} Collective ops is aborted by: no heartbeat:\nmore"
    )
    line = r"worker 1 of 2: another worker has ended \(no heartbeat\); start all of them again"
    with pytest.raises(cluster.PeerLost, match=line), cluster.Cluster(("a:1", "b:2"), 1).guarded():
        raise error
    with pytest.raises(tf.errors.UnavailableError), cluster.Cluster().guarded():
        raise error
    with pytest.raises(tf.errors.DataLossError), cluster.Cluster(("a:1", "b:2"), 1).guarded():
        raise tf.errors.DataLossError(None, None, "its own")


class Gpus:
    """TensorFlow's view of a machine with so many GPUs."""

    def __init__(self, monkeypatch, count):
        self.there = [f"gpu{number}" for number in range(count)]
        self.visible = list(self.there)
        for name in ("list_physical_devices", "get_visible_devices", "set_visible_devices"):
            monkeypatch.setattr(tf.config, name, getattr(self, name))

    def list_physical_devices(self, kind):
        return self.there if kind == "GPU" else ["cpu"]

    def get_visible_devices(self, kind):
        return self.visible

    def set_visible_devices(self, chosen, kind):
        self.visible = chosen


@pytest.mark.parametrize(
    "text, expected",
    [("all", [0, 1, 2, 3]), ("1", [0]), ("3", [0, 1, 2]), ("1,3", [1, 3]), ("2,", [2])],
)
def test_gpus_are_chosen_by_number(monkeypatch, text, expected):
    gpus = Gpus(monkeypatch, 4)
    devices._use(text)
    assert gpus.visible == [f"gpu{number}" for number in expected]
    left = 4 - len(expected)
    assert devices.unused() == (
        f"{left} of 4 GPUs are not used: --devices=all uses them" if left else None
    )


@pytest.mark.parametrize("text", ["0", "-1", "5", "1,4", "1,1", "x", "", ",", "1.5"])
def test_devices_that_do_not_exist_are_refused(monkeypatch, text):
    Gpus(monkeypatch, 4)
    with pytest.raises(ValueError, match=f"--devices.*{text}"):
        devices._use(text)


def test_gpus_that_tensorflow_does_not_find_are_mentioned(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_DRIVER", tmp_path)
    assert devices.unused() is None
    (tmp_path / "0000:01:00.0").mkdir()
    assert 'pip install "tensorflow[and-cuda]==' in devices.unused()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.unused() is None


def test_leaving_keeps_the_exit_code(monkeypatch):
    codes = []
    monkeypatch.setattr(console.os, "_exit", codes.append)
    with console.leaving():
        pass
    with console.leaving():
        raise SystemExit(143)
    assert codes == [0, 143]
