"""Frames of video files, decoded one after the other by OpenCV in a separate process.

Videos are recognised by their first bytes (`kinds`), because FFmpeg also opens playlists, which
name other files and addresses. No TensorFlow here: the process imports this file.
"""

import itertools
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import cv2

from data.images import kinds, sandbox, workers
from data.images.decode import Storage, Stored, prepare_pixels
from data.images.decoders import MAX_PIXELS, BadImage
from data.images.examples import Example
from data.images.resized import Resized
from data.images.workers import CRASHED, Rejected

_RATE = 25.0  # frames per second of a file that does not say
_RATES = (0.01, 1000.0)  # plausible frame rates; others are ignored
_ENOUGH = 0.9  # fraction of the stated number of frames, which some files only estimate
_OPTIONS = "protocol_whitelist;file|threads;1"  # options of FFmpeg: no network access


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        number: Number of the frame, from 0.
        seconds: Time since the first frame.
        stored: The frame's pixels, as `decode.prepare_pixels` returns them.
    """

    number: int
    seconds: float
    stored: Stored


def is_video(example: object) -> bool:
    """Whether an example is a readable file of a known video format."""
    if not isinstance(example, Example) or example.offset or example.size is not None:
        return False
    try:
        if not os.path.isfile(example.path):
            return False
        with open(example.path, "rb") as file:
            kind = kinds.detect(file.read(kinds.HEAD))
            return kind is not None and kind.is_video
    except OSError:
        return False


def frames(
    path: str | os.PathLike, storage: Storage | Resized, every: int | None = None
) -> Iterator[Frame | Rejected]:
    """Decodes a video in a separate process.

    The video ends where the process crashes, takes more than `workers.SECONDS_PER_IMAGE` of CPU
    time for a frame, or needs more than `sandbox.MEMORY`.

    Args:
        path: The file.
        storage: How the training images were stored, or are resized.
        every: Yield every Nth frame (default: one per second).

    Yields:
        The frames; last, if the file is damaged, the reason why there are no more.

    Raises:
        RuntimeError: If the process fails for another reason than the file.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", "from data.images import video; video.main()", os.getcwd()],
        cwd=sandbox.REPOSITORY,
        env={**os.environ, "OPENCV_FFMPEG_CAPTURE_OPTIONS": _OPTIONS},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # FFmpeg comments on files there
    )
    try:
        request = (os.path.abspath(path), storage, every, workers.SECONDS_PER_IMAGE)
        sandbox.send(process.stdin, request)
        while (frame := sandbox.receive(process.stdout)) is not None:
            if isinstance(frame, str):
                raise RuntimeError(f"decoding a video failed: {frame}")
            yield frame
    except (EOFError, BrokenPipeError):
        late = process.wait() == -sandbox.OUT_OF_TIME
        yield Rejected(f"takes over {workers.SECONDS_PER_IMAGE} s" if late else CRASHED)
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Decodes the video that the parent names on stdin, until the parent stops reading."""
    sandbox.confine(sys.argv[1])
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # a stray print must not end up between the frames
        path, storage, every, seconds = sandbox.receive(sys.stdin.buffer)
        for frame in _decoded(path, storage, every, seconds):
            sandbox.limit_time(0)
            try:
                sandbox.send(replies, frame)
            except BrokenPipeError:
                os._exit(0)
            sandbox.limit_time(seconds)


def _decoded(
    path: str, storage: Storage | Resized, every: int | None, seconds: int
) -> Iterator[Frame | Rejected | str | None]:
    """Yields the frames, the reason if they end early, and None at the end."""
    sandbox.limit_time(seconds)
    try:
        yield from _read(path, storage, every, seconds)
    except BadImage as error:
        yield Rejected(str(error))
    except (MemoryError, cv2.error):
        yield Rejected("needs more memory than there is, or cannot be decoded")
    except Exception:
        yield traceback.format_exc().replace("\n", " | ")
    yield None


def _read(
    path: str, storage: Storage | Resized, every: int | None, seconds: int
) -> Iterator[Frame]:
    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    if not video.isOpened():
        raise BadImage("a video that is cut short, damaged or of an unknown kind")
    sides = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
    width, height = (video.get(side) for side in sides)
    if width * height > MAX_PIXELS:
        raise BadImage(f"more than {MAX_PIXELS:,} pixels: {width:.0f} x {height:.0f}")
    rate = video.get(cv2.CAP_PROP_FPS)
    rate = rate if _RATES[0] <= rate <= _RATES[1] else _RATE
    every = every or max(1, round(rate))
    for number in itertools.count():
        sandbox.limit_time(seconds)
        if not video.grab():
            break
        if number % every == 0:
            is_sound, image = video.retrieve()
            if not is_sound:
                raise BadImage(f"frame {number} is damaged")
            yield Frame(number, number / rate, prepare_pixels(image, storage))
    expected = video.get(cv2.CAP_PROP_FRAME_COUNT)
    if number < max(1, _ENOUGH * expected):
        raise BadImage(f"cut short or damaged: {number} of about {expected:.0f} frames")
