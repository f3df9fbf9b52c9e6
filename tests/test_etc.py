"""etc/: trainings on several machines, with ssh, Slurm and Kubernetes played by small programs."""

import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DONE, PIPES, ROOT, step_files

from engine import cluster

ETC = ROOT / "etc"
DIGITS = ("--data=digits", "--epochs=4", "--threads=1", "--checkpoint_steps=5")
JOB = str(2 * os.getpid())  # its ports are this machine's

# Stands for python: notes how it was started, then does what a test says.
STUB = f"""#!{sys.executable} -S
import json, os, signal, sys, time
from pathlib import Path

here = Path(__file__).parent
config = json.loads(os.environ.get("TF_CONFIG", "null"))
index = config["task"]["index"] if config else int(os.environ["SLURM_PROCID"])
calls = here / f"calls-{{index}}"
with open(calls, "a") as file:
    file.write(json.dumps({{"config": config, "argv": sys.argv[1:], "pid": os.getpid()}}) + "\\n")
tries = len(calls.read_text().splitlines()) - 1

def say(text, file=sys.stdout):
    file.write(text + "\\n")  # at once, unlike print
    file.flush()

def save(step):
    (here / "run" / "checkpoints").mkdir(parents=True, exist_ok=True)
    (here / "run" / "run.json").touch()
    (here / "run" / "checkpoints" / f"step-{{step:08d}}.safetensors").touch()

"""

GONE = """
if index: sys.exit(1)
time.sleep(1)
say('worker 1 has ended', sys.stderr)
sys.exit(1)
"""

# Drops the host. As with the real one, what it runs does not end when it is killed.
SSH = '#!/usr/bin/env bash\nshift\nexec setsid --wait bash -c "$*"\n'

# As the real one: passes no signal on to its tasks but SIGKILL, and returns the highest code.
SRUN = f"""#!{sys.executable} -S
import json, os, signal, subprocess, sys, time
from pathlib import Path

here, words, options = Path(__file__).parent, sys.argv[1:], {{}}
while words[0].startswith("--"):
    name, _, value = words.pop(0).partition("=")
    options[name] = int(value)
with open(here / "srun.log", "a") as file:
    file.write(json.dumps(options) + "\\n")
step = {{
    "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURMD_NODENAME": "localhost",
    "SLURM_STEP_TASKS_PER_NODE": "2",
}}
tasks = [
    subprocess.Popen(words, env=os.environ | step | {{"SLURM_PROCID": i, "SLURM_LOCALID": i}})
    for i in "01"
]
def kill(*_):
    for task in tasks:
        task.kill()
signal.signal(signal.SIGTERM, kill)
(here / "step.new").write_text(" ".join(str(task.pid) for task in tasks))
(here / "step.new").rename(here / "step")
end = None
while None in [task.poll() for task in tasks]:
    ended = [task for task in tasks if task.returncode is not None]
    if ended and end is None:
        end = time.monotonic() + options["--wait"]
    if end and time.monotonic() > end:
        kill()
    if options["--kill-on-bad-exit"] and any(task.returncode for task in ended):
        kill()
    time.sleep(0.02)
(here / "step").unlink()
sys.exit(max(code if code >= 0 else 128 - code for code in [task.returncode for task in tasks]))
"""

SCANCEL = f"""#!/usr/bin/env bash
[ "$*" = "--signal=TERM {JOB}" ] && kill -TERM $(cat "${{0%/*}}/step")
"""

SCONTROL = '#!/usr/bin/env bash\necho "$*" >>"${0%/*}/scontrol.log"\n'


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


