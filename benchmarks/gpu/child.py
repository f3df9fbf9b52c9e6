"""The process of a check: `python -m benchmarks.gpu.child MODULE:FUNCTION ORDER SECTION`.

ORDER is a JSON file with the options of the check; SECTION is the file that it writes.
"""

import argparse
import importlib
import json
import sys
import traceback
from pathlib import Path

from benchmarks.gpu.sections import Section


def main(function: str, order: str, file: str) -> None:
    """Runs the check; an error becomes part of its section."""
    options = json.loads(Path(order).read_text())
    section = Section(Path(file), options["title"])
    module, name = function.split(":")
    try:
        getattr(importlib.import_module(module), name)(argparse.Namespace(**options), section)
    except Exception as error:
        traceback.print_exc()
        section.fail(f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
