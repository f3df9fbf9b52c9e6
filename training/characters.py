"""Default augmentation of a data set: characters are not mirrored."""

import string

import models
from data.shards.datasets import Dataset
from training.recipe import Recipe

ALPHABETS = (string.digits, string.ascii_lowercase, string.ascii_uppercase)
CHARACTERS = {  # TFDS data sets
    *("mnist", "emnist", "kmnist", "qmnist", "binarized_mnist", "mnist_corrupted"),
    *("omniglot", "svhn_cropped", "cmaterdb", "binary_alpha_digits"),
}


LIGHTER = {"inception": "alexnet"}  # policies for fine-tuning: a new classifier sees few images


def default_augment(recipe: Recipe, dataset: Dataset, *, tuned: bool = False) -> tuple[str, str]:
    """Returns the default augmentation policy of a training, and the reason.

    Args:
        recipe: Settings with the names of network and data.
        dataset: Training and validation images.
        tuned: Whether a new classifier is trained on top of pretrained layers.
    """
    if is_of_characters(recipe.data, dataset):
        return "digits", "characters are not mirrored"
    policy = models.policy(recipe.model)
    if tuned and policy in LIGHTER:
        return LIGHTER[policy], "light, for fine-tuning"
    return policy, f"of {recipe.model}"


def is_of_characters(data: str, dataset: Dataset) -> bool:
    """Whether the images of a data set are characters, whose meaning mirroring would change.

    Class names that are digits or letters are not enough: classes of photographs may be numbered.
    """
    name = data.partition("/")[0]  # a TFDS data set's name without its configuration
    if data == "digits" or name in {f"tfds:{known}" for known in CHARACTERS}:
        return True
    names = set(dataset.class_names)
    alphabets = [set(alphabet) for alphabet in ALPHABETS]
    known = set().union(*(alphabet for alphabet in alphabets if alphabet <= names))
    return dataset.small_grey and bool(names) and names == known