def heed_interrupts():
    """Who starts the tests in the background, or with nohup, has them ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def stub(tmp_path):
    """Makes a python that does this."""
    return lambda body: program(tmp_path / "python", STUB + body)


@pytest.fixture
def ssh(tmp_path):
    """Starts etc/ssh.sh with these arguments and variables, where every host is this machine."""
    fake = program(tmp_path / "ssh", SSH)

    def start(*words, **variables):
        own = {"SSH": fake, "LOGS": tmp_path, "DIRECTORY": ROOT, "PYTHON": sys.executable}
        own = {name: str(value) for name, value in (own | variables).items()}
        command = [str(ETC / "ssh.sh"), *words]
        # As in a terminal: a group of its own, and Ctrl-C is not ignored.
        alone = {"start_new_session": True, "preexec_fn": heed_interrupts}
        return subprocess.Popen(command, env=os.environ | own, cwd=tmp_path, **PIPES, **alone)

    return start


def start_slurm(folder, *words, python=sys.executable):
    """Starts etc/slurm.sh as Slurm would, in a job of two tasks."""
    for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        program(folder / name, text)
    spool = shutil.copy(ETC / "slurm.sh", folder / "slurm_script")  # it runs a copy
    own = {"SLURM_JOB_ID": JOB, "SLURM_CPUS_PER_TASK": "3", "PYTHON": str(python)}
    own["PATH"] = f"{folder}:{os.environ['PATH']}"
    return subprocess.Popen(["bash", spool, *words], env=os.environ | own, cwd=ROOT, **PIPES)


@pytest.fixture
def slurm(tmp_path):
    return functools.partial(start_slurm, tmp_path)


def ended(process, timeout=60):
    stdout, stderr = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def calls(folder, index):
    return [json.loads(line) for line in (folder / f"calls-{index}").read_text().splitlines()]


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def eventually(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def processes(text, variable=""):
    """Ids of processes with this in their command line, and that in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if text in words and variable in (folder / "environ").read_bytes().decode():
                found.append(int(folder.name))
        except (OSError, UnicodeDecodeError):
            continue
    return found


def test_the_shell_scripts_are_clean():
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    scripts = sorted(map(str, ETC.glob("*.sh")))
    assert len(scripts) == 3 and all(os.access(script, os.X_OK) for script in scripts)
    command = [shutil.which("shellcheck", path=path), "--exclude=SC2015", *scripts]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# ssh


def test_ssh_starts_a_worker_on_each_host_with_the_flags_as_they_are(ssh, stub, tmp_path):
    python = stub("say(f'output of {index}'); say('an error', sys.stderr)")
    flags = [f"--run_dir={tmp_path}/run", "--data=two  words", "--x=it's", '--y="$HOME" \\ `z`', ""]
    done = ended(ssh("node1", "user@node2", "node1", "--", *flags, PORT=5000, PYTHON=python))
    assert (done.returncode, done.stdout) == (0, "output of 0\n"), done.stderr
    assert done.stderr == "an error\n"
    for index in (1, 2):
        log = tmp_path / f"ssh-worker-{index}.log"
        expected = ["an error", f"output of {index}"]
        eventually(lambda log=log, lines=expected: sorted(log.read_text().splitlines()) == lines)
    for index in range(3):
        [call] = calls(tmp_path, index)
        assert call["argv"] == ["train.py", *flags]
        assert call["config"] == {
            "cluster": {"worker": ["node1:5000", "node2:5000", "node1:5001"]},
            "task": {"type": "worker", "index": index},
        }


@pytest.mark.parametrize(
    "words",
    [(), ("a", "b"), ("--", "--run_dir=x"), ("a", "b", "--"), ("a", "--run_dir=x"), ("a;b", "--")],
)
def test_ssh_refuses_what_it_cannot_start(words, ssh, stub, tmp_path):
    done = ended(ssh(*words, PYTHON=stub("")))
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("calls-*"))


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((0, 0), 0), ((75, 1), 1), ((2, 75), 2), ((143, 143), 143), ((0, 130), 130), ((75, 127), 127)],
)
def test_ssh_ends_with_what_a_worker_says(codes, expected, ssh, stub, tmp_path):
    python = stub(f"sys.exit({codes}[index])")
    done = ended(ssh("a", "b", "--", f"--run_dir={tmp_path}/run", PYTHON=python))
    assert done.returncode == expected, done.stderr
    assert len(calls(tmp_path, 0)) == len(calls(tmp_path, 1)) == 1


