"""settings: what follows from the data where a flag is not given."""

import string
from types import SimpleNamespace

import pytest

from training import characters
from training.recipe import Recipe

LETTERS = string.ascii_letters


@pytest.mark.parametrize(
    ("data", "class_names", "small_grey", "are_characters"),
    [
        ("digits", string.digits, False, True),  # also of a conversion that does not say
        ("tfds:mnist", string.digits, False, True),
        ("tfds:emnist/letters", "abc", False, True),
        ("tfds:cifar10", "01", False, False),
        ("mnist", string.digits, False, False),  # a folder of that name
        ("x", string.digits, True, True),
        ("x", LETTERS[:26], True, True),
        ("x", LETTERS, True, True),
        ("x", string.digits + string.ascii_uppercase, True, True),
        ("x", "01", True, False),
        ("x", "abc", True, False),
        ("x", string.digits, False, False),  # photographs in numbered folders
        ("x", string.digits + "x", True, False),
        ("x", ("cat", "dog"), True, False),
    ],
)
def test_characters_are_known_by_all_their_names_and_their_pixels(
    data, class_names, small_grey, are_characters
):
    dataset = SimpleNamespace(class_names=tuple(class_names), small_grey=small_grey)
    assert characters.is_of_characters(data, dataset) is are_characters
    policy, why = characters.default_augment(Recipe(data=data, model="resnet18"), dataset)
    expected = ("digits", "characters are not mirrored")
    assert (policy, why) == (expected if are_characters else ("inception", "of resnet18"))
