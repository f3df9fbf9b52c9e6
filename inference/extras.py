"""Packages that only one feature needs; each feature has a requirements file of its own."""

import importlib.util
from collections.abc import Sequence


def require(packages: Sequence[str], feature: str, file: str) -> None:
    """Raises ValueError if a package is missing.

    Args:
        packages: Names to import.
        feature: What needs them, as the subject of a sentence.
        file: The requirements file that lists them.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{feature} needs {', '.join(missing)}, not installed here: pip install -r {file}"
        )
