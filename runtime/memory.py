"""Free memory of this process, by the machine and by its control groups."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")


class _CgroupFiles(NamedTuple):
    """The names of files in a version of control groups.

    Attributes:
        limit: File of the bytes that a group and those below it may use.
        used: File of the bytes that they use.
        dropped: Row of memory.stat: cached bytes that the system drops first if it needs memory.
    """

    limit: str
    used: str
    dropped: str


_CGROUP_FILES = {  # by type of file system
    "cgroup2": _CgroupFiles("memory.max", "memory.current", "inactive_file"),
    "cgroup": _CgroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory() -> int:
    """Returns the bytes that this process can allocate: the minimum over machine and groups."""
    remaining = (_remaining(folder, kind) for folder, kind in _groups())
    return max(0, int(min(_machine_memory(), *remaining, math.inf)))


def _machine_memory() -> int:
    with contextlib.suppress(OSError):
        if available := _row(_PROC / "meminfo", "MemAvailable:"):
            return 1024 * available
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _row(path: Path, name: str) -> int:
    """Returns the number after a name in a table; 0 if the name is missing."""
    rows = (line.split() for line in path.read_text().splitlines())
    return next((int(row[1]) for row in rows if row[0] == name), 0)


def _remaining(folder: Path, kind: _CgroupFiles) -> float:
    """Returns the bytes that a group has left; infinite without a limit."""
    try:
        limit = float((folder / kind.limit).read_text().replace("max", "inf"))
        used = int((folder / kind.used).read_text())
        return limit - used + _row(folder / "memory.stat", kind.dropped)
    except OSError:  # the group of the whole machine
        return math.inf


def _groups() -> Iterator[tuple[Path, _CgroupFiles]]:
    """Yields the folders of the groups that limit this process, and their version."""
    with contextlib.suppress(OSError):
        own_groups = dict(_own_groups())
        for line in (_PROC / "self" / "mountinfo").read_text().splitlines():
            mount, _, file_system = line.partition(" - ")
            root, top = mount.split()[3:5]
            kind, _, options = file_system.split(maxsplit=2)
            if kind in own_groups and (kind == "cgroup2" or "memory" in options.split(",")):
                folder = _group_folder(Path(top), Path(root), own_groups[kind])
                for group in (folder, *folder.parents):
                    yield group, _CGROUP_FILES[kind]
                    if group == Path(top):
                        break


def _own_groups() -> Iterator[tuple[str, Path]]:
    """Yields the group of this process in each kind of file system."""
    for line in (_PROC / "self" / "cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield "cgroup2", Path(group)
        elif "memory" in controllers.split(","):
            yield "cgroup", Path(group)


def _group_folder(top: Path, root: Path, group: Path) -> Path:
    """Returns the folder of a group; in a container, the top folder may be its own group."""
    return top / group.relative_to(root) if group.is_relative_to(root) else top
