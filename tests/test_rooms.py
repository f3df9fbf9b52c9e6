"""The architecture as a test: which room may import what, and where flags live."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("models", "data", "engine", "report")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).glob("*.py"))
SCRIPTS = ("train.py", "test.py", "classify.py", "export.py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_rooms_do_not_know_each_other(path):
    others = set(ROOMS) - {path.parent.name}
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & others
    assert not roots & {Path(script).stem for script in SCRIPTS}
    assert "absl" not in roots


def test_families_are_pure_keras():
    for path in (ROOT / "models").glob("*.py"):
        roots = {name.split(".")[0] for name in imports(path)}
        allowed = {"keras", "models", "numpy"} | (
            {"tensorflow"} if path.stem == "layers" else set()
        )
        assert not {root for root in roots if root in ("tensorflow", "torch", "jax")} - allowed


def test_workers_do_not_import_tensorflow():
    seen, waiting = set(), ["workers", "checkup", "video"]
    while waiting:
        name = waiting.pop()
        seen.add(name)
        found = set(imports(ROOT / "data" / f"{name}.py"))
        assert not any(each.split(".")[0] in ("tensorflow", "keras") for each in found), name
        local = {each.split(".")[1] for each in found if each.startswith("data.")}
        waiting += [each for each in local - seen if (ROOT / "data" / f"{each}.py").exists()]
    assert "decode" in seen


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_are_read_in_main_only(script):
    tree = ast.parse((ROOT / script).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        assert function.name == "main" or "FLAGS" not in names, function.name


def test_nothing_in_data_draws_from_a_hidden_state():
    stateless = ("stateless", "experimental", "Generator")
    for path in (ROOT / "data").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("tf.random."):
                assert node.attr.startswith(stateless[:2]), f"{path.name}: {ast.unparse(node)}"
                assert "Generator" not in ast.unparse(node)
