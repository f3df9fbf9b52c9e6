"""What a file imports is in the requirements that its users install."""

import ast
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from inference.export import formats

ROOT = Path(__file__).parent.parent
NAMES = {  # of packages that are imported by another name than they are installed by
    "PIL": "pillow",
    "absl": "absl-py",
    "cv2": "opencv-python-headless",
    "google": "protobuf",
    "nvidia": "nvidia-dali-cuda120",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
MORE = {  # what a part of the project may import beyond requirements.txt
    "inference/serve.py": ["requirements-serve.txt"],
    "inference/export": ["requirements-export.txt"],
    "models/tools/downloads.py": ["requirements-weights.txt"],
    "tests": ["requirements-dev.txt"],
    "benchmarks": ["benchmarks/requirements.txt"],
}
FILES = ["requirements.txt", *(file for files in MORE.values() for file in files)]
SOURCES = [path for path in sorted(ROOT.rglob("*.py")) if ".venv" not in path.parts]
OURS = {path.stem for folder in (ROOT, ROOT / "tests") for path in folder.iterdir()}


def lines(file):
    stripped = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return [line for line in stripped if line]


def listed(file):
    """Names of the packages that a requirements file installs, in lower case with hyphens."""
    for line in lines(file):
        if line.startswith("-r "):
            yield from listed(line.removeprefix("-r "))
        else:
            yield re.sub("[-_.]+", "-", Requirement(line).name).lower()


def packages(path):
    """Names of the packages that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        for root in {module.partition(".")[0] for module in modules}:
            if root not in sys.stdlib_module_names and root not in OURS:
                yield NAMES.get(root, root).replace("_", "-").lower()


def parts(path):
    place = path.relative_to(ROOT)
    return [name for name in MORE if place.is_relative_to(name)]


@pytest.mark.parametrize("part", [None, *MORE])
def test_what_is_imported_is_listed(part):
    allowed = set(listed("requirements.txt"))
    for file in MORE.get(part, []):
        allowed |= set(listed(file))
    paths = [path for path in SOURCES if parts(path) == ([part] if part else [])]
    assert paths
    missing = {path.name: set(packages(path)) - allowed for path in paths}
    assert not {name: names for name, names in missing.items() if names}


@pytest.mark.parametrize("file", FILES)
def test_requirements_name_packages_only(file):
    """A path would be looked for in the folder from which pip is started."""
    for line in lines(file):
        if line.startswith("-r "):  # pip looks for it beside this file
            assert "/" not in line and (ROOT / file).with_name(line.removeprefix("-r ")).exists()
        else:
            Requirement(line)
    assert len(set(listed(file))) == len(list(listed(file)))


def test_one_file_installs_everything():
    files = {path.name for path in ROOT.glob("requirements*.txt")}
    assert {f"-r {file}" for file in files - {"requirements-dev.txt"}} == {
        line for line in lines("requirements-dev.txt") if line.startswith("-r ")
    }


def test_formats_need_what_their_requirements_list():
    needed = {name for format in formats.FORMATS.values() for name in format.packages}
    names = {name.replace("_", "-") for name in needed}
    assert names == set(listed("requirements-export.txt"))
