"""etc/untar.sh: extracts into folders of their names, refuses what would leave them."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "etc" / "untar.sh"


def untar(folder, *arguments):
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], cwd=folder, capture_output=True, text=True
    )


def make(path, files=(), members=()):
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for member in members:
            archive.addfile(member)
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_extracts_every_archive_here_or_those_named(tmp_path):
    make(tmp_path / "two words.tar", [("a/b c.txt", b"1")])
    make(tmp_path / "-x:y.tar", [("z", b"2")])
    assert untar(tmp_path, "two words.tar").returncode == 0
    assert (tmp_path / "two words" / "a" / "b c.txt").read_bytes() == b"1"
    assert not (tmp_path / "-x:y").exists()
    assert untar(tmp_path).returncode == 0
    assert (tmp_path / "-x:y" / "z").read_bytes() == b"2"


def test_archives_in_an_archive_become_folders_and_go(tmp_path):
    inner = make(tmp_path / "inner", [("1.JPEG", b"x")]).read_bytes()
    make(tmp_path / "train.tar", [("./n01440764.tar", inner), ("./n01443537.tar", inner)])
    assert untar(tmp_path).returncode == 0
    found = sorted(str(p.relative_to(tmp_path)) for p in (tmp_path / "train").rglob("*"))
    assert found == [
        "train/n01440764",
        "train/n01440764/1.JPEG",
        "train/n01443537",
        "train/n01443537/1.JPEG",
    ]
    assert (tmp_path / "train.tar").exists()


def test_goes_on_after_an_interruption_and_leaves_what_is_there(tmp_path):
    inner = make(tmp_path / "inner", [("1.JPEG", b"x")]).read_bytes()
    make(tmp_path / "train.tar", [("n01440764.tar", inner)])
    (tmp_path / "train.incomplete").mkdir()
    (tmp_path / "train.incomplete" / "half").touch()
    assert untar(tmp_path).returncode == 0
    assert (tmp_path / "train" / "n01440764" / "1.JPEG").exists()
    assert not (tmp_path / "train" / "half").exists()

    (tmp_path / "train" / "mine.tar").write_bytes(b"mine")
    assert untar(tmp_path).returncode == 0
    assert (tmp_path / "train" / "mine.tar").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("files", "members"),
    [
        ([("good", b""), ("../evil", b"")], []),
        ([("good", b""), ("/tmp/evil", b"")], []),
        ([("good", b""), ("a/../../evil", b"")], []),
        ([("good", b"")], [link("l", "/etc")]),
        ([("good", b"")], [link("l", "../out")]),
        ([("good", b"")], [link("d/l", "a/../../..")]),
        ([("good", b"")], [link("h", "../out", tarfile.LNKTYPE)]),
        ([("good", b"")], [link("h", "/etc/passwd", tarfile.LNKTYPE)]),
        ([("good", b"")], [link("fifo", "", tarfile.FIFOTYPE)]),
    ],
)
def test_refuses_what_would_leave_the_folder(tmp_path, files, members):
    make(tmp_path / "bad.tar", files, members)
    result = untar(tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ./bad.tar: ") and result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar"]


def test_links_that_stay_inside_are_extracted(tmp_path):
    make(tmp_path / "fine.tar", [("d/file", b"1")], [link("l", "d/file"), link("..dots", "d")])
    assert untar(tmp_path).returncode == 0
    assert (tmp_path / "fine" / "l").read_bytes() == b"1"


def test_damaged_or_missing_archives_are_errors_and_the_others_extracted(tmp_path):
    whole = make(tmp_path / "b.tar", [("file", b"x" * 2000)]).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:1500])
    result = untar(tmp_path, "a.tar", "none.tar", "b.tar")
    assert result.returncode == 1
    assert [line[:5] for line in result.stderr.splitlines()] == ["error"] * 2
    assert (tmp_path / "b" / "file").exists() and not (tmp_path / "a").exists()


def test_help_and_nothing_to_do(tmp_path):
    result = untar(tmp_path, "-h")
    assert result.returncode == 0 and "usage:" in result.stdout
    result = untar(tmp_path)
    assert result.returncode == 1 and result.stderr.startswith("error: ")
