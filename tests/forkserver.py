"""Runs the project's scripts in forks of a process that has imported all they need.

A start costs 4 seconds otherwise, nearly all of it imports. Nothing of TensorFlow runs in the
server, so every fork is as a new process, with signals, an environment and output of its own.
A line of JSON in, one out: `{"argv", "stdout", "stderr", "environment"}` starts a script and
answers its process id; `{"ended", "waits"}` answers the exit code of such a process, or null.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("models", "data", "engine", "training", "inference", "report")


class Server:
    """Starts scripts; the files of their output lie in a folder."""

    def __init__(self, folder):
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, *words, stdout=None, stderr=None, environment=()):
        """Starts `python WORDS`, with more variables in its environment."""
        self._count += 1
        stdout = stdout or self._folder / f"{self._count}.stdout"
        stderr = stderr or self._folder / f"{self._count}.stderr"
        for path in (stdout, stderr):
            path.touch()  # may be read at once
        argv = [str(word) for word in words]
        files = {"stdout": str(stdout), "stderr": str(stderr)}
        pid = self.ask(argv=argv, environment=dict(environment), **files)
        return Process(self, pid, argv, stdout, stderr)

    def ask(self, **request):
        """Sends one request and returns its answer."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        """Ends the server."""
        self._process.stdin.close()
        self._process.wait()


class Process:
    """A script in a fork; its methods are those of subprocess.Popen."""

    def __init__(self, server, pid, argv, stdout, stderr):
        self.pid, self.args, self.returncode = pid, argv, None
        self._server, self._files = server, (stdout, stderr)

    def poll(self):
        return self._ended(waits=False)

    def wait(self, timeout=None):
        if timeout is None:
            return self._ended(waits=True)
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=None):
        self.wait(timeout)
        return self.output()

    def output(self):
        """What it has printed so far: standard output and standard error."""
        return tuple(path.read_text() for path in self._files)

    def _ended(self, waits):
        if self.returncode is None:
            self.returncode = self._server.ask(ended=self.pid, waits=waits)
        return self.returncode


def run(argv, stdout, stderr, environment):
    """Runs a script as `python SCRIPT ...` does, or `-m MODULE`; ends the process."""
    for descriptor, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), descriptor)
    os.environ.update(environment)
    start = runpy.run_path
    if argv[0] == "-m":
        start, argv = runpy.run_module, argv[1:]
        sys.modules.pop(argv[0], None)
    sys.argv = argv
    # Who starts the tests in the background, or with nohup, has them ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    code = 0
    try:
        start(argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def answer(request):
    """Does what a request asks for."""
    if "ended" in request:
        pid, status = os.waitpid(request["ended"], 0 if request["waits"] else os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None
    child = os.fork()
    if child == 0:
        run(**request)
    return child


def main():
    """Serves until standard input ends."""
    sys.path.insert(0, os.getcwd())
    for room in ROOMS:
        for module in pkgutil.walk_packages([str(ROOT / room)], f"{room}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    gc.freeze()  # collections of the forks pass over all this

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
