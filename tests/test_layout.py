"""layout and tree: which folders are splits and classes, what is passed over, what is refused."""

import json
import os
import unicodedata

import pytest
from test_sources import listed, tree

from data.images.names import readable, split_of
from data.images.reading import PassedOver
from data.sources import identity, sources
from data.sources.tree import scan

CAT_DOG = [f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(3)]


def opened(root, *paths, **options):
    return sources.open_source(tree(root, *paths), **options)


def names(source, scratch):
    """Names of the images, by split."""
    return {split: [row[0] for row in rows] for split, rows in listed(source, scratch).items()}


def below(*folders, names=CAT_DOG):
    return [f"{folder}/{name}" for folder in folders for name in names]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("training_set", "train"),
        ("TrainSet", "train"),
        ("train2017", "train"),
        ("train_images", "train"),
        ("images-train 1", "train"),
        ("data_train", "train"),
        ("VAL", "validation"),
        ("valid", "validation"),
        ("validation-split", "validation"),
        ("dev", "validation"),
        ("Testing", "test"),
        ("test-data", "test"),
        ("trains", None),
        ("trainval", None),
        ("contest", None),
        ("images", None),
        ("2017", None),
        ("eval", None),
        ("class_train", None),
    ],
)
def test_splits_are_known_by_name(name, split):
    assert split_of(name) == split


def test_split_folders_of_other_names_are_the_splits(tmp_path):
    source = opened(tmp_path, *below("Training", "dev_set", "Testing"))
    assert source.class_names == ("cat", "dog")
    found = names(source, tmp_path)
    assert found == dict.fromkeys(("train", "validation", "test"), CAT_DOG)


def test_other_folders_are_the_classes_of_train_where_only_test_is_called_like_a_split(tmp_path):
    source = opened(tmp_path, *CAT_DOG, *below("test"), validation_fraction=0)
    assert names(source, tmp_path) == {"train": CAT_DOG, "test": CAT_DOG}


def test_a_test_folder_of_images_beside_classes_is_a_class(tmp_path):
    source = opened(tmp_path, *CAT_DOG, "test/1.jpg", "test/2.jpg")
    assert source.class_names == ("cat", "dog", "test")


def test_folders_beside_splits_are_passed_over_by_name(tmp_path):
    paths = [*below("train"), "bus/1.jpg", "car/1.jpg", "notes/a.txt", "cover.jpg", "list.csv"]
    source = opened(tmp_path, *paths)
    assert source.class_names == ("cat", "dog")
    assert source.passed_over.parts() == ["1 .csv", "1 .jpg", "folders bus, car, notes"]


def test_what_is_not_taken_is_counted_by_extension(tmp_path):
    paths = ["cat/a.CR2", "cat/deep/b.cr2", "dog/x.csv", "README", "cat/.hidden"]
    paths += ["dog/Thumbs.db", "old/desktop.ini"]
    source = opened(tmp_path, *CAT_DOG, *paths)
    assert source.passed_over.parts(unreadable=3) == [
        "2 .cr2",
        "1 .csv",
        "1 without extension",
        "3 unreadable files",
        "folders old",
    ]


NEVER = ("@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX")


@pytest.mark.parametrize("name", NEVER)
def test_folders_of_systems_are_never_looked_into(name, tmp_path):
    paths = [f"{name}/cat/1.jpg", f"{name}/dog/1.jpg", f"cat/{name}/1.jpg/thumbnail.jpg"]
    source = opened(tmp_path, *CAT_DOG, *paths, ".Trash-1000/files/1.jpg")
    assert source.class_names == ("cat", "dog")
    assert sorted(sum(names(source, tmp_path).values(), [])) == CAT_DOG
    assert source.passed_over.parts() == [f"folders {name}"]
    assert [os.path.relpath(i.path, tmp_path) for i in sources.open_images(tmp_path)] == CAT_DOG