def test_ssh_starts_all_again_as_long_as_they_save(ssh, stub, tmp_path):
    """Every other try saves something; the last is the seventh."""
    python = stub(
        "tries % 2 or index or save(tries)\n"
        "if tries < 6: os.kill(os.getpid(), signal.SIGKILL) if index else sys.exit(75)"
    )
    done = ended(ssh("a", "b", "--", f"--run_dir={tmp_path}/run", PYTHON=python))
    assert done.returncode == 0, done.stderr
    for index in (0, 1):
        resumed = [call["argv"][2:] for call in calls(tmp_path, index)]
        assert resumed == [[], *6 * [["--resume"]]]


def test_ssh_gives_up_when_nothing_is_saved(ssh, stub, tmp_path):
    python = stub("tries or index or save(1)\nsys.exit(75)")
    done = ended(ssh("a", "b", "--", f"--run_dir={tmp_path}/run", PYTHON=python))
    assert done.returncode == 75 and "3 tries have saved nothing" in done.stderr
    assert len(calls(tmp_path, 0)) == len(calls(tmp_path, 1)) == 4


def test_ssh_kills_workers_that_do_not_listen(ssh, stub, tmp_path):
    python = stub(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsave(tries)\nsay('up')\ntime.sleep(100)"
    )
    words = ("a", "b", "--", f"--run_dir={tmp_path}/run")
    process = ssh(*words, PYTHON=python, GRACE=1)
    assert process.stdout.readline() == "up\n"
    eventually(lambda: (tmp_path / "ssh-worker-1.log").read_text() == "up\n")
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    done = ended(process, 15)
    assert done.returncode == 130 and done.stderr.count("ended with 137") == 2
    eventually(lambda: not processes(str(tmp_path)), 5)


def test_ssh_lets_a_worker_say_that_another_is_gone(ssh, stub, tmp_path):
    python = stub(GONE)
    done = ended(ssh("a", "b", "--", f"--run_dir={tmp_path}/run", PYTHON=python))
    assert done.returncode == 1 and "worker 1 has ended\n" in done.stderr


def test_ssh_ends_those_that_do_not_end_with_another(ssh, stub, tmp_path):
    python = stub("sys.exit(2) if index else time.sleep(100)")
    process = ssh("a", "b", "--", f"--run_dir={tmp_path}/run", PYTHON=python, GRACE=1)
    assert ended(process, 15).returncode == 2
    eventually(lambda: not processes(str(tmp_path)), 5)


def test_workers_save_when_their_connection_is_lost(ssh, stub, tmp_path):
    python = stub(
        "say('up')\n"
        "def stop(*_):\n"
        "    for _ in range(10):\n"
        "        say('stopping')\n"
        "        say('stopping', sys.stderr)\n"
        "        time.sleep(0.1)\n"
        "    save(index)\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\ntime.sleep(100)"
    )
    process = ssh("a", "b", "--", f"--run_dir={tmp_path}/run", PYTHON=python)
    assert process.stdout.readline() == "up\n"
    eventually(lambda: (tmp_path / "ssh-worker-1.log").read_text() == "up\n")
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    eventually(lambda: len(step_files(tmp_path / "run")) == 2)
    eventually(lambda: not processes(str(tmp_path)), 5)


@pytest.fixture(scope="module")
def digest(tmp_path_factory):
    """What two workers make of `DIGITS`, started by etc/slurm.sh without any trouble."""
    folder = tmp_path_factory.mktemp("slurm")
    done = ended(start_slurm(folder, *DIGITS, f"--run_dir={folder}/run"), 300)
    assert done.returncode == 0, done.stderr
    [(step, of_one), (_, of_other)] = DONE.findall(done.stdout)
    assert step == "44" and of_one == of_other
    return of_one


