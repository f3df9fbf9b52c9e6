"""Command-line flags as fields of dataclasses, so that each flag is described in one place.

@dataclasses.dataclass(frozen=True)
class Recipe:
    epochs: int = flag(90, "Passes over the training images.", low=1)

define(Recipe)                  # at the top of a script
recipe = value_of(Recipe)       # in its main, after `console.parse`
"""

import dataclasses
import math
import typing
from collections.abc import Mapping

from absl import flags

flags.disclaim_key_flags()  # flags defined here belong to the script that calls `define`

_KINDS = {bool: flags.DEFINE_bool, str: flags.DEFINE_string, list[str]: flags.DEFINE_list}
_NUMBERS = {int: flags.DEFINE_integer, float: flags.DEFINE_float}


@dataclasses.dataclass(frozen=True)
class Meaning:
    """Properties of a flag besides its name, type and default.

    Attributes:
        help: Sentence with the unit, and the default if it is not a constant.
        choices: Allowed values (default: any).
        low: Minimum, or None.
        high: Maximum, or None.
        resumable: Whether `--resume` may change it, because it does not affect the weights.
        of_worker: Whether the workers of a cluster may have different values.
        alone: Whether it is incompatible with several workers or seeds.
        repeats: Whether runs that differ only in it count as repetitions of one training.
        heading: Heading in `--help` of this flag and those that follow.
    """

    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    resumable: bool = False
    of_worker: bool = False
    alone: bool = False
    repeats: bool = False
    heading: str = ""


def flag(default: object, help: str, **meaning: object) -> typing.Any:
    """Defines a field of a dataclass as a flag.

    Args:
        default: Default value.
        help: Help text, see `Meaning.help`.
        **meaning: Other attributes of `Meaning`.
    """
    metadata = {"flag": Meaning(help, **meaning)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def meanings(*descriptions: type) -> dict[str, Meaning]:
    """Returns the flags of dataclasses, by name, in order of definition."""
    fields = (field for each in descriptions for field in dataclasses.fields(each))
    return {field.name: field.metadata["flag"] for field in fields}


def names(*descriptions: type, **attributes: object) -> set[str]:
    """Returns the names of flags with the given attributes, as in `names(Recipe, alone=True)`."""
    return {
        name
        for name, meaning in meanings(*descriptions).items()
        if all(getattr(meaning, key) == value for key, value in attributes.items())
    }


def define(*descriptions: type, flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the fields of dataclasses as command-line flags."""
    heading = ""
    for description in descriptions:
        types = typing.get_type_hints(description)
        for field in dataclasses.fields(description):
            meaning = field.metadata["flag"]
            _define(field.name, types[field.name], _default_of(field), meaning, flag_values)
            heading = meaning.heading or heading
            flag_values.register_key_flag_for_module(heading, flag_values[field.name])


def _default_of(field: dataclasses.Field) -> object:
    """Returns the default of a field."""
    is_list = field.default is dataclasses.MISSING
    return field.default_factory() if is_list else field.default


def _define(
    name: str, kind: type, default: object, meaning: Meaning, flag_values: flags.FlagValues
) -> None:
    kinds = [each for each in typing.get_args(kind) if each is not type(None)]
    if kind != list[str] and kinds:  # `int | None`
        (kind,) = kinds
    text = meaning.help
    if meaning.choices:
        choices = list(meaning.choices)
        flags.DEFINE_enum(name, default, choices, text, flag_values=flag_values)
    elif kind in _NUMBERS:
        bounds = {"lower_bound": meaning.low, "upper_bound": meaning.high}
        _NUMBERS[kind](name, default, text, **bounds, flag_values=flag_values)
    else:
        _KINDS[kind](name, default, text, flag_values=flag_values)


def value_of(description: type, flag_values: flags.FlagValues = flags.FLAGS) -> typing.Any:
    """Creates an instance of a dataclass from the values of its flags."""
    return description(**{name: flag_values[name].value for name in meanings(description)})


def given(*descriptions: type, flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, object]:
    """Returns the values of the flags that were set on the command line, by name."""
    return {
        name: flag_values[name].value
        for name in meanings(*descriptions)
        if flag_values[name].present
    }


def values(*instances: object) -> dict[str, object]:
    """Returns the values of the flags of these instances, by name."""
    return {name: value for instance in instances for name, value in vars(instance).items()}


def restored(description: type, values: Mapping[str, object]) -> typing.Any:
    """Creates an instance of a dataclass from JSON values; missing fields get their defaults."""
    return description(**{n: values[n] for n in meanings(description) if n in values})


def check_finite(*instances: object) -> None:
    """Raises ValueError if a float of these instances is infinite or NaN."""
    for name, value in values(*instances).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name} expects a finite number, received {value}")


def help_text(*descriptions: type, flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """Returns the `--help` text of the flags of these dataclasses, under their headings."""
    headings = (meaning.heading for meaning in meanings(*descriptions).values())
    return "".join(flag_values.module_help(heading) for heading in headings if heading)