def test_what_this_application_wrote_into_the_folder_is_passed_over(tmp_path):
    tree(tmp_path, *CAT_DOG, *below("runs/a", "shards", "out.partial", names=["filters.png"]))
    (tmp_path / "runs/a/run.json").write_text(json.dumps({"flags": {}}))
    (tmp_path / "shards/dataset.json").write_text(json.dumps({"format_version": 1}))
    (tmp_path / "out.partial/conversion.lock").touch()
    source = sources.open_source(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.passed_over.parts() == ["folders runs, out.partial, shards"]
    tree(tmp_path, "theirs/1.jpg", "theirs/2.jpg")
    (tmp_path / "theirs/run.json").write_text("[1, 2]")
    assert sources.open_source(tmp_path).class_names == ("cat", "dog", "theirs")


def test_folders_without_images_are_no_classes_and_named(tmp_path):
    texts = [f"docs/a{suffix}" for suffix in (".txt", ".md", ".CSV", ".json", ".xml", ".pdf")]
    texts += [f"docs/code/b{suffix}" for suffix in (".html", ".py", ".ipynb")]
    tree(tmp_path, *CAT_DOG, *texts, "thumbs/@eaDir/1.jpg").joinpath("empty").mkdir()
    source = sources.open_source(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.passed_over.parts() == ["folders docs, empty, thumbs"]


def test_a_class_folder_of_other_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"class folder plans.*roof\.dwg"):
        opened(tmp_path, *CAT_DOG, "plans/notes.txt", "plans/deep/roof.dwg")


@pytest.mark.parametrize("split", ["train/", "val/", ""])
def test_a_class_folder_that_is_a_broken_link_is_refused(split, tmp_path):
    tree(tmp_path, *(below("train", "val") if split else CAT_DOG))
    (tmp_path / f"{split}bird").symlink_to("/not/mounted")
    with pytest.raises(ValueError, match="class folder bird is a broken link"):
        sources.open_source(tmp_path)


def test_a_split_that_is_a_broken_link_is_refused(tmp_path):
    tree(tmp_path, *below("train")).joinpath("val").symlink_to("/not/mounted")
    with pytest.raises(ValueError, match="folder val is a broken link"):
        sources.open_source(tmp_path)


def test_folders_that_cannot_be_opened(tmp_path, monkeypatch):
    tree(tmp_path, *CAT_DOG, "cat/private/9.jpg")
    opens, closed = os.scandir, str(tmp_path / "cat/private")

    def scandir(path):
        if os.fspath(path) == closed:
            raise PermissionError(13, "Permission denied", closed)
        return opens(path)

    monkeypatch.setattr(os, "scandir", scandir)
    source = sources.open_source(tmp_path, validation_fraction=0)
    assert names(source, tmp_path) == {"train": CAT_DOG}
    assert source.passed_over.parts() == ["folders private"]
    passed_over = PassedOver()
    assert len(sources.open_images(tmp_path, passed_over)) == 6
    assert passed_over.closed == ["private"]
    closed = str(tmp_path / "cat")
    with pytest.raises(ValueError, match="class folder cat cannot be opened: Permission denied"):
        sources.open_source(tmp_path)
    closed = str(tmp_path)
    with pytest.raises(PermissionError):
        sources.open_source(tmp_path)


def test_a_broken_link_below_a_class_is_one_entry(tmp_path):
    tree(tmp_path, *CAT_DOG).joinpath("cat/old").symlink_to("/not/mounted")
    source = sources.open_source(tmp_path)
    assert source.passed_over.parts() == ["folders old"] and source.passed_over.closed == ["old"]


@pytest.mark.parametrize(
    "folders",
    [
        ["train/images", "train/masks", "val/images", "val/masks"],
        ["train_images", "train_masks"],
        ["train", "train_masks"],
        ["images", "masks", "edges"],
        ["images", "masks", "others"],
        ["images", "test"],
        ["test_imgs", "train_img"],
        ["trainA", "trainB", "testA", "testB"],
    ],
)
def test_images_and_what_belongs_to_them_are_no_classes(folders, tmp_path):
    with pytest.raises(ValueError, match="expected CLASS"):
        opened(tmp_path, *(f"{folder}/{i}.jpg" for folder in folders for i in range(2)))


def test_classes_may_be_called_like_some_kinds_of_files(tmp_path):
    source = opened(tmp_path, "mask/1.jpg", "no_mask/1.jpg", validation_fraction=0)
    assert source.class_names == ("mask", "no_mask")


FLAT = {
    "numbered": (["train1", "test1"], ["2 images in train1", "1 images in test1"]),
    "with a table": (["train_images", "test_images"], ["2 images in train_images", "train.csv"]),
    "three": (["train", "valid", "test"], ["2 images in train", "1 images in valid", "in test"]),
    "masks": (["images", "masks"], ["2 images in images", "1 images in masks"]),
    "VOC": (["JPEGImages", "SegmentationClass"], ["2 images in JPEGImages"]),
}


@pytest.mark.parametrize("case", FLAT)
def test_images_of_splits_or_kinds_without_classes_are_refused(case, tmp_path):
    folders, said = FLAT[case]
    paths = [f"{folder}/{i}.jpg" for i, folder in enumerate([*folders, folders[0]])]
    with pytest.raises(ValueError, match="expected CLASS") as error:
        opened(tmp_path, *paths, "train.csv", "notes/labels.json")
    assert all(each in str(error.value) for each in said)
    assert "train.csv" in str(error.value) and "labels.json" in str(error.value)


def test_many_folders_in_a_message_are_counted(tmp_path):
    with pytest.raises(ValueError, match="3 more folders of images"):
        opened(tmp_path, "train/1.jpg", "val/1.jpg", *(f"x{i}/1.jpg" for i in range(7)))


def test_the_folder_of_the_classes_is_proposed(tmp_path):
    with pytest.raises(ValueError, match=f"are the classes in {tmp_path}/images\\?"):
        opened(tmp_path, *below("images"), "annotations/list.txt")


@pytest.mark.parametrize(
    "paths",
    [
        [*below("cat", "dog", names=["train/1.jpg", "test/1.jpg"])],
        [*below("cat", "dog", names=["train/1.jpg", "test/1.jpg"]), "bird/1.jpg"],
        ["cat/train/1.jpg", "dog/val/1.jpg"],
    ],
)
def test_splits_below_the_classes_are_refused(paths, tmp_path):
    with pytest.raises(
        ValueError, match="below the classes, as in (cat|dog).*expected the classes"
    ):
        opened(tmp_path, *paths)


def test_top_folders_that_hold_the_same_classes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="first, second all hold the folders cat, dog"):
        opened(tmp_path, *below("first", "second"), "second/fish/1.jpg", "notes/a.txt")
    assert opened(tmp_path, *below("first", "third/x")).class_names  # one more holds others


