"""memory: what the machine and the control groups leave this process."""

import os

import pytest

from runtime import memory

FREE = 8000 << 10  # of the machine, bytes


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes what Linux says of itself: groups of this process, where they lie, their files."""

    def write(groups, mounts, files):
        for name, text in {
            "proc/meminfo": "MemTotal: 9999 kB\nMemFree: 10 kB\nMemAvailable: 8000 kB\n",
            "proc/self/cgroup": "".join(f"{line}\n" for line in groups),
            "proc/self/mountinfo": "23 1 0:1 / / rw - ext4 /dev/sda rw\n"
            + "".join(f"{line.format(tmp_path)}\n" for line in mounts),
            **files,
        }.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
        return memory.free_memory()

    return write


V2 = "31 23 0:28 / {}/cg rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "35 31 0:32 {} {{}}/v1/memory rw,relatime - cgroup cgroup rw,memory"
OTHER = "32 31 0:29 / {}/v1/cpu rw,relatime - cgroup cgroup rw,cpu"


def group(folder, limit, used, inactive=0):
    stat = f"anon 5\nfile {inactive + 77}\ninactive_file {inactive}\nactive_file 77\n"
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": stat,
    }


def old_group(folder, limit, used, inactive=0):
    return {
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": f"{used}\n",
        f"{folder}/memory.stat": f"inactive_file 1\ntotal_inactive_file {inactive}\n",
    }


def test_a_machine_without_groups(machine):
    assert machine([], [], {}) == FREE
    assert machine(["0::/"], [V2], {"cg/cgroup.procs": ""}) == FREE


@pytest.mark.parametrize(
    "own, above, expected",
    [
        (("max", 7), ("max", 9), FREE),
        ((5000, 4000), ("max", 9), 1000),
        ((5000, 4000, 300), ("max", 9), 1300),  # the system drops pages of files first
        ((5000, 4000), (9000, 8800), 200),
        (("max", 4000), (9000, 8800, 50), 250),
        ((5000, 6000), ("max", 9), 0),
        ((FREE * 2, 0), (FREE * 3, 0), FREE),
    ],
)
def test_a_group_has_no_more_than_it_and_those_above_have_left(machine, own, above, expected):
    files = {**group("cg/a/b", *own), **group("cg/a", *above), "cg/cgroup.procs": ""}
    assert machine(["0::/a/b"], [V2], files) == expected


@pytest.mark.parametrize(
    "root, expected",
    [("/", 30), ("/a", 30), ("/elsewhere", 500), ("/a/b", 500)],  # of the mount: a container's
)
def test_groups_of_version_1(machine, root, expected):
    unlimited = old_group("v1/memory", 9223372036854771712, 10**6)
    below = {"/": "a/b", "/a": "b"}.get(root)
    files = unlimited | (old_group(f"v1/memory/{below}", 100, 90, 20) if below else {})
    if not below:
        files = old_group("v1/memory", 1000, 500)
    assert machine(["5:memory,x:/a/b", "1:cpu:/", "0::/"], [OTHER, V1.format(root)], files) == (
        expected
    )


def test_what_is_no_linux_has_its_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    assert memory.free_memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_this_machine():
    assert 0 < memory.free_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
