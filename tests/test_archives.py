"""archives: a .zip or .tar of class folders is read as that folder, member by member."""

import io
import os
import stat
import tarfile
import zipfile

import pytest
from test_sources import listed

from data.images.decode import BadImage
from data.sources import sources

FILES = {f"{name}/{i}.jpg": f"{name} {i} ".encode() * 40 for name in ("cat", "dog") for i in "12"}
OTHERS = {
    "cat/notes.txt": b"",
    "__MACOSX/cat/._1.jpg": b"",
    "cat/@eaDir/1.jpg": b"",
    ".x/1.jpg": b"",
}


def packed(path, files, below=""):
    """Writes an archive of the kind that its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, (name, data) in enumerate(files.items()):
                how = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)[number % 2]
                archive.writestr(below + name, data, how)
    else:
        kind = path.suffix.lower().removeprefix(".").replace("tgz", "gz").replace("tar", "")
        with tarfile.open(path, f"w:{kind}") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(below + name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def contents(source, scratch):
    rows = listed(source, scratch)
    return {split: sorted(of_split) for split, of_split in rows.items()}


def expected(*names):
    return sorted((name, name.split("/")[0], FILES[name]) for name in names or FILES)


KINDS = ("a.zip", "a.tar", "a.tar.gz", "A.TGZ", "a.tar.bz2", "a.tar.xz")


@pytest.mark.parametrize("below", ["", "./", "flowers/"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_read_as_its_folder(kind, below, tmp_path):
    path = packed(tmp_path / kind, FILES | OTHERS, below)
    before = path.read_bytes()
    source = sources.open_source(path, validation_fraction=0)
    assert contents(source, tmp_path) == {"train": expected()}
    assert source.name.lower() == "a"
    assert source.passed_over.parts()[0] == "1 .txt"
    assert {"__MACOSX", "@eaDir"} >= set(source.passed_over.folders) >= {"@eaDir"}
    assert path.read_bytes() == before


def test_an_archive_of_splits_is_read_as_its_splits(tmp_path):
    files = {f"{split}/{name}": data for split in ("train", "val") for name, data in FILES.items()}
    source = sources.open_source(packed(tmp_path / "a.zip", files, "flowers/"))
    assert contents(source, tmp_path) == {"train": expected(), "validation": expected()}


def test_training_and_validation_may_be_two_compressed_archives(tmp_path):
    source = sources.open_source(
        packed(tmp_path / "a.tgz", FILES), val_data=packed(tmp_path / "b.tgz", FILES)
    )
    assert contents(source, tmp_path) == {"train": expected(), "validation": expected()}


def test_a_table_of_classes_is_read_in_a_compressed_archive_too(tmp_path):
    files = {f"train/{name}": data for name, data in FILES.items()}
    files |= {"val/images/v.jpg": b"v", "val/val_annotations.txt": b"v.jpg\tdog\t0\t0\t9\t9\n"}
    for kind in KINDS:
        source = sources.open_source(packed(tmp_path / kind, files))
        assert contents(source, tmp_path)["validation"] == [("images/v.jpg", "dog", b"v")]


def test_the_same_archive_has_the_same_fingerprint_and_another_one_has_not(tmp_path):
    path = packed(tmp_path / "a.zip", FILES)
    assert sources.open_source(path).fingerprint == sources.open_source(path).fingerprint
    before = sources.open_source(path).fingerprint
    packed(path, FILES | {"cat/3.jpg": b"3"})
    assert sources.open_source(path).fingerprint != before


def test_names_of_other_systems_are_readable(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("caf\u00e9/1.jpg", "the/1.jpg"):
            archive.writestr(name, b"1")
    data = path.read_bytes()
    flag = b"PK\x01\x02\x14\x03\x14\x00\x00\x08"  # macOS writes UTF-8 and does not say so
    assert flag in data
    path.write_bytes(data.replace(flag, flag[:-2] + b"\0\0"))
    source = sources.open_source(path, validation_fraction=0)
    assert source.class_names == ("caf\u00e9", "the")
    path = packed(tmp_path / "a.tar", {os.fsdecode(b"caf\xe9/1.jpg"): b"1", "the/1.jpg": b"1"})
    assert sources.open_source(path, validation_fraction=0).class_names == ("caf\\xe9", "the")


def test_nothing_leaves_an_archive(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    files = FILES | {"../evil/1.jpg": b"1", "/etc/2.jpg": b"2"}
    source = sources.open_source(packed(inside / "a.tar", files), validation_fraction=0)
    assert source.class_names == ("cat", "dog", "etc")
    listed(source, inside)
    assert os.listdir(tmp_path) == ["inside"] and os.listdir(inside) == ["a.tar"]


def test_links_and_devices_of_an_archive_are_no_images(tmp_path):
    path = packed(tmp_path / "a.tar", FILES)
    with tarfile.open(path, "a") as archive:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.LNKTYPE)):
            info = tarfile.TarInfo(f"cat/{number}-{kind}.jpg")
            info.type, info.linkname, info.mode = kind, "/etc/passwd", stat.S_IRUSR
            archive.addfile(info)
    source = sources.open_source(path, validation_fraction=0)
    assert contents(source, tmp_path) == {"train": expected()}
    assert source.passed_over.parts() == ["2 .jpg"]  # the links


def test_a_hard_link_of_an_archive_is_the_file_that_it_leads_to(tmp_path):
    path = packed(tmp_path / "a.tar", FILES)
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("bird/again.jpg")
        info.type, info.linkname = tarfile.LNKTYPE, "cat/1.jpg"
        archive.addfile(info)
    source = sources.open_source(path, validation_fraction=0)
    rows = contents(source, tmp_path)["train"]
    assert ("bird/again.jpg", "bird", FILES["cat/1.jpg"]) in rows and len(rows) == 5


def test_a_class_that_is_a_link_in_an_archive_is_refused(tmp_path):
    path = packed(tmp_path / "a.tar", FILES)
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("bird")
        info.type, info.linkname = tarfile.SYMTYPE, "cat"
        archive.addfile(info)
    with pytest.raises(ValueError, match="class folder bird is a link"):
        sources.open_source(path)


def test_of_a_name_that_comes_again_the_last_counts(tmp_path):
    path = packed(tmp_path / "a.tar", FILES)
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("cat/1.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"new"))
    rows = contents(sources.open_source(path, validation_fraction=0), tmp_path)["train"]
    assert len(rows) == 4 and rows[0] == ("cat/1.jpg", "cat", b"new")


def test_a_compressed_tar_is_known_by_its_content(tmp_path):
    path = packed(tmp_path / "a.tgz", FILES).rename(tmp_path / "a.tar")
    source = sources.open_source(path, validation_fraction=0)
    assert contents(source, tmp_path) == {"train": expected()}


def test_names_with_backslashes_are_folders(tmp_path):
    files = {name.replace("/", "\\"): data for name, data in FILES.items()}
    source = sources.open_source(packed(tmp_path / "a.zip", files, "x\\"), validation_fraction=0)
    assert contents(source, tmp_path) == {"train": expected()}


def test_what_lies_beside_the_one_folder_is_passed_over(tmp_path):
    path = packed(tmp_path / "a.zip", {f"x/{name}": data for name, data in FILES.items()})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.md", b"")
        archive.writestr("__MACOSX/x/1.jpg", b"")
    assert sources.open_source(path).passed_over.parts() == ["1 .md", "folders __MACOSX"]


def test_a_run_in_an_archive_is_passed_over(tmp_path):
    files = FILES | {"runs/a/run.json": b'{"flags": {}}', "runs/a/filters.png": b""}
    source = sources.open_source(packed(tmp_path / "a.zip", files))
    assert source.class_names == ("cat", "dog") and source.passed_over.folders == ["runs"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_archive_is_one_line(kind, tmp_path):
    path = packed(tmp_path / kind, FILES)
    data = path.read_bytes()
    path.write_bytes(data[:700] + b"damage" * 600 if kind == "a.tar" else data[: len(data) // 2])
    with pytest.raises(ValueError, match="not a whole archive") as error:
        sources.open_source(path)
    assert "\n" not in str(error.value)


def test_a_place_beyond_the_end_of_a_zip_is_one_line(tmp_path):
    path = packed(tmp_path / "a.zip", FILES)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 42
    data[at : at + 4] = (len(data) + 99).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not a whole archive: .*[a-z]$"):
        sources.open_source(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not a whole archive: .*[a-z]$"):
        sources.open_source(path)


def test_what_no_zip_reader_of_ours_reads_is_named(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cat/1.jpg", b"1")
    with pytest.raises(ValueError, match="cat/1.jpg is neither stored nor deflated"):
        sources.open_source(path)
    data = packed(path, FILES).read_bytes()
    at = data.index(b"PK\x01\x02") + 8
    path.write_bytes(data[:at] + bytes([data[at] | 1]) + data[at + 1 :])
    with pytest.raises(ValueError, match="cat/1.jpg is encrypted"):
        sources.open_source(path)


@pytest.mark.parametrize("name", ["cat/1.jpg", "cat/2.jpg"])  # deflated, stored
def test_a_damaged_member_is_a_bad_image(name, tmp_path):
    path = packed(tmp_path / "a.zip", FILES)
    source = sources.open_source(path, validation_fraction=0)
    (example,) = [e for e in source.list_splits(tmp_path)["train"] if e.name == name]
    data = bytearray(path.read_bytes())
    data[example.offset + 5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BadImage, match="archive is damaged"):
        example.read()