def test_classes_of_several_folders_are_joined_and_named(tmp_path):
    paths = ["animals/cat/1.jpg", "animals/dog/1.jpg", "animals/2.jpg", "vehicles/bus/1.jpg"]
    source = opened(tmp_path, *paths, "plain/1.jpg", validation_fraction=0)
    assert source.class_names == ("animals", "plain", "vehicles")
    assert source.joined == "animals (cat, dog), vehicles (bus)"
    assert sources.open_source(tmp_path / "animals", validation_fraction=0).joined == ""


WNIDS = ("n00000001", "n00000002")
TINY = {
    **{f"train/{wnid}/images/{wnid}_{i}.JPEG": "" for wnid in WNIDS for i in range(2)},
    **{f"train/{wnid}/{wnid}_boxes.txt": "" for wnid in WNIDS},
    **{f"val/images/val_{i}.JPEG": "" for i in range(3)},
    "val/val_annotations.txt": "".join(
        f"val_{i}.JPEG\t{WNIDS[i % 2]}\t0\t0\t9\t9\n" for i in range(3)
    ),
    **{f"test/images/test_{i}.JPEG": "" for i in range(5)},
    "wnids.txt": "\n".join(WNIDS),
}


def tiny(root):
    tree(root, *TINY)
    (root / "val/val_annotations.txt").write_text("\ufeff" + TINY["val/val_annotations.txt"])
    return root


def test_tiny_imagenet_is_read_as_it_comes(tmp_path):
    source = sources.open_source(tiny(tmp_path))
    found = listed(source, tmp_path)
    assert {split: len(rows) for split, rows in found.items()} == {"train": 4, "validation": 3}
    assert sorted(row[:2] for row in found["validation"]) == [
        (f"images/val_{i}.JPEG", WNIDS[i % 2]) for i in range(3)
    ]
    assert source.joined == "CLASS/images"
    said = ["3 .txt", "folders test (5 images of no class of train)"]
    assert source.passed_over.parts() == said
    (tmp_path / "val/images/val_9.JPEG").touch()
    with pytest.raises(ValueError, match="a line for val_9.JPEG"):
        sources.open_source(tmp_path)


@pytest.mark.parametrize("inner", ["", "images/", "unknown/", "test/"])
def test_an_unlabelled_test_split_blocks_nothing(inner, tmp_path):
    source = opened(tmp_path, *below("train"), f"test/{inner}1.jpg", f"test/{inner}2.jpg")
    assert set(names(source, tmp_path)) == {"train", "validation"}
    assert source.passed_over.parts() == ["folders test (2 images of no class of train)"]


def test_an_empty_test_split_is_named(tmp_path):
    tree(tmp_path, *below("train")).joinpath("test").mkdir()
    assert sources.open_source(tmp_path).passed_over.parts() == ["folders test"]


def test_an_error_about_another_validation_folder_says_what_is_there(tmp_path):
    flat = tree(tmp_path / "flat", "1.jpg", "2.jpg")
    with pytest.raises(ValueError, match=f"^{flat}: .*found 2 images beside the folders"):
        opened(tmp_path / "x", *CAT_DOG, val_data=flat)
    other = tree(tmp_path / "other", "bird/1.jpg")
    with pytest.raises(ValueError, match=f"^{other}: class 'bird' of the validation split"):
        sources.open_source(tmp_path / "x", val_data=other)
    with pytest.raises(FileNotFoundError, match="1.jpg: a file; expected a folder"):
        sources.open_source(tmp_path / "x", val_data=flat / "1.jpg")


