"""reading: the lines that say what a data set was made of."""

import pytest

from data.images import reading


def test_up_to_ten_classes_are_named_with_their_images():
    names, images = ("cat", "dog", "fish"), (1200, 1150, 3)
    assert reading.summary_lines(names, images) == ["classes: cat (1,200), dog (1,150), fish (3)"]
    ten = [str(i) for i in range(10)]
    assert "9 (1)" in reading.summary_lines(ten, (1,) * 10)[0]


def test_of_many_classes_the_first_and_the_smallest_are_named():
    trees = "alder ash aspen beech birch cedar elm fir hazel larch maple oak".split()
    images = [2 if tree == "hazel" else 3 for tree in trees]
    assert reading.summary_lines(trees, images) == [
        "classes: alder (3), ash (3), aspen (3), ..., fewest: hazel (2); 12 classes"
    ]


def test_classes_of_unknown_size_are_named():
    assert reading.summary_lines(("a", "b"), None) == ["classes: a, b; 2 classes"]


def test_what_was_not_taken_is_told():
    parts = ["24 .cr2", "folders @eaDir, old"]
    assert reading.summary_lines(("a", "b"), (1, 1), joined="a (x, y)", passed_over=parts)[1:] == [
        "joined, each into one class: a (x, y)",
        "passed over: 24 .cr2, folders @eaDir, old",
    ]


def test_what_is_no_extension_is_not_named():
    passed_over = reading.PassedOver()
    passed_over.add_files(
        ["frame.00001", "frame.00002", "a. it is\nnice", "b.tar.gz", "c.mp3", "d"]
    )
    assert passed_over.parts() == ["4 without extension", "1 .gz", "1 .mp3"]
    passed_over.add_files(f"x.a{chr(97 + i)}" for i in range(20))
    assert len(passed_over.parts()) == 13
    assert passed_over.parts()[-1] == "11 of other extensions"


def test_files_that_are_left_out_are_counted():
    counts = {"train": (1, 1)}
    assert reading.gap_lines(("a", "b"), counts, left_out=3, table="out/rejected.csv") == [
        "left out: 3 files that cannot be decoded, listed in out/rejected.csv"
    ]
    assert reading.gap_lines(("a", "b"), counts) == []


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_class_that_a_split_lacks_is_a_warning(split):
    counts = {"train": (1, 1, 1), "validation": (1, 1, 1), "test": (1, 1, 1), split: (1, 0, 0)}
    warning = f"warning: the {split} split has no images of dog, fish"
    assert reading.gap_lines(("cat", "dog", "fish"), counts) == [warning]


def test_a_split_without_labels_lacks_nothing():
    assert reading.gap_lines(("cat", "dog"), {"train": (1, 1), "test": (0, 0)}) == []