@pytest.mark.slow
def test_ssh_goes_on_after_a_worker_was_killed_and_trains_as_slurm_does(ssh, digest, tmp_path):
    words = ("localhost", "localhost", "--", *DIGITS, f"--run_dir={tmp_path}/run")
    process = ssh(*words, PORT=free_port())
    eventually(lambda: step_files(tmp_path / "run"), 120)
    [worker] = processes(f"--run_dir={tmp_path}/run", '"index": 1}}\0')
    os.kill(worker, signal.SIGKILL)
    done = ended(process, 300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("starting all workers again") == 1
    assert "worker 1 (localhost) ended with 137" in done.stderr
    assert re.search("resuming at step [1-9]", done.stdout)
    assert [found[1] for found in DONE.findall(done.stdout)] == [digest]
    log = tmp_path / "ssh-worker-1.log"
    eventually(lambda: [found[1] for found in DONE.findall(log.read_text())] == [digest])


@pytest.mark.slow
def test_ssh_stops_all_workers_with_a_checkpoint(ssh, tmp_path):
    words = ("localhost", "localhost", "--", *DIGITS, "--epochs=90", f"--run_dir={tmp_path}/run")
    process = ssh(*words, PORT=free_port())
    saved = eventually(lambda: step_files(tmp_path / "run"), 120)
    process.send_signal(signal.SIGTERM)
    done = ended(process, 60)
    assert done.returncode == 143, done.stderr
    assert done.stderr.count("ended with 143") == 2 and "killed" not in done.stderr.lower()
    assert done.stdout.count("stopped; go on with: ") == 1
    assert step_files(tmp_path / "run")[-1] > saved[-1]
    eventually(lambda: not processes(str(tmp_path)), 5)


# Slurm


def sbatch_options():
    lines = (ETC / "slurm.sh").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    found = [line.split()[1] for line in lines[:first] if line.startswith("#SBATCH")]
    return dict((option.partition("=")[::2]) for option in found)


def last_warning():
    """The signal that sbatch is asked to send to the script alone before the time is up."""
    name = re.fullmatch(r"B:(\w+)@\d+", sbatch_options()["--signal"])[1]
    return signal.Signals[f"SIG{name}"]


def requeued(folder):
    path = folder / "scontrol.log"
    return path.read_text().splitlines() if path.exists() else []


def test_slurm_asks_for_what_it_needs():
    options = sbatch_options()
    assert options["--ntasks-per-node"] == "1" and int(options["--nodes"]) > 1
    assert {"--requeue", "--gpus-per-node", "--time"} <= set(options)
    assert options["--open-mode"] == "append"


def test_slurm_passes_the_flags_on(slurm, stub, tmp_path):
    flags = [f"--run_dir={tmp_path}/run", "--data=two  words", "--x=it's"]
    done = ended(slurm(*flags, python=stub("say(str(index))")))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["0", "1"]
    assert [call["argv"] for i in "01" for call in calls(tmp_path, i)] == 2 * [["train.py", *flags]]
    options = json.loads((tmp_path / "srun.log").read_text())
    assert options["--cpus-per-task"] == 3
    assert 10 < options["--wait"] < 300  # workers need 10 s to notice that one is gone
    assert not requeued(tmp_path)


@pytest.mark.parametrize("words", [(), ("--data=digits",), ("--run_dir=",)])
def test_slurm_expects_a_run_folder(words, slurm, stub, tmp_path):
    done = ended(slurm(*words, python=stub("")))
    assert done.returncode == 2 and done.stderr.startswith("error: expected --run_dir=DIR")
    assert not list(tmp_path.glob("calls-*"))


@pytest.mark.parametrize(
    ("codes", "expected"), [((1, 0), 1), ((2, 2), 2), ((143, 143), 143), ((0, 127), 127)]
)
def test_slurm_ends_where_nothing_helps(codes, expected, slurm, stub, tmp_path):
    python = stub(f"sys.exit({codes}[index])")
    done = ended(slurm(f"--run_dir={tmp_path}/run", python=python))
    assert done.returncode == expected, done.stderr
    assert len(calls(tmp_path, 0)) == 1 and not requeued(tmp_path)


def test_slurm_starts_all_again_as_long_as_they_save(slurm, stub, tmp_path):
    python = stub(
        "tries % 2 or index or save(tries)\n"
        "if tries < 6: os.kill(os.getpid(), signal.SIGKILL) if index else sys.exit(75)"
    )
    done = ended(slurm(f"--run_dir={tmp_path}/run", python=python))
    assert done.returncode == 0, done.stderr
    resumed = [call["argv"][2:] for call in calls(tmp_path, 1)]
    assert resumed == [[], *6 * [["--resume"]]]
    assert not requeued(tmp_path)


def test_slurm_gives_up_when_nothing_is_saved(slurm, stub, tmp_path):
    python = stub("tries or index or save(1)\nsys.exit(75)")
    done = ended(slurm(f"--run_dir={tmp_path}/run", python=python))
    assert done.returncode == 75 and "3 tries have saved nothing" in done.stderr
    assert len(calls(tmp_path, 0)) == 4 and not requeued(tmp_path)


def test_slurm_lets_a_worker_say_that_another_is_gone(slurm, stub, tmp_path):
    done = ended(slurm(f"--run_dir={tmp_path}/run", python=stub(GONE)))
    assert (done.returncode, done.stderr) == (1, "worker 1 has ended\n")


def test_slurm_does_not_queue_a_job_again_that_has_saved_nothing(slurm, stub, tmp_path):
    python = stub("say('up')\ntime.sleep(100)")
    process = slurm(f"--run_dir={tmp_path}/run", python=python)
    assert process.stdout.readline() == "up\n"
    eventually((tmp_path / "step").exists)
    process.send_signal(last_warning())
    done = ended(process)
    assert done.returncode == 143 and "too short" in done.stderr
    assert not requeued(tmp_path)


def test_slurm_queues_a_job_again_when_all_have_saved(slurm, stub, tmp_path):
    python = stub(
        "def stop(*_):\n"
        "    time.sleep(1)\n"
        "    save(index)\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\nsay('up')\ntime.sleep(100)"
    )
    process = slurm(f"--run_dir={tmp_path}/run", python=python)
    assert [process.stdout.readline() for _ in "01"] == ["up\n", "up\n"]
    eventually((tmp_path / "step").exists)
    process.send_signal(last_warning())
    assert ended(process).returncode == 143
    assert len(step_files(tmp_path / "run")) == 2
    assert len(calls(tmp_path, 0)) == 1 and requeued(tmp_path) == [f"requeue {JOB}"]


@pytest.mark.parametrize("placed", ["block", "cyclic"])
def test_every_task_of_slurm_finds_itself(placed, monkeypatch):
    """By name node10 comes before node2, in Slurm's list after it."""
    nodes = ["node2", "node10"]
    tasks = [(node, local) for node in nodes for local in (0, 1)]
    if placed == "cyclic":
        tasks.sort(key=lambda task: task[1])
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "123456")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node[2,10]")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "2(x2)")
    found = []
    for rank, (node, local) in enumerate(tasks):
        monkeypatch.setenv("SLURM_PROCID", str(rank))
        monkeypatch.setenv("SLURM_LOCALID", str(local))
        monkeypatch.setenv("SLURMD_NODENAME", node)
        found.append(cluster.from_environment())
    [workers] = {each.workers for each in found}
    assert sorted(each.index for each in found) == [0, 1, 2, 3]
    for (node, local), each in zip(tasks, found, strict=True):
        assert workers[each.index].split(":") == [node, str(10_000 + 16 * (123456 % 1250) + local)]


