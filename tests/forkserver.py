"""Runs the project's scripts in forks of a process that has imported TensorFlow already.

A start costs 4 seconds otherwise, nearly all of it imports. Nothing of TensorFlow runs in the
parent, so every fork is as a new process: `{"argv", "stdout", "stderr"}` a line in (the last two
are paths), the exit code a line out.
"""

import json
import os
import runpy
import signal
import sys
import traceback


def run(argv, stdout, stderr):
    """Runs a script as `python SCRIPT ...` does, or `-m MODULE`; ends the process."""
    for descriptor, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    start = runpy.run_path
    if argv[0] == "-m":
        start, argv = runpy.run_module, argv[1:]
        sys.modules.pop(argv[0], None)
    sys.argv = argv
    # Who starts the tests in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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


def main():
    """Serves until standard input ends."""
    sys.path.insert(0, os.getcwd())
    import models  # noqa: F401
    from data import convert  # noqa: F401
    from data.pipeline import pipeline  # noqa: F401
    from data.sources import sources  # noqa: F401
    from engine import runs, schedules, steps, summaries  # noqa: F401
    from training import progress  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(**json.loads(line))
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()


if __name__ == "__main__":
    main()
