"""Parses flags that select several names from a list."""

import argparse
from collections.abc import Callable, Iterable


def choice(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Returns a parser of `NAME,NAME,...` for argparse."""

    def chosen(text: str) -> list[str]:
        given = text.split(",")
        if unknown := set(given) - set(names):
            raise argparse.ArgumentTypeError(
                f"expected some of {','.join(names)}, received {','.join(sorted(unknown))}"
            )
        return given

    return chosen
