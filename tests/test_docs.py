"""README.md and docs/: links, pictures, anchors, files and commands that exist."""

import functools
import re

import pytest
from conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "weights" / "README.md", *(ROOT / "benchmarks").glob("results/*.md")]
ROOMS = (
    "runtime|models|data|engine|training|inference|report|recipes|weights|etc|docs|benchmarks|tests"
)

BLOCK = re.compile(r"^```.*?^```|(?:^ {4}[^\n]*\n)+", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]*?)(?:#([^)\s]*))?\)")
COMMAND = re.compile(
    r"\bpython3? (?:-m (?P<module>[\w.]+)|(?P<script>[\w/]+\.py))(?P<words>[^|&#]*)"
    r"|(?P<starter>etc/(?:ssh|slurm)\.sh)(?P<passed>[^|&#]*)"
)
FLAG = re.compile(r"(?<![\w-])--(\w+)")
FOREIGN = {"pytest", "venv", "virtualenv"}  # modules of others


def name_of(page):
    return str(page.relative_to(ROOT))


def prose(page):
    return BLOCK.sub("", page.read_text())


def code(page):
    """The lines of a page's code blocks, and its code in sentences."""
    blocks = "".join(BLOCK.findall(page.read_text())).replace("\\\n", " ")
    spans = re.findall(r"`([^`]+)`", prose(page))
    return [*blocks.splitlines(), *(" ".join(span.split()) for span in spans)]


def anchors(page):
    """The anchors of a page's headings, as GitHub names them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def flags(command):
    """The flags of a program, as its --help names them."""

    @functools.cache
    def of(*program):
        output = command(*program, "--help")
        assert output.returncode == 0, output.stderr
        names = re.findall(r"--(?:\[no\])?(\w+)", output.stdout)
        return {*names, "help", "flagfile"}

    return of


def programs(line):
    """The programs of ours that a line runs, as words, and the flags that it gives them."""
    for found in COMMAND.finditer(line):
        module, script = found["module"], found["script"]
        if module in FOREIGN:
            continue
        if module:
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), line
        assert (ROOT / (script or found["starter"] or ".")).exists(), line
        program = ("-m", module) if module else (script or "train.py",)
        yield program, set(FLAG.findall(found["words"] or found["passed"] or ""))


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_and_pictures_exist(page):
    for target, anchor in LINK.findall(prose(page)):
        if "://" not in target:
            other = (page.parent / target).resolve() if target else page
            assert other.exists(), target
            assert not anchor or anchor in anchors(other), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    for line in code(page):
        for path in re.findall(rf"(?<![\w/.])(?:{ROOMS})/[a-z_][\w./*-]*", line):
            assert list(ROOT.glob(path)), path


@pytest.mark.slow
def test_commands_and_their_flags_exist(flags):
    lines = {line for page in PAGES for line in code(page)}
    known = set()
    for line in sorted(lines):
        for program, given in programs(line):
            if given:
                known |= flags(*program)
                assert given <= flags(*program), line
    named = {line for line in lines if re.match(r"--\w|\w+\.py .*--", line)}
    for line in named:
        assert set(FLAG.findall(line)) <= known, line


def test_the_first_page_is_short_and_lists_all_others():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 160
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= {link for link, _ in LINK.findall(text)}
