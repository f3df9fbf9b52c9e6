"""Limits of time and memory, and messages, for processes that decode untrusted files."""

import logging
import os
import pickle
import resource
import signal
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import cv2

MEMORY = 4 << 30  # bytes of a process; with the largest images it has 1.5 to 3.2 GB
OUT_OF_TIME = signal.SIGPROF  # ends a process that exceeds its time, even inside a decoder
REPOSITORY = Path(__file__).parent.parent.parent

_LENGTH = struct.Struct("<Q")


def confine(folder: str) -> None:
    """Prepares this process to decode untrusted files: no output, at most `MEMORY`.

    Args:
        folder: Working folder.
    """
    os.chdir(folder)
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's: the parent closes our stdin
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    cv2.setNumThreads(1)
    logging.disable()  # no remarks of Pillow: the parent prints one line per file
    warnings.simplefilter("ignore")


def limit_time(seconds: float) -> None:
    """Ends this process with `OUT_OF_TIME` after `seconds` of CPU time; 0 for no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def send(stream: BinaryIO, message: object) -> None:
    """Sends a message to a process of our own; pickle requires that it trusts the sender."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> object:
    """Receives a message of `send`; raises EOFError if the other end is closed."""
    prefix = stream.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        raise EOFError
    size = _LENGTH.unpack(prefix)[0]
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)
