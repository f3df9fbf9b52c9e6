"""The architecture as a test: which room may import what, and where flags live."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ("train", "test", "classify", "export")
ROOMS = ("runtime", "models", "data", "engine", "report", "training", "inference")
JOINTS = ("training", "inference")  # they join the other rooms, and never each other
# Inside data/: every wing stands on these two, on no other wing, and on nothing above the wings.
GROUND = ("data.images", "data.shards")


def modules(*rooms):
    paths = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    return {name_of(path): path for path in paths}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


OURS = modules(*ROOMS) | {script: ROOT / f"{script}.py" for script in SCRIPTS}


def is_file(name):
    """Whether a module is no package."""
    return name in OURS and OURS[name].stem != "__init__"


def imports(path):
    """Full names of what a file imports: modules, and what is taken out of them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_of(path):
    """The parts of the project that a file imports."""
    return {name.split(".")[0] for name in imports(path)} & {
        *ROOMS,
        *SCRIPTS,
        "tests",
        "benchmarks",
    }


def wing(name):
    """The folder of data/ that a module lies in; "data" for those above the wings."""
    return name.rpartition(".")[0]


def test_at_the_top_are_scripts_and_rooms_only():
    scripts = {path.stem for path in ROOT.glob("*.py")}
    assert scripts == set(SCRIPTS)
    others = {"tests", "benchmarks", "docs", "recipes", "weights", "etc", "runs"}
    folders = {path.name for path in ROOT.iterdir() if any(path.glob("**/*.py"))}
    assert {name for name in folders if name[0] != "."} <= {*ROOMS, *others}


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_room_knows_only_what_it_stands_on(name):
    room = name.split(".")[0]
    if room in SCRIPTS:
        allowed = {*ROOMS, room}
    elif room in JOINTS:
        allowed = {*ROOMS} - {*JOINTS} | {room}
    else:
        allowed = {room, "runtime"}
    assert rooms_of(OURS[name]) <= allowed


@pytest.mark.parametrize("name", sorted(modules("data")))
def test_the_wings_of_data_do_not_know_each_other(name):
    known = {each for each in imports(OURS[name]) if is_file(each) and wing(each) != "data"}
    wings = {wing(each) for each in known if each.startswith("data.")}
    if wing(name) == "data.images":
        assert wings <= {"data.images"}
    elif wing(name) != "data" and OURS[name].stem != "__init__":
        assert wings <= {wing(name), *GROUND}
        assert not {each for each in imports(OURS[name]) if wing(each) == "data" and is_file(each)}


def test_flags_are_typed():
    """They are fields of dataclasses: only `runtime` knows absl, and nothing passes a bag on."""
    for name, path in OURS.items():
        known = set(imports(path))
        assert "types.SimpleNamespace" not in known, name
        assert name.startswith("runtime.") or not any(each.startswith("absl") for each in known)


def test_files_and_functions_fit_on_a_few_screens():
    paths = [*OURS.values(), *sorted((ROOT / "benchmarks").rglob("*.py"))]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    assert not {name: lines for name, lines in lengths.items() if lines > 350}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def test_tests_and_benchmarks_do_not_import_each_other_in_a_circle():
    for path in (ROOT / "benchmarks").rglob("*.py"):
        assert "tests" not in rooms_of(path), path


def test_families_are_pure_keras():
    for path in (ROOT / "models").glob("*.py"):
        roots = {name.split(".")[0] for name in imports(path)}
        allowed = {"tensorflow"} if path.stem == "layers" else set()
        assert not roots & {"tensorflow", "torch", "jax"} - allowed, path.name


def test_a_family_knows_what_families_share_and_one_other_family():
    shared = {"initializers", "layers", "ops", "pools", "registry"}
    for path in (ROOT / "models").glob("*.py"):
        if path.stem not in {*shared, "__init__", "__main__"}:
            ours = {name.split(".")[1] for name in imports(path) if name.startswith("models.")}
            assert len(ours - shared) <= 1, path.name


def test_what_reads_strangers_bytes_does_not_import_tensorflow():
    for name, path in modules("data/images").items():
        roots = {each.split(".")[0] for each in imports(path)}
        assert not roots & {"tensorflow", "keras"}, name


def test_nothing_in_data_draws_from_a_hidden_state():
    for name, path in modules("data").items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("tf.random."):
                assert node.attr.startswith(("stateless", "experimental")), name
                assert "Generator" not in ast.unparse(node)