# Kubernetes


@pytest.fixture(scope="module")
def objects():
    import yaml

    found = list(yaml.safe_load_all((ETC / "kubernetes.yaml").read_text()))
    return {each["kind"]: each for each in found}


@pytest.fixture
def pod(objects):
    return objects["Job"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", ["1.33", "1.37"])
def test_kubernetes_knows_all_fields(version, objects):
    import kubernetes_validate

    assert set(objects) == {"Service", "NetworkPolicy", "Job"}
    for each in objects.values():
        assert kubernetes_validate.validate(each, version, strict=True) == version


def test_kubernetes_replaces_workers_and_ends_on_errors(objects, pod):
    job = objects["Job"]["spec"]
    assert job["completionMode"] == "Indexed" and pod["restartPolicy"] == "Never"
    assert job["completions"] == job["parallelism"] > 1
    assert job["backoffLimitPerIndex"] > 1 and job["maxFailedIndexes"] == 0
    rules = {rule["action"]: rule for rule in job["podFailurePolicy"]["rules"]}
    on_codes = rules["FailJob"]["onExitCodes"]
    assert (
        on_codes["operator"] == "In" and on_codes["containerName"] == pod["containers"][0]["name"]
    )
    assert on_codes["values"] == sorted(on_codes["values"]) and {1, 2} <= set(on_codes["values"])
    assert not {75, 137, 142, 143} & set(on_codes["values"])
    assert "onExitCodes" not in rules["Ignore"]
    assert job["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}


def test_kubernetes_lets_only_the_job_reach_the_workers(objects, pod):
    mine = {"batch.kubernetes.io/job-name": objects["Job"]["metadata"]["name"]}
    assert objects["Service"]["spec"]["clusterIP"] == "None"
    assert objects["Service"]["spec"]["selector"] == mine
    assert objects["Service"]["metadata"]["name"] == pod["subdomain"]
    policy = objects["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == {"matchLabels": mine} and policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": mine}}]}]


