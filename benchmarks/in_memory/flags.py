"""The flags of a training: those of train.py that benchmarks/on_jax.py supports."""

import argparse
import shlex
from collections.abc import Callable

from benchmarks.in_memory import augment
from engine import schedules


class Parser(argparse.ArgumentParser):
    """Parser of flags, also from files with comments after #."""

    def convert_arg_line_to_args(self, line: str) -> list[str]:
        """Splits a line of a file into flags."""
        return shlex.split(line, comments=True)


def parse(words: str) -> argparse.Namespace:
    """Parses the flags of a training; ends the program with an error line if one is wrong.

    Args:
        words: Flags, and `@` with a file of them, as on a command line.
    """
    parser = Parser("a training", fromfile_prefix_chars="@", allow_abbrev=False)
    for name, options in FLAGS.items():
        parser.add_argument(f"--{name}", **options)
    return parser.parse_args(shlex.split(words))


def _number(kind: type, low: float, high: float = float("inf")) -> Callable[[str], float]:
    """Returns a parser of numbers in [low, high]."""

    def parse(text: str) -> float:
        number = kind(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"expected {low} to {high}, received {text}")
        return number

    parse.__name__ = kind.__name__  # for argparse's message about texts that are no numbers
    return parse


def _fractions(text: str) -> list[str]:
    if not all(0 < float(part) < 1 for part in text.split(",")):
        raise ValueError
    return text.split(",")


_fractions.__name__ = "fractions of --epochs"

# As in training/recipe.py, except that what has no default here must be given.
FLAGS = {
    "model": {"default": "cifar_resnet20"},
    "epochs": {"type": _number(int, 1), "required": True},
    "batch_size": {"type": _number(int, 1), "default": 128},
    "seed": {"type": _number(int, 0, 2**32 - 1), "default": 0},
    "optimizer": {"choices": ("momentum", "nesterov"), "default": "momentum"},
    "learning_rate": {"type": _number(float, 1e-12), "required": True},
    "momentum": {"type": _number(float, 0, 1), "default": 0.9},
    "weight_decay": {"type": _number(float, 0), "default": 5e-4},
    "norm_bias_rate": {"type": _number(float, 0), "default": 1.0},
    "label_smoothing": {"type": _number(float, 0, 0.999), "default": 0.0},
    "ema": {"type": _number(float, 0, 0.999999), "default": 0.0},
    "lookahead": {"type": _number(int, 1)},
    "schedule": {"choices": sorted(set(schedules.SCHEDULES) - {"plateau"}), "required": True},
    "milestones": {"type": _fractions, "default": ["0.5", "0.75"]},
    "decay": {"type": _number(float, 1e-12, 1), "default": 0.1},
    "decay_epochs": {"type": _number(float, 1e-12), "default": 2.0},
    "power": {"type": _number(float, 0), "default": 1.0},
    "warmup_epochs": {"type": _number(float, 0), "default": 0.0},
    "augment": {"choices": sorted(augment.POLICIES)},
}