def test_an_export_is_passed_over(tmp_path):
    tree(tmp_path, *CAT_DOG, "exported/labels.txt", "exported/model.keras", "exported/1.png")
    source = sources.open_source(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.passed_over.parts() == ["folders exported"]


def test_broken_links_to_texts_and_junk_are_no_classes(tmp_path):
    tree(tmp_path, *CAT_DOG)
    for name in ("labels.csv", "@eaDir"):
        (tmp_path / name).symlink_to("/not/mounted")
    assert sources.open_source(tmp_path).passed_over.parts() == ["1 .csv", "folders @eaDir"]


def test_a_folder_that_can_be_listed_but_not_entered_is_closed(tmp_path, monkeypatch):
    tree(tmp_path, *CAT_DOG, "cat/private/9.jpg")
    reads = os.scandir

    class Closed:
        name, path = "9.jpg", str(tmp_path / "cat/private/9.jpg")

        def is_symlink(self):
            return False

        def is_dir(self):
            return False

        def is_file(self):
            return True

        def stat(self):
            raise PermissionError(13, "Permission denied")

    def scandir(path):
        return [Closed()] if str(path).endswith("private") else reads(path)

    monkeypatch.setattr(os, "scandir", scandir)
    source = sources.open_source(tmp_path)
    assert source.passed_over.closed == ["private"]
    assert sorted(sum(names(source, tmp_path).values(), [])) == CAT_DOG


def test_a_message_about_one_class_names_what_was_passed_over(tmp_path):
    with pytest.raises(ValueError, match=r"found 1 class \(old\).*passed over: folders cat, dog"):
        opened(tmp_path, *CAT_DOG, "train/old/1.jpg", validation_fraction=0)


def test_runs_on_names_that_are_written_apart_keep_their_fingerprint(tmp_path):
    """As it was taken before names were composed: of the folders' own names."""
    apart = unicodedata.normalize("NFD", "caf\u00e9")
    source = opened(tmp_path, f"{apart}/1.jpg", "the/1.jpg", validation_fraction=0)
    splits = source.list_splits(tmp_path)
    before = identity.earlier_fingerprint("folder", [apart, "the"], splits)
    assert source.earlier_fingerprint() == before and source.class_names == ("caf\u00e9", "the")


def test_accents_compare_equal_however_they_are_written(tmp_path):
    composed, apart = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    assert composed != apart
    paths = [f"train/{composed}/1.jpg", "train/the/1.jpg", f"val/{apart}/2.jpg"]
    found = listed(opened(tmp_path / "x", *paths), tmp_path)
    assert [row[1] for row in found["validation"]] == [composed]
    source = opened(tmp_path / "y", f"{composed}/1.jpg", f"{apart}/2.jpg", "the/1.jpg")
    assert source.class_names == (composed, "the")


def test_a_name_that_is_not_utf_8_gets_a_readable_stand_in(tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    assert readable(odd) == "caf\\xe9" and readable("th\u00e9") == "th\u00e9"
    source = opened(tmp_path, f"{odd}/{odd}.jpg", f"{odd}/2.jpg", "the/1.jpg", f"{odd}/{odd}.dat")
    assert source.class_names == ("caf\\xe9", "the")
    rows = [row for rows in listed(source, tmp_path).values() for row in rows]
    assert ("caf\\xe9/caf\\xe9.jpg", "caf\\xe9") in [row[:2] for row in rows]


def test_a_folder_is_entered_once_however_many_links_lead_there(tmp_path):
    tree(tmp_path, "a/deep/1.jpg", "b/1.jpg")
    (tmp_path / "a/deep/up").symlink_to(tmp_path)
    (tmp_path / "a/again").symlink_to(tmp_path / "a/deep")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    (tmp_path / "a/itself").symlink_to(tmp_path / "a/itself")
    found = {folder.name: [m.name for m in folder.members()] for folder in scan(tmp_path).folders}
    assert found == {"a": ["again/1.jpg"], "b": ["1.jpg"], "c": ["1.jpg"]}


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".MPO", ".heic", ".HEIF", ".avif", ".JPEG"])
def test_files_are_looked_at_by_their_extension(suffix, tmp_path):
    source = opened(tmp_path, *CAT_DOG, f"bird/1{suffix}", validation_fraction=0)
    assert source.class_names == ("bird", "cat", "dog")
