"""Checks for the optional packages of features, listed in separate requirements files."""

import importlib.util
from collections.abc import Sequence


def require(packages: Sequence[str], feature: str, file: str) -> None:
    """Raises ValueError if a package is missing.

    Args:
        packages: Import names of the packages.
        feature: Name of the feature, as the subject of the message.
        file: Requirements file that lists the packages.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{feature} needs {', '.join(missing)}, not installed here: pip install -r {file}"
        )
