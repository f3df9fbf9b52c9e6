"""video: frames of strangers' files, in a process of their own."""

import os
import subprocess

import cv2
import numpy as np
import pytest
from corpus import picture, saved

from data.images import decode, video, workers
from data.images.examples import Example, Upload

STORAGE = decode.Storage(0)
KINDS = [(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "mp4v"), (".mov", "mp4v"), (".ts", "mp4v")]
LEVELS = range(0, 245, 7)  # grey levels of the frames, 10 a second


def film(path, code="mp4v", sides=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10.0, sides)
    for level in LEVELS:
        writer.write(np.full((*sides[::-1], 3), level, np.uint8))
    writer.release()
    return path


def is_video(path):
    return video.is_video(Example(str(path), -1, str(path)))


@pytest.mark.parametrize("extension, code", KINDS)
def test_a_frame_of_every_second(tmp_path, extension, code):
    path = film(tmp_path / f"film{extension}", code)
    assert is_video(path)
    frames = list(video.frames(path, STORAGE))
    assert [(frame.number, frame.seconds) for frame in frames] == [
        (0, 0.0),
        (10, 1.0),
        (20, 2.0),
        (30, 3.0),
    ]
    for frame in frames:
        assert (frame.stored.height, frame.stored.width) == (48, 64)
        assert frame.stored.format == "RAW"
        np.testing.assert_allclose(frame.stored.mean, LEVELS[frame.number], atol=4)


def test_of_so_many_frames_the_first(tmp_path, monkeypatch):
    film(tmp_path / "film.mp4")
    monkeypatch.chdir(tmp_path)
    numbers = [frame.number for frame in video.frames("film.mp4", STORAGE, 16)]
    assert numbers == [0, 16, 32]


def test_what_is_cut_off_is_said(tmp_path):
    for path in (film(tmp_path / "a.avi", "MJPG"), film(tmp_path / "a.mp4")):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        *frames, last = video.frames(path, STORAGE, 1)
        assert len(frames) < len(LEVELS)
        assert isinstance(last, workers.Rejected) and "cut short" in last.reason


PLAYLIST = "#EXTM3U\n#EXTINF:1\n{}\n"
OTHERS = {
    "list.mp4": lambda path: path.write_text(PLAYLIST.format(film(path.with_name("other.mp4")))),
    "a.png": lambda path: cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8)),
    "a.webp": lambda path: cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8)),
    "a.avif": lambda path: cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8)),
    "a.heic": lambda path: path.write_bytes(saved(picture(), "HEIF")),
    "b.heic": lambda path: path.write_bytes(b"\0\0\0\x18ftyphevc\0\0\0\0hevcmsf1" + bytes(99)),
    "empty": lambda path: path.touch(),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "none": lambda path: None,
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_no_videos(name, tmp_path):
    OTHERS[name](tmp_path / name)
    assert not is_video(tmp_path / name)


def test_a_playlist_opens_nothing(tmp_path):
    path = tmp_path / "list.mp4"
    path.write_text(PLAYLIST.format(film(tmp_path / "other.mp4")))
    (only,) = video.frames(path, STORAGE)
    assert isinstance(only, workers.Rejected)
    assert not video.is_video(Upload("film.mp4", (tmp_path / "other.mp4").read_bytes()))


def test_a_video_has_so_much_time(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "SECONDS_PER_IMAGE", 1e-3)
    *_, last = video.frames(film(tmp_path / "film.avi", "MJPG", (2000, 2000)), STORAGE)
    assert last == workers.Rejected("takes over 0.001 s")


def test_stopping_early_leaves_no_process(tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
    )
    frames = video.frames(film(tmp_path / "film.avi", "MJPG"), STORAGE, 1)
    next(frames)
    frames.close()
    assert len(started) == 1 and started[0].returncode is not None
