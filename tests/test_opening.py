"""opening and cache: data is known by its content; copies are found, listed and removed."""

import json
import os
import shutil
import time

import cv2
import pytest
from conftest import photograph

from data import cache, opening
from data.conversion import conversion, description
from data.images.decode import Storage
from data.images.reading import PassedOver  # noqa: F401
from data.shards import copies
from data.sources import sources
from runtime import files

EARLIER = Storage(256, 95, "jpeg")  # how images were stored by default


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("CONVNETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path):
    """Two classes of four images."""
    root = tmp_path / "images"
    for number in range(8):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photograph(number, 20, 20))
    return root


def prepared(data, **options):
    return opening.prepare(data, image_size=32, progress=False, **options)[0]


def known(folder):
    """What a run that was started with a copy expects."""
    return copies.Expected(copies.fingerprints(folder)[0], str(folder))


def made_before(images, storage):
    """Converts as earlier versions did: under a fingerprint of places and times."""
    source = sources.open_source(images)
    old = source.earlier_fingerprint()
    source = opening.replace(source, fingerprint=old, earlier_fingerprint=None)
    name = description.fingerprint(source, storage)
    folder = files.cache() / f"images-{name[:16]}"
    conversion.convert(source, folder, storage, progress=False)
    return folder, copies.Expected(name)


def test_what_was_copied_moved_or_packed_is_the_same_data(home, images, tmp_path, capsys):
    first = prepared(images)
    moved = shutil.move(images, tmp_path / "moved")
    os.utime(moved / "a" / "0.png")
    packed = shutil.make_archive(tmp_path / "packed", "zip", moved)
    capsys.readouterr()
    assert prepared(moved, expected=known(first)) == prepared(packed) == first
    assert capsys.readouterr().out.count("converted before") == 2
    assert [copy.source for copy in copies.listed()] == [packed]


@pytest.mark.parametrize("storage", [Storage(256), EARLIER])
def test_what_an_earlier_version_converted_is_known_by_its_content_from_then_on(
    home, images, tmp_path, storage
):
    folder, expected = made_before(images, storage)
    assert prepared(images, expected=expected) == folder
    moved = shutil.copytree(images, tmp_path / "moved")
    assert opening.open_dataset(moved, image_size=32, expected=expected).folder == folder
    assert (prepared(moved) == folder) == (storage == Storage(256))


def test_a_new_run_uses_what_an_earlier_version_converted(home, images):
    folder, _ = made_before(images, Storage(256))
    assert prepared(images) == folder
    assert known(folder).fingerprint == description.fingerprint(
        sources.open_source(images), Storage(256)
    )


def test_a_run_of_an_earlier_version_goes_on_where_its_copy_is_made_again(home, images):
    folder, expected = made_before(images, Storage(256))
    shutil.rmtree(folder)
    dataset = opening.open_dataset(images, image_size=32, expected=expected, progress=False)
    assert expected.fingerprint in dataset.fingerprints
    assert dataset.fingerprint != expected.fingerprint
    _, other = made_before(images, EARLIER)
    shutil.rmtree(other.copy())
    with pytest.raises(ValueError, match="conversion of an earlier version, which is missing"):
        prepared(images, expected=other)


def add(images):
    shutil.copy(images / "a" / "0.png", images / "a" / "heron.png")


def remove(images):
    (images / "b" / "1.png").unlink()


def replace(images):
    cv2.imwrite(str(images / "b" / "3.png"), photograph(9, 20, 20))


def swap_quietly(images):
    times = (images / "b" / "3.png").stat().st_mtime_ns
    replace(images)
    os.utime(images / "b" / "3.png", ns=(0, times))


def rename_class(images):
    (images / "a").rename(images / "c")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (add, r"1 added \(a/heron.png\);"),
        (remove, r"1 removed \(b/1.png\);"),
        (replace, r"1 changed \(b/3.png\);"),
        (swap_quietly, "files of the same names, or the classes, have changed;"),
        (rename_class, r"4 added \(c/0.png, c/2.png, .*\), 4 removed \(a/0.png, "),
    ],
)
def test_what_has_changed_is_named_and_so_is_the_way(home, images, change, told):
    copy = prepared(images)
    time.sleep(0.01)
    change(images)
    with pytest.raises(opening.ChangedDataError, match=told) as error:
        opening.open_dataset(images, image_size=32, expected=known(copy))
    way = f"; its converted copy still exists, continue with --data={copy}"
    assert str(error.value).endswith(way)
    assert error.value.copy == copy
    assert opening.open_dataset(copy, image_size=32, expected=known(copy)).folder == copy


