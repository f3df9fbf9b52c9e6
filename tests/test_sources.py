"""sources: what every layout of images is read as, and the one line that a wrong one gives."""

import collections
import csv
import errno
import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from data import opening
from data.images import decode, examples
from data.images.decode import Storage
from data.sources import identity, imagenet, sources

ROOT = Path(__file__).parent.parent


def tree(root, *paths):
    """Makes files that hold their own names."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.fsencode(path))
    return root


def listed(source, scratch):
    """What a source holds: (name, class name, bytes) of every example, by split."""
    names, splits = (*source.class_names, None), source.list_splits(scratch)
    assert source.train_images == len(splits["train"])
    return {
        split: [(example.name, names[example.label], example.read()) for example in examples]
        for split, examples in splits.items()
    }


def test_digits_are_split_in_a_stratified_way_and_the_same_every_time(tmp_path):
    source = sources.open_source("digits")
    splits = source.list_splits(tmp_path)
    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 1437,
        "validation": 360,
    }
    assert source.train_images == 1437
    held = collections.Counter(example.label for example in splits["validation"])
    assert sorted(held) == list(range(10)) and set(held.values()) <= {35, 36, 37}
    assert source.class_names == tuple("0123456789")
    assert source.storage == Storage(short_side=8, quality=95, encoding="raw")
    again = sources.open_source("digits").list_splits(tmp_path)
    assert again == splits
    other = sources.open_source("digits", seed=1).list_splits(tmp_path)
    assert other["validation"] != splits["validation"]


def test_digits_are_the_grey_values_of_the_originals(tmp_path):
    from sklearn.datasets import load_digits

    splits = sources.open_source("digits").list_splits(tmp_path)
    originals = load_digits()
    for example in splits["validation"][:20]:
        index = int(example.name.split("/")[1].removesuffix(".png"))
        image = decode.decode(example.read())[..., 1]
        np.testing.assert_array_equal(image, np.rint(originals.images[index] * 255 / 16))
        assert originals.target[index] == example.label


@pytest.mark.parametrize("digit", range(10))
def test_samples_are_validation_digits_and_are_stored_as_them(digit, tmp_path):
    source = sources.open_source("digits")
    sample = (ROOT / "data" / "samples" / f"digit_{digit}.png").read_bytes()
    assert decode.decode(sample).shape == (128, 128, 3)
    stored = decode.store(sample, source.storage)
    assert (stored.height, stored.width) == (8, 8)
    validation = source.list_splits(tmp_path)["validation"]
    same = [
        example.label
        for example in validation
        if decode.decode(example.read()).tobytes() == stored.encoded
    ]
    assert same == [digit]


def test_a_flat_folder_is_split_by_class(tmp_path):
    paths = [f"c{k}/{i}.jpg" for k in (1, 2, 10) for i in range(25)] + ["single/1.jpg"]
    root = tree(tmp_path / "flat", *paths)
    source = sources.open_source(root)
    assert source.class_names == ("c1", "c2", "c10", "single")  # natural order
    assert source.name == "flat" and source.storage is None
    found = listed(source, tmp_path)
    assert sorted(name for rows in found.values() for name, *_ in rows) == sorted(paths)
    held = collections.Counter(class_name for _, class_name, _ in found["validation"])
    assert held == {"c1": 2, "c2": 2, "c10": 2}
    assert all(data == name.encode() for rows in found.values() for name, _, data in rows)
    assert listed(sources.open_source(root), tmp_path) == found
    assert listed(sources.open_source(root, seed=1), tmp_path) != found
    assert set(listed(sources.open_source(root, validation_fraction=0), tmp_path)) == {"train"}


def test_at_least_one_and_never_all_of_a_class_is_held_out(tmp_path):
    root = tree(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg")
    for fraction, expected in ((0.01, 2), (0.99, 3)):
        splits = sources.open_source(root, validation_fraction=fraction).list_splits(tmp_path)
        assert len(splits["validation"]) == expected
        assert {example.label for example in splits["train"]} == {0, 1}


@pytest.mark.parametrize("validation", ["val", "Valid", "VALIDATION"])
def test_split_folders(validation, tmp_path):
    root = tree(
        tmp_path / "x",
        "Train/b/1.jpg",
        "Train/a/1.PNG",
        "Train/a/deeper/2.webp",
        f"{validation}/a/3.jpeg",
        "test/b/4.tiff",
        "notes/readme.jpg",
    )
    found = listed(sources.open_source(root), tmp_path)
    assert {split: [row[:2] for row in rows] for split, rows in found.items()} == {
        "train": [("a/1.PNG", "a"), ("a/deeper/2.webp", "a"), ("b/1.jpg", "b")],
        "validation": [("a/3.jpeg", "a")],
        "test": [("b/4.tiff", "b")],
    }


def test_a_train_folder_of_images_is_a_class_beside_other_classes(tmp_path):
    root = tree(tmp_path, "train/1.jpg", "train/2.jpg", "car/1.jpg", "car/2.jpg")
    source = sources.open_source(root)
    assert source.class_names == ("car", "train")
    assert {row[1] for row in listed(source, tmp_path)["train"]} == {"car", "train"}
    tree(root, "train/a/1.jpg", "train/b/1.jpg")
    assert sources.open_source(root, validation_fraction=0).class_names == ("a", "b")


def test_a_separate_validation_folder(tmp_path):
    root = tree(tmp_path / "x", "a/1.jpg", "b/1.jpg")
    other = tree(tmp_path / "y", "b/9.jpg")
    found = listed(sources.open_source(root, val_data=other), tmp_path)
    assert len(found["train"]) == 2
    assert [row[:2] for row in found["validation"]] == [("b/9.jpg", "b")]


def test_only_visible_images_count(tmp_path):
    root = tree(tmp_path, "a/1.jpg", "a/.2.jpg", "a/3.txt", ".hidden/1.jpg", "b/1.gif", "c/x.csv")
    splits = sources.open_source(root, validation_fraction=0).list_splits(tmp_path)
    assert [example.name for example in splits["train"]] == ["a/1.jpg", "b/1.gif"]
    listed = sources.open_images(root)
    assert [image.name for image in listed] == [str(root / "a/1.jpg"), str(root / "b/1.gif")]


def test_links_in_a_circle_end(tmp_path):
    root = tree(tmp_path, "a/1.jpg", "b/1.jpg")
    (root / "a" / "again").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "nowhere.jpg").symlink_to(root / "missing")
    splits = sources.open_source(root, validation_fraction=0).list_splits(tmp_path)
    assert {example.name for example in splits["train"]} >= {"a/1.jpg", "b/1.jpg"}
    assert len(splits["train"]) < 10


def test_word_net_ids_get_readable_names(tmp_path):
    root = tree(tmp_path, "train/n01443537/1.jpg", "train/n01440764/1.jpg", "val/n01440764/1.jpg")
    assert sources.open_source(root).class_names == ("tench", "goldfish")
    tree(tmp_path, "train/mine/1.jpg")
    assert sources.open_source(root).class_names == ("mine", "n01440764", "n01443537")


WRONG = {
    "no class folders": (["1.jpg"], {}, "no images.*CLASS"),
    "nothing": ([], {}, "no images"),
    "splits without classes": (["train/1.jpg", "val/1.jpg"], {}, "no images.*CLASS"),
    "one class": (["a/1.jpg", "a/2.jpg"], {}, "1 class"),
    "single images": (["a/1.jpg", "b/1.jpg"], {}, "validation split would be empty"),
    "class not in train": (["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"], {}, "'c'.*val"),
    "empty validation": (["train/a/1.jpg", "train/b/1.jpg", "val/x.txt"], {}, "validation split"),
    "two validations": (["train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"], {}, "val and valid"),
    "seed": (["a/1.jpg", "b/1.jpg"], {"seed": -1}, "seed"),
    "fraction": (["a/1.jpg", "b/1.jpg"], {"validation_fraction": 1.0}, "validation_fraction"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_folders_are_one_line(case, tmp_path):
    paths, options, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as error:
        sources.open_source(tree(tmp_path, *paths), **options)
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nonexistent"):
        sources.open_source("/nonexistent")
    with pytest.raises(FileNotFoundError, match="nonexistent"):
        root = tree(tmp_path, "a/1.jpg", "b/1.jpg")
        sources.open_source(root, val_data="/nonexistent")
    with pytest.raises(ValueError, match="x.jpg"):
        sources.open_source(tree(tmp_path, "x.jpg") / "x.jpg")
    with pytest.raises(ValueError, match="val_data"):
        sources.open_source("digits", val_data=tmp_path)


def test_the_fingerprint_changes_with_names_sizes_bytes_and_layout(tmp_path):
    root = tree(tmp_path / "x", "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    seen = [sources.open_source(root).fingerprint]
    assert sources.open_source(root).fingerprint == seen[0]
    (root / "a/1.jpg").rename(root / "a/3.jpg")
    seen.append(sources.open_source(root).fingerprint)
    (root / "b/1.jpg").write_bytes(b"longer than before")
    seen.append(sources.open_source(root).fingerprint)
    (root / "b/1.jpg").write_bytes(b"longer than Before")
    seen.append(sources.open_source(root).fingerprint)
    (root / "b").rename(root / "c")
    seen.append(sources.open_source(root).fingerprint)
    assert len(set(seen)) == 5


def test_the_fingerprint_does_not_change_with_place_times_or_archive(tmp_path):
    root = tree(tmp_path / "x", "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    (root / "a/1.jpg").write_bytes(b"an image that can be compressed" * 100)
    known = sources.open_source(root)
    moved = shutil.copytree(root, tmp_path / "elsewhere" / "y")
    os.utime(moved / "a/1.jpg", ns=(0, 5))
    for kind in ("zip", "tar"):
        archive = shutil.make_archive(tmp_path / kind, kind, root)
        assert sources.open_source(archive).fingerprint == known.fingerprint
    assert sources.open_source(moved).fingerprint == known.fingerprint
    assert sources.open_source(moved).earlier_fingerprint() != known.earlier_fingerprint()
    packed = Path(shutil.make_archive(tmp_path / "packed", "gztar", root))
    before = sources.open_source(packed).fingerprint
    os.utime(packed, ns=(0, 5))
    assert sources.open_source(packed.rename(tmp_path / "z.tar.gz")).fingerprint == before


def test_of_many_images_the_bytes_of_a_fixed_sample_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "SAMPLE", 3)
    names = [f"{label}/{number}.jpg" for label in "ab" for number in range(10)]
    root = tree(tmp_path / "x", *names)
    before = sources.open_source(root).fingerprint
    noticed = []
    for name in names:
        content = (root / name).read_bytes()
        (root / name).write_bytes(bytes(len(content)))
        noticed.append(sources.open_source(root).fingerprint != before)
        (root / name).write_bytes(content)
    assert sum(noticed) == 3


# Not in the order of their WordNet ids: great white shark 442, tench 449, goldfish 450.
IDS = {"n01440764": 449, "n01443537": 450, "n01484850": 442}
TRUTH = ["n01484850", "n01440764", "n01440764", "n01443537"]


def tar(path, files, folder=None):
    """Makes an archive as `tar -cf PATH -C FOLDER .` would, with folders and leading ./ ."""
    with tarfile.open(path, "w") as archive:
        if folder is not None:
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, data in files:
            info = tarfile.TarInfo(name if folder is None else f"{folder}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def ilsvrc(tmp_path):
    """The same images as folders and as archives."""
    folders, archives = tmp_path / "folders", tmp_path / "archives"
    archives.mkdir()
    kit = f"{imagenet.DEVKIT}/data/{imagenet.GROUND_TRUTH}"
    truth = "".join(f"{IDS[wnid]}\n" for wnid in TRUTH).encode()
    inner = []
    for wnid in reversed(IDS):
        files = [(f"{wnid}_{i}.JPEG", f"{wnid} {i}".encode() * i) for i in (10, 9, 1)]
        for name, data in files:
            tree(folders, f"{imagenet.TRAIN}/{wnid}/{name}")
            (folders / imagenet.TRAIN / wnid / name).write_bytes(data)
        inner.append((f"{wnid}.tar", tar(tmp_path / "inner", files).read_bytes()))
    tar(archives / f"{imagenet.TRAIN}.tar", inner, ".")
    for split, part in ((imagenet.VALIDATION, "val"), (imagenet.TEST, "test")):
        files = [(f"ILSVRC2012_{part}_{i:08d}.JPEG", b"%d" % i) for i in (4, 1, 3, 2)]
        tar(archives / f"{split}.tar", files, ".")
        for name, data in files:
            tree(folders, f"{split}/{name}")
            (folders / split / name).write_bytes(data)
    tree(folders, kit)
    (folders / kit).write_bytes(truth)
    with tarfile.open(archives / f"{imagenet.DEVKIT}.tar.gz", "w:gz") as archive:
        archive.add(folders / imagenet.DEVKIT, imagenet.DEVKIT)
    return folders, archives


def test_ilsvrc2012_is_the_same_as_folders_and_as_archives(ilsvrc, tmp_path):
    as_folders, as_archives = (sources.open_source(root) for root in ilsvrc)
    assert as_folders.class_names == ("tench", "goldfish", "great white shark")
    found = listed(as_archives, tmp_path)
    assert found == listed(as_folders, tmp_path)
    assert found["train"][0][:2] == ("n01440764/n01440764_1.JPEG", "tench")
    assert len(found["train"]) == 9
    assert all(data.split()[0] == name[:9].encode() for name, _, data in found["train"])
    assert found["validation"] == [
        ("ILSVRC2012_val_00000001.JPEG", "great white shark", b"1"),
        ("ILSVRC2012_val_00000002.JPEG", "tench", b"2"),
        ("ILSVRC2012_val_00000003.JPEG", "tench", b"3"),
        ("ILSVRC2012_val_00000004.JPEG", "goldfish", b"4"),
    ]
    assert [row[:2] for row in found["test"]] == [
        (f"ILSVRC2012_test_{i:08d}.JPEG", None) for i in (1, 2, 3, 4)
    ]
    assert not list(tmp_path.glob("**/*.tmp"))


@pytest.mark.parametrize("unpacked", [False, True])
def test_a_folder_of_an_archive_per_class_is_the_same_again(unpacked, ilsvrc, tmp_path):
    folders, archives = ilsvrc
    with tarfile.open(archives / f"{imagenet.TRAIN}.tar") as archive:
        archive.extractall(archives / imagenet.TRAIN, filter="data")
    (archives / f"{imagenet.TRAIN}.tar").unlink()
    tree(archives / imagenet.TRAIN, "._n01440764.tar")
    if unpacked:  # one class whole, its archive gone; another one in part
        path = f"{imagenet.TRAIN}/n01440764"
        shutil.copytree(folders / path, archives / path)
        (archives / f"{path}.tar").unlink()
        tree(archives / imagenet.TRAIN, "n01443537/n01443537_1.JPEG")
    source = sources.open_source(archives)
    assert listed(source, tmp_path) == listed(sources.open_source(folders), tmp_path)
    damaged = archives / imagenet.TRAIN / "n01443537.tar"
    damaged.write_bytes(damaged.read_bytes()[:600])
    with pytest.raises(ValueError, match=f"{damaged}: not a whole uncompressed tar"):
        sources.open_source(archives)


def test_validation_images_that_are_missing_are_named(ilsvrc, tmp_path):
    folders, archives = ilsvrc
    place = folders / imagenet.VALIDATION
    shutil.rmtree(place)
    tar(archives / f"{imagenet.VALIDATION}.tar", [])
    for path in ("", "n01440764"):
        (place / path).mkdir()
        with pytest.raises(ValueError, match=f"{place}: no images found"):
            sources.open_source(folders)
    with pytest.raises(ValueError, match=f"{place.name}.tar: no images found"):
        sources.open_source(archives)
    other = tree(tmp_path / "other", "n01440764/1.JPEG")
    assert len(listed(sources.open_source(folders, val_data=other), tmp_path)["validation"]) == 1


def test_without_validation_images_a_part_of_train_is_held_out(ilsvrc, tmp_path):
    for root in ilsvrc:
        shutil.rmtree(root / imagenet.VALIDATION, ignore_errors=True)
        (root / f"{imagenet.VALIDATION}.tar").unlink(missing_ok=True)
    as_folders, as_archives = (listed(sources.open_source(root), tmp_path) for root in ilsvrc)
    assert as_folders == as_archives
    assert {row[1] for row in as_archives["validation"]} == {
        "tench",
        "goldfish",
        "great white shark",
    }


def test_validation_images_in_class_folders_need_no_ground_truth(ilsvrc, tmp_path):
    root = ilsvrc[0]
    shutil.rmtree(root / imagenet.VALIDATION)
    shutil.rmtree(root / imagenet.DEVKIT)
    tree(root, f"{imagenet.VALIDATION}/n01443537/ILSVRC2012_val_00000007.JPEG")
    found = listed(sources.open_source(root), tmp_path)
    assert [row[1] for row in found["validation"]] == ["goldfish"]


def test_ilsvrc2012_with_missing_or_wrong_ground_truth(ilsvrc):
    folders, archives = ilsvrc
    truth = folders / imagenet.DEVKIT / "data" / imagenet.GROUND_TRUTH
    lines = truth.read_text()
    for text, message in (
        (lines + "449\n", "5 lines.*4 images"),
        (lines.replace("442", "0"), "1 to 1000.*'0'"),
        (lines.replace("442", "1"), "not among the 3 classes.*val_00000001"),
    ):
        truth.write_text(text)
        with pytest.raises(ValueError, match=message):
            sources.open_source(folders)
    (archives / f"{imagenet.DEVKIT}.tar.gz").unlink()
    with pytest.raises(ValueError, match=f"no labels; expected .*{imagenet.DEVKIT}"):
        sources.open_source(archives)


def test_damaged_archives_are_refused(ilsvrc):
    path = ilsvrc[1] / f"{imagenet.TRAIN}.tar"
    data = path.read_bytes()
    header = data.index(b"n01443537_9.JPEG")
    damaged = data[:header] + b"\0" * 100 + data[header + 100 :]
    for wrong in (data[: len(data) // 2], b"no archive", damaged, b""):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="not a whole uncompressed tar"):
            sources.open_source(ilsvrc[1])


def test_archives_that_hold_something_else_are_refused(ilsvrc, tmp_path):
    path = ilsvrc[1] / f"{imagenet.TRAIN}.tar"
    inner = tar(tmp_path / "inner", [("1.JPEG", b"1")]).read_bytes()
    for name in ("cats.tar", "../n0144076.tar"):
        tar(path, [(name, inner)])
        with pytest.raises(ValueError, match="classes named like n01440764"):
            sources.open_source(ilsvrc[1])
    tar(path, [("n01440764_1.JPEG", b"1")])
    with pytest.raises(ValueError, match="one .tar per class"):
        sources.open_source(ilsvrc[1])


def test_only_plain_files_of_an_archive_are_images(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"kind{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name in ("../../b.jpg", "._b.jpg", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    images = sources.open_images(tmp_path / "x.tar")
    assert [(image.name, image.label, image.read()) for image in images] == [("b.jpg", -1, b"abc")]


def test_the_table_of_classes():
    with open(ROOT / "data" / "labels" / "imagenet.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["name"] for row in rows}) == len(rows) == 1000
    assert sorted(int(row["ilsvrc2012_id"]) for row in rows) == list(range(1, 1001))
    assert [row["wnid"] for row in rows] == sorted(row["wnid"] for row in rows)
    assert {row["wnid"]: int(row["ilsvrc2012_id"]) for row in rows}.items() >= IDS.items()


def shapes_builder(tfds, features, folder, keys=("image", "label"), **more):
    """A data set of TFDS: coloured squares, labelled by their colour."""

    with tfds.core.registered.skip_registration():

        class Shapes(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                return self.dataset_info_from_configs(features=features)

            def _split_generators(self, manager):
                return {"train": self._generate_examples(12), "test": self._generate_examples(3)}

            def _generate_examples(self, count):
                for i in range(count):
                    image = np.full((9, 12, 3), (50 + i % 3, i, 7), np.uint8)
                    yield i, dict(zip(keys, (image, i % 3), strict=True)) | more

    return Shapes(data_dir=folder)


@pytest.mark.parametrize("kind", ["encoded", "decoded"])
def test_tfds(kind, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    image = {
        "encoded": tfds.features.Image(shape=(None, None, 3)),
        "decoded": tfds.features.Tensor(shape=(9, 12, 3), dtype=np.uint8),
    }[kind]
    label = tfds.features.ClassLabel(names=["x", "y", "z"])
    features = tfds.features.FeaturesDict({"image": image, "label": label})
    builder = shapes_builder(tfds, features, tmp_path)
    monkeypatch.setattr(tfds, "builder", {"shapes": builder}.__getitem__)
    source = sources.open_source("tfds:shapes")
    assert (source.name, source.class_names) == ("shapes", ("x", "y", "z"))
    splits = source.list_splits(tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 9,
        "validation": 3,
        "test": 3,
    }
    for example in (example for rows in splits.values() for example in rows):
        pixels = decode.decode(example.read())
        assert pixels.shape == (9, 12, 3) and pixels[0, 0, 2] == 7
        assert pixels[0, 0, 0] == 50 + example.label == 50 + pixels[0, 0, 1] % 3
    assert sources.open_source("tfds:shapes").fingerprint == source.fingerprint


@pytest.mark.parametrize("step", ["builder", "download_and_prepare"])
@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("No such name.\nAvailable datasets:\n\t- mnist"), "No such name.$"),
        (AssertionError("Manual directory\nis empty. " + "Go on. " * 99), "directory is empty.*Go"),
        (ConnectionError(), "ConnectionError"),
    ],
)
def test_what_stops_tfds_is_one_line(step, error, cause, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(*_):
        raise error

    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=2)}
    builder = shapes_builder(tfds, tfds.features.FeaturesDict(features), tmp_path)
    monkeypatch.setattr(tfds, "builder", lambda name: builder)
    monkeypatch.setattr(tfds if step == "builder" else builder, step, fail)
    with pytest.raises(ValueError, match=f"^tfds:shapes: .*{cause}") as raised:
        sources.open_source("tfds:shapes")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


def prepared_by_tfds(tfds, folder, keys=("image", "label"), **more):
    """NAME/VERSION as TFDS leaves it."""
    image, label = tfds.features.Image(), tfds.features.ClassLabel(names=["x", "y", "z"])
    kinds = {int: tfds.features.Scalar(np.int64), bytes: tfds.features.Text()}
    others = {key: kinds[type(value)] for key, value in more.items()}
    features = tfds.features.FeaturesDict(dict(zip(keys, (image, label), strict=True)) | others)
    builder = shapes_builder(tfds, features, folder, keys, **more)
    builder.download_and_prepare()
    return Path(builder.data_dir)


@pytest.mark.parametrize("keys", [("image", "label"), ("photo", "kind")])
def test_a_folder_that_tfds_has_prepared(keys, tmp_path):
    import tensorflow_datasets as tfds

    version = prepared_by_tfds(tfds, tmp_path, keys, id=7, file_name=b"a.png")
    assert not opening.is_converted(version) and not opening.is_converted(version.parent)
    source = sources.open_source(version)
    assert (source.name, source.class_names) == ("shapes_1.0.0", ("x", "y", "z"))
    splits = source.list_splits(tmp_path)
    sizes = {split: len(rows) for split, rows in splits.items()}
    assert sizes == {"train": 9, "validation": 3, "test": 3}
    for example in splits["train"]:
        assert decode.decode(example.read())[0, 0, 0] == 50 + example.label
    moved = shutil.copytree(version.parent, tmp_path / "moved", copy_function=shutil.copyfile)
    assert sources.open_source(moved).fingerprint == source.fingerprint
    (shard,) = (moved / "1.0.0").glob("*train*")
    *bytes_before, last = shard.read_bytes()
    shard.write_bytes(bytes([*bytes_before, last ^ 1]))
    other = sources.open_source(moved)
    assert other.fingerprint != source.fingerprint
    with pytest.raises(ValueError, match=f"^{moved}: TFDS cannot provide it: ") as error:
        other.list_splits(tmp_path)
    assert not re.search(r"\n|function_node|\[Op", str(error.value))


def test_folders_of_tfds_that_cannot_be_taken(tmp_path):
    import tensorflow_datasets as tfds

    version = prepared_by_tfds(tfds, tmp_path / "a", ("image", "label"))
    shutil.copytree(version, version.with_name("2.0.0"))
    with pytest.raises(ValueError, match="expected the folder of one version, found 1.0.0, 2.0.0"):
        sources.open_source(version.parent)
    other = prepared_by_tfds(tfds, tmp_path / "b", ("photo", "kind"))
    features = json.loads((other / "features.json").read_text())
    label = features["featuresDict"]["features"].pop("kind")
    for name in ("species", "breed"):
        features["featuresDict"]["features"][name] = label
    (other / "features.json").write_text(json.dumps(features))
    with pytest.raises(ValueError, match="expected the features image and label, found .*breed"):
        sources.open_source(other)


def test_images_that_cannot_be_opened_have_a_fingerprint_and_a_failing_disk_has_not(
    tmp_path, monkeypatch
):
    root = tree(tmp_path / "x", "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    (root / "a" / "loop.jpg").symlink_to("loop.jpg")
    assert sources.open_source(root).fingerprint == sources.open_source(root).fingerprint

    def failing(example, most):
        raise OSError(errno.EIO, "Input/output error", example.path)

    monkeypatch.setattr(examples.Example, "read", failing)
    with pytest.raises(OSError, match="Input/output error"):
        sources.open_source(root)
