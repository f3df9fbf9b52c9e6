"""The command line of every program: quiet start, one line per error, exit codes, signals.

Exit codes: 0 done; 1 the work failed part-way; 2 the user's input is wrong; 75 another process of
the same training has ended, so that all must be started again; 128 + n stopped by signal n.
"""

import argparse
import contextlib
import errno
import gc
import io
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import flags as absl_flags

from runtime import flags

PYTHONS = (3, 11), (3, 14)  # from, below: as in pyproject.toml
FAILED = 1
WRONG_INPUT = 2
START_AGAIN = 75  # EX_TEMPFAIL of sysexits.h

if not PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]:  # before syntax that they reject
    received = ".".join(map(str, sys.version_info[:2]))
    sys.stderr.write(f"error: expected Python 3.11 to 3.13, received {received}\n")
    sys.exit(WRONG_INPUT)

# oneDNN's kernels even on processors without AVX-512, for which TensorFlow does not choose them:
# there cifar_resnet20 trains 1.9 times as fast.
_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
_LINE_BREAKS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")  # as in str.splitlines
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # not the user's mistake
_UNREAD = {errno.EPIPE, errno.EIO}  # a closed pipe, a terminal that has hung up

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # hides remarks on fonts and its cache


def prepare_tensorflow() -> None:
    """Sets environment variables that TensorFlow reads at its import, unless the user has."""
    os.environ.update(_TENSORFLOW | os.environ)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Imports TensorFlow without what its C++ code writes to stderr, and without collections.

    No environment variable turns these lines off, because they are written before its logging
    starts. They are shown if the import fails. What was imported stays: garbage collections, of
    which every training has some, would otherwise spend 0.2 s each on its million objects.
    """
    prepare_tensorflow()
    gc.disable()
    sys.stderr.flush()
    console = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            with os.fdopen(os.dup(console), "wb") as stderr:
                shutil.copyfileobj(hidden, stderr)
            raise
        finally:
            os.dup2(console, 2)
            os.close(console)
            gc.freeze()
            gc.enable()


def fail(message: object, code: int = WRONG_INPUT) -> NoReturn:
    """Prints one line, `error: message`, on stderr and exits with `code`."""
    print("error:", printable(" ".join(str(message).split())), file=sys.stderr, flush=True)
    sys.exit(code)


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Ends the process after the block, with the code of an exit in it, without any clean-up."""
    code = 0
    try:
        yield
    except SystemExit as end:
        code = end.code or 0
    sys.stdout.flush()
    os._exit(code)


def printable(text: str) -> str:
    """Escapes unprintable characters, because names may be untrusted."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """Converts a text to one line of valid UTF-8, because names may be untrusted.

    Line breaks become blanks; lone surrogates, which stand for undecodable bytes, become escapes.
    """
    return _LINE_BREAKS.sub(" ", text).encode("utf-8", "backslashreplace").decode()


def size(bytes: int) -> str:
    """Formats a size in bytes, as in "1.2 GB" or "34.5 MB"."""
    return f"{bytes / 1e9:,.1f} GB" if bytes >= 1e9 else f"{bytes / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    """Formats a time, as in "3 h 25 min", "5 min 1 s" or "45 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def stop_signals() -> list[int]:
    """Returns the signals that ask this process to stop; SIGHUP unless it is ignored (nohup)."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if is_ignored else [signal.SIGHUP])]


class _Stopped(KeyboardInterrupt):
    """A signal, by its number, as an exception, so that unfinished work is cleaned up."""


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Ends the process with one error line for wrong input, failed work or a signal."""

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that closes may send it again
        raise _Stopped(number)

    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in previous.keys() & set(stop_signals()):
        signal.signal(number, stop)
    try:
        yield
    except (ValueError, OSError) as error:
        fail(error, FAILED if getattr(error, "errno", None) in _FULL else WRONG_INPUT)
    except RuntimeError as error:
        fail(error, FAILED)
    except KeyboardInterrupt as interrupt:
        number = interrupt.args[0] if isinstance(interrupt, _Stopped) else signal.SIGINT
        fail("interrupted", 128 + number)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Parser(argparse.ArgumentParser):
    """Parser of modules that run with `-m`: a wrong argument is a user error, `~` is expanded."""

    def parse_args(self, args: Sequence[str] | None = None) -> argparse.Namespace:  # noqa: D102
        values = vars(super().parse_args(args))
        return argparse.Namespace(**{name: expanded(value) for name, value in values.items()})

    def error(self, message: str) -> None:
        """Prints the error line and exits with 2."""
        fail(message)