def test_what_is_gone_is_named_and_so_is_its_copy(home, images):
    copy = prepared(images)
    expected = known(copy)
    shutil.rmtree(images)
    with pytest.raises(opening.ChangedDataError, match=f"{images}: no such .*--data={copy}"):
        prepared(images, expected=expected)
    shutil.rmtree(copy)
    with pytest.raises(opening.ChangedDataError, match=f"{images}: no such .*missing too: {copy}"):
        prepared(images, expected=expected)


def test_other_shards_than_the_expected_ones_are_refused(home, images, tmp_path):
    first = prepared(images)
    remove(images)
    second = prepared(images)
    with pytest.raises(
        opening.ChangedDataError,
        match=f"{second} is not the data that the run was started with.*{first}",
    ):
        opening.open_dataset(second, image_size=32, expected=known(first))


def test_an_older_copy_of_changed_images_is_named(home, images, capsys):
    first = prepared(images)
    assert prepared(images) == first
    capsys.readouterr()
    add(images)
    prepared(images)
    out = capsys.readouterr().out
    assert f"has changed since it was converted into {first}" in out
    assert f"python -m data.cache --remove={first.name}" in out
    assert opening.prepare(images, image_size=299, progress=False)[0] != first
    out = capsys.readouterr().out  # a second copy of the images as they are
    assert out.count("has changed since") == 1 and str(first) in out


def listed(capsys, *argv):
    cache.main(list(argv))
    return capsys.readouterr().out


def test_copies_are_listed_with_source_size_and_time(home, images, capsys):
    assert listed(capsys) == f"0 converted copies, 0.0 MB, in {home}\n"
    folder = prepared(images)
    (home / "other").mkdir()
    capsys.readouterr()
    heading, line, last = listed(capsys).splitlines()
    assert heading.split() == ["NAME", "SIZE", "LAST", "USED", "SOURCE"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert line.split() == [
        *(folder.name, f"{size / 1e6:.1f}", "MB"),
        *time.strftime("%Y-%m-%d %H:%M").split(),
        str(images),
    ]
    assert last.startswith("1 converted copy, ")


def test_only_what_was_not_used_for_long_is_pruned(home, images, capsys):
    old, new = prepared(images), prepared(images, validation_fraction=0.5)
    use = json.loads((old / "used.json").read_text())
    use["last_used"] -= 31 * 86_400
    (old / "used.json").write_text(json.dumps(use))
    stopped = home / "images-0.partial"
    stopped.mkdir()
    (stopped / "conversion.lock").touch()
    capsys.readouterr()
    assert f"removed {old.name}\n1 converted copy" in listed(capsys, "--prune=30d")
    assert not old.exists() and new.exists() and stopped.exists()
    assert "removed images-0.partial\n" in listed(capsys, "--prune=0m")
    assert not new.exists() and not stopped.exists()


def test_a_copy_is_removed_by_its_name(home, images, capsys):
    folder = prepared(images)
    for name in (".", "..", "images", str(folder)):
        with pytest.raises(SystemExit) as end:
            cache.main([f"--remove={name}"])
        assert end.value.code == 2 and "no converted copy" in capsys.readouterr().err
    assert f"removed {folder.name}\n" in listed(capsys, f"--remove={folder.name}")
    assert list(home.iterdir()) == []


def test_a_conversion_at_work_is_kept(home, images, capsys):
    folder = prepared(images)
    with files.claimed(home / "images-1"):
        out = listed(capsys, "--prune=0m")
    assert f"images-1.partial is kept: another process is converting into {home}/images-1\n" in out
    assert not folder.exists()


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1y"])
def test_an_age_has_a_unit(age, capsys):
    with pytest.raises(SystemExit) as end:
        cache.main([f"--prune={age}"])
    assert end.value.code == 2 and "such as 30d" in capsys.readouterr().err
