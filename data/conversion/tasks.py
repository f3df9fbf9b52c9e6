"""A conversion by several tasks, on any machines that share the file system of its output.

Every task makes its share of the shards in the same `OUTPUT.partial`. Tasks may run in parallel:
each holds a shared claim of that folder, and the lock of its number. A task that ends when no shard
is missing claims the folder exclusively and publishes. A plain conversion holds such a claim all
the time, so that it and tasks exclude each other.
"""

import contextlib

from data.conversion.conversion import AlreadyConvertedError, Conversion, leaving, scratch_folder
from data.conversion.journal import PartialError, accounts_in, tasks_of
from data.conversion.plan import Planned, Task
from runtime.files import BusyError, claimed, locked, partial


def run(conversion: Conversion, task: Task) -> dict | None:
    """Makes a task's share of the shards, and finishes the conversion if it is the last.

    Complete shards of an earlier attempt are kept. Prints a line about the state on stdout.

    Returns:
        The content of dataset.json if this process has published it, else None.

    Raises:
        BusyError: If another process runs the same task, or a plain conversion.
        PartialError: If `OUTPUT.partial` is of another conversion, or of another number of tasks.
        ValueError, OSError, RuntimeError: As `Conversion.make`.
    """
    planned = []
    if not conversion.is_published():
        with contextlib.suppress(AlreadyConvertedError):  # by the other tasks just now
            planned = _make(conversion, task)
    share = task.share(planned)
    made = accounts_in(partial(conversion.output), [shard.file for shard in planned])
    done = f"{len(share)} of {len(planned)} shards done" if share else "nothing to do"
    if conversion.is_published():
        print(f"task {task}: {done}; {conversion.output} is complete", flush=True)
        return None
    if missing := len(planned) - len(made):
        print(f"task {task}: {done}; still to be made: {missing}", flush=True)
        return None
    print(f"task {task}: {done}; all are there", flush=True)
    return finish(conversion, planned)


def finish(conversion: Conversion, planned: list[Planned] | None = None) -> dict | None:
    """Waits for running tasks and publishes the conversion that they have made.

    Args:
        conversion: The conversion.
        planned: All its shards; None to plan them.

    Returns:
        The content of dataset.json; None if another process has published it, which is printed.

    Raises:
        PartialError: If shards are missing or `OUTPUT.partial` is of another conversion.
        ValueError, OSError, RuntimeError: As `Conversion.finish`.
    """
    output = conversion.output

    def on_wait():
        conversion.say(f"waiting for the processes that are at work in {partial(output)}")

    with claimed(output, on_wait) as folder, leaving(folder, output):
        if conversion.is_published():
            print(f"{output} is complete", flush=True)
            return None
        tasks = tasks_of(folder)
        if tasks is None:
            raise PartialError(f"{folder}: no conversion to finish, expected one made by tasks")
        if planned is None:
            with scratch_folder(folder, Task(0, tasks)) as scratch:
                planned = conversion.plan(scratch)
        return conversion.finish(folder, planned, tasks)


def _make(conversion: Conversion, task: Task) -> list[Planned]:
    """Makes a task's share; returns all shards of the conversion."""
    output = conversion.output

    def on_wait():
        conversion.say(f"waiting for the process that finishes {output}")

    is_finishing = tasks_of(partial(output)) == task.count
    message = f"another process is doing task {task} of {output}"
    try:
        with (
            claimed(output, on_wait if is_finishing else None, shared=True) as folder,
            locked(folder, f"task-{task.index}", message),
        ):
            conversion.check_free()  # it may have waited
            return conversion.make(folder, task)
    except BaseException:
        with contextlib.suppress(BusyError), claimed(output) as folder, leaving(folder, output):
            raise  # there was no other task
        raise