def parse(
    argv: list[str],
    flag_values: absl_flags.FlagValues = absl_flags.FLAGS,
    *,
    descriptions: Sequence[type] = (),
) -> list[str]:
    """Parses absl flags; a wrong one is a user error, `--help` prints the flags and exits 0.

    A value that begins with `~/` is a path: the shell expands it only at the beginning of a word.

    Args:
        argv: The command line, the program's name first.
        flag_values: The flags to set; values of an earlier parse are reset.
        descriptions: Dataclasses that `runtime.flags.define` was called with, for `--help`.

    Returns:
        The positional arguments.
    """
    if "help" not in flag_values:
        absl_flags.DEFINE_bool("help", False, "show this text", flag_values=flag_values)
    flag_values.unparse_flags()
    for name in flag_values:
        flag_values[name].unparse()
    try:
        positional = flag_values(argv)
    except absl_flags.Error as error:
        fail(error)
    if flag_values["help"].value:
        text = flags.help_text(*descriptions, flag_values=flag_values)
        print(sys.modules["__main__"].__doc__, text, sep="\n")
        sys.exit(0)
    for name in flag_values:
        flag_values[name].value = expanded(flag_values[name].value)
    return list(map(expanded, positional[1:]))


def refuse_ambiguous(value: str | None, name: str, flag: str = "") -> None:
    """Refuses a value that may mean built-in data or a path.

    Args:
        value: The user's value.
        name: Name of the built-in data.
        flag: The flag of the value, as "--data=".

    Raises:
        ValueError: If the value is the word and a path of that name exists.
    """
    if value == name and os.path.exists(name):
        raise ValueError(
            f"{flag}{name} is built in, but a folder or file {name} exists here: expected "
            f"{flag}./{name} for the latter"
        )


def expanded(value: object) -> object:
    """Replaces a leading `~` in the value of a flag or argument by the home folder."""
    if isinstance(value, list):
        return list(map(expanded, value))
    is_path = isinstance(value, str) and value.startswith("~")
    return os.path.expanduser(value) if is_path else value


class _Output(io.FileIO):
    """The file of an output stream, which becomes /dev/null once its reader has ended."""

    def __init__(self, descriptor: int, *, exit_on_closed_pipe: bool) -> None:
        """Wraps a file descriptor.

        Args:
            descriptor: The file.
            exit_on_closed_pipe: Whether the process ends when the file is a closed pipe.
        """
        super().__init__(descriptor, "w", closefd=False)
        self._exit_on_closed_pipe = exit_on_closed_pipe

    def write(self, data: bytes) -> int:
        """Writes data; returns the number of bytes written."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _UNREAD:
                raise
            if self._exit_on_closed_pipe and error.errno == errno.EPIPE:
                os._exit(128 + signal.SIGPIPE)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return len(data)


def open_streams(*, exit_on_closed_pipe: bool = False) -> None:
    """Prepares stdout and stderr: the work goes on when their readers end.

    Every line is written at once and whole, also with PYTHONUNBUFFERED: processes may share a log.
    Undecodable bytes in names of files are written as escapes.

    Args:
        exit_on_closed_pipe: Whether the process ends if its stdout has no reader (`| head`).
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        file = io.BufferedWriter(
            _Output(stream.fileno(), exit_on_closed_pipe=exit_on_closed_pipe and name == "stdout")
        )
        lines = {"line_buffering": True, "errors": "backslashreplace"}
        setattr(sys, name, io.TextIOWrapper(file, stream.encoding, **lines))


def run(main: Callable[[list[str]], None], *, exit_on_closed_pipe: bool = False) -> None:
    """Runs a script's main; Ctrl-C and TensorFlow's own errors end it with one line.

    Args:
        main: Function of the command line.
        exit_on_closed_pipe: Whether the process ends when its stdout has no reader.
    """
    open_streams(exit_on_closed_pipe=exit_on_closed_pipe)
    try:
        with tensorflow_errors():
            main(sys.argv)
    except KeyboardInterrupt:
        fail("interrupted", 128 + signal.SIGINT)


@contextlib.contextmanager
def tensorflow_errors() -> Iterator[None]:
    """Ends the process with one line for an error of TensorFlow (out of memory, ...)."""
    try:
        yield
    except sys.modules["tensorflow"].errors.OpError as error:
        fail(error.message.strip().partition("\n")[0], FAILED)


class Interrupts:
    """Records a signal to stop, so that the step can be finished.

    A second one ends the process at once, except SIGHUP, which a closing terminal may send twice.
    """

    def __init__(self, line: str = "") -> None:
        """Sets the handlers of the signals.

        Args:
            line: Line to write to stderr when the first signal arrives.
        """
        self.received: int | None = None
        self._line = line
        for number in stop_signals():
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        if self.received is None:
            self.received = number
            with contextlib.suppress(OSError):  # the terminal is closed
                os.write(2, self._line.encode())  # print may be what the signal interrupts
        elif number != signal.SIGHUP:
            os._exit(128 + number)
