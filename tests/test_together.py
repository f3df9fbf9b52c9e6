"""Two workers, processes of their own, train together: stopped in any way, they go on."""

import json
import re
import signal
import time

import pytest
from conftest import DONE, killed_at, metrics

from runtime.console import START_AGAIN
from tests.stress.workers import NOTICED, Pair, environment, free_ports, loopback

# Images that are decoded anew, of which each worker reads its own; dropout; an average.
TRAINING = ["--model=lenet5", "--batch_size=8", "--epochs=4", "--checkpoint_steps=2"]
TRAINING += ["--cache=none", "--augment=cifar", "--dropout=0.5", "--ema=0.9", "--clip_norm=1"]
TRAINING += ["--cluster_timeout=60", "--keep=9"]


@pytest.fixture(scope="module")
def words(photographs):
    return [f"--data={photographs}", *TRAINING]


@pytest.fixture(scope="module")
def start_pair(server):
    """Starts two workers: `start_pair(run_dir, words)`."""

    def start(_, words, log, variables):
        return server.start(*words, stdout=log, stderr=log, environment=variables)

    return lambda run_dir, words: Pair(loopback(), run_dir, words, start)


@pytest.fixture(scope="module")
def whole(words, start_pair, tmp_path_factory):
    """The run folder of a training by two workers that nothing disturbs, and the workers."""
    run_dir = tmp_path_factory.mktemp("together") / "whole"
    pair = start_pair(run_dir, words)
    assert pair.wait() == [0, 0], pair.output(0) + pair.output(1)
    return run_dir, pair


@pytest.mark.slow
def test_the_chief_speaks_and_writes_and_both_have_the_same_weights(whole):
    run_dir, pair = whole
    chief, worker = (pair.output(index) for index in range(2))
    assert "2 replica(s) of 2 workers" in chief and "batches of 8 (4 for each replica)" in chief
    assert DONE.findall(chief) == DONE.findall(worker) and len(DONE.findall(chief)) == 1
    assert "run folder: " in chief and "run folder: " not in worker
    assert len(metrics(run_dir)) == 4
    assert len(list(run_dir.glob("train/events*"))) == 1
    assert json.loads((run_dir / "run.json").read_text())["device"]["workers"] == 2


@pytest.mark.slow
def test_killed_or_stopped_they_go_on_to_the_same_weights(whole, words, start_pair, tmp_path):
    """A worker is killed, then the chief, then one is stopped; then they end."""
    run_dir = tmp_path / "stopped"
    for step, index in ((3, 1), (7, 0)):
        pair = start_pair(run_dir, words)
        pair.wait_for_step(run_dir, step)
        assert pair.kill(index) < NOTICED
        left = pair.processes[1 - index].returncode
        assert left == START_AGAIN, pair.output(1 - index)
        assert len(re.findall("^error: ", pair.output(1 - index), re.M)) == 1
        assert "start all of them again, with --resume" in pair.output(1 - index)
    pair = start_pair(run_dir, words)
    pair.wait_for_step(run_dir, 11)
    pair.processes[1].send_signal(signal.SIGTERM)
    assert pair.wait() == [143, 143]
    assert "stopped; go on with: python train.py --resume" in pair.output(0)
    pair = start_pair(run_dir, words)
    assert pair.wait() == [0, 0], pair.output(0)
    assert DONE.findall(pair.output(0)) == DONE.findall(whole[1].output(0))


@pytest.mark.slow
def test_another_number_of_processes_goes_on_and_says_what_that_means(whole, command, tmp_path):
    run_dir = killed_at(6, whole[0], tmp_path / "elastic")
    done = command("train.py", f"--run_dir={run_dir}", "--resume")
    assert done.returncode == 0, done.stderr
    for name, before in (("replicas", "2"), ("workers", "2")):
        assert f"warning: {name} was {before}, is " in done.stdout
    assert "the results may differ in the last bits" in done.stdout
    assert "resuming at step 6" in done.stdout


# As if the processor had what the file beside this script says.
ANOTHER_PROCESSOR = """
import pathlib, runpy, sys
from runtime import console
with console.quiet_import():
    from engine import devices
devices._PROCESSOR = pathlib.Path(__file__).with_suffix("")
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture
def alone(server):
    """Starts a worker whose peer never comes."""

    def start(index, *words, workers=None, program=("train.py",)):
        workers = workers or [f"127.0.0.1:{port}" for port in free_ports(2)]
        return server.start(*program, *words, environment=environment(workers, index))

    return start


@pytest.mark.slow
def test_a_worker_alone_says_for_whom_it_waits_and_gives_up(alone, tmp_path):
    process = alone(0, f"--run_dir={tmp_path}/run", "--data=digits", "--cluster_timeout=3")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == START_AGAIN
    assert "waiting for worker 1 (127.0.0.1:" in output
    assert errors.count("\n") == 1 and "did not come within 3 s (--cluster_timeout)" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_worker_that_waits_ends_at_a_signal(alone, tmp_path):
    process = alone(1, f"--run_dir={tmp_path}/run", "--data=digits")
    while len(lines := process.output()[0].splitlines()) < 2 and process.poll() is None:
        time.sleep(0.02)
    assert "settings" in lines[0] and "waiting for worker 0" in lines[1]
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143 and time.monotonic() - began < 5


@pytest.mark.slow
def test_workers_that_were_started_otherwise_end_with_an_error_each(alone, tmp_path):
    places = [place.address for place in loopback()]
    words = [f"--run_dir={tmp_path}/run", "--data=digits"]
    pair = [alone(index, *words, f"--seed={index}", workers=places) for index in range(2)]
    for process in pair:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "has seed=1" in errors and errors.count("\n") == 1


@pytest.mark.slow
def test_workers_on_other_processors_agree_on_a_precision(alone, tmp_path):
    places = [place.address for place in loopback()]
    words, pair = [f"--run_dir={tmp_path}/run", "--data=digits"], []
    for index, flag in enumerate(("avx512_bf16", "avx2")):
        (tmp_path / flag).write_text(f"flags: {flag}")
        program = tmp_path / f"{flag}.py"
        program.write_text(ANOTHER_PROCESSOR)
        pair.append(alone(index, *words, workers=places, program=(program,)))
    for process in pair:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2 and errors.count("\n") == 1
        assert "has precision=float32" in errors and "precision=mixed_bfloat16" in errors