def test_kubernetes_gives_workers_no_rights_but_their_volume(pod):
    [worker] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert not worker["securityContext"]["allowPrivilegeEscalation"]
    assert worker["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["shareProcessNamespace"] and not pod["automountServiceAccountToken"]
    mounts = {mount["name"]: mount["mountPath"] for mount in worker["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    variables = {each["name"]: each["value"] for each in worker["env"]}
    assert variables["RUN_DIR"].startswith(mounts["shared"])
    assert f"--threads={worker['resources']['requests']['cpu']}" in worker["args"]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("begun", [False, True])
def test_kubernetes_command_makes_workers(index, begun, objects, pod, stub, tmp_path):
    [worker] = pod["containers"]
    assert not any("$(" in word for word in worker["command"])  # Kubernetes would expand it
    stub("")
    run_dir = tmp_path / "a run"
    run_dir.mkdir()
    if begun:
        (run_dir / "run.json").touch()
    own = {each["name"]: each["value"] for each in worker["env"]}
    own |= {"RUN_DIR": str(run_dir), "JOB_COMPLETION_INDEX": str(index)}
    own["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run([*worker["command"], *worker["args"]], env=own, capture_output=True)
    assert done.returncode == 0, done.stderr
    [call] = calls(tmp_path, index)
    resume = ["--resume"] if begun else []
    assert call["argv"] == ["train.py", f"--run_dir={run_dir}", *worker["args"], *resume]
    job, name = objects["Job"], objects["Service"]["metadata"]["name"]
    names = [f"{job['metadata']['name']}-{i}" for i in range(job["spec"]["completions"])]
    assert call["config"] == {
        "cluster": {"worker": [f"{host}.{name}:2222" for host in names]},
        "task": {"type": "worker", "index": index},
    }
