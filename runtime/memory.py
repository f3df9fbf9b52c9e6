"""How much memory this process may still take: what the machine and its control groups leave it."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")


class _Kind(NamedTuple):
    """A version of control groups: what its files are called.

    Attributes:
        limit: Bytes that a group and those below it may use.
        used: Bytes that they use.
        dropped: In memory.stat, those of files that the system drops first where it needs memory.
    """

    limit: str
    used: str
    dropped: str


_KINDS = {  # by type of file system
    "cgroup2": _Kind("memory.max", "memory.current", "inactive_file"),
    "cgroup": _Kind("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory() -> int:
    """Bytes that this process can take: no more than its group, and each above it, has left."""
    left = (_left(folder, kind) for folder, kind in _groups())
    return max(0, int(min(_of_machine(), *left, math.inf)))


def _of_machine() -> int:
    with contextlib.suppress(OSError):
        if available := _row(_PROC / "meminfo", "MemAvailable:"):
            return 1024 * available
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _row(path: Path, name: str) -> int:
    """The number behind a name in a table; 0 where it is not there."""
    rows = (line.split() for line in path.read_text().splitlines())
    return next((int(row[1]) for row in rows if row[0] == name), 0)


def _left(folder: Path, kind: _Kind) -> float:
    """Bytes that a group has left; infinite where it has no limit."""
    try:
        limit = float((folder / kind.limit).read_text().replace("max", "inf"))
        used = int((folder / kind.used).read_text())
        return limit - used + _row(folder / "memory.stat", kind.dropped)
    except OSError:  # the group of the whole machine
        return math.inf


def _groups() -> Iterator[tuple[Path, _Kind]]:
    """Yields the folders of the groups with limits in which this process is, and their version."""
    with contextlib.suppress(OSError):
        own = dict(_own_groups())
        for line in (_PROC / "self" / "mountinfo").read_text().splitlines():
            mount, _, of_system = line.partition(" - ")
            root, top = mount.split()[3:5]
            kind, _, options = of_system.split(maxsplit=2)
            if kind in own and (kind == "cgroup2" or "memory" in options.split(",")):
                folder = _below(Path(top), Path(root), own[kind])
                for group in (folder, *folder.parents):
                    yield group, _KINDS[kind]
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


def _below(top: Path, root: Path, group: Path) -> Path:
    """Where a group lies: a container may see its own at the top, or none but the top."""
    return top / group.relative_to(root) if group.is_relative_to(root) else top
