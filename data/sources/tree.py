"""Trees of folders with their images and other files; knows nothing of classes or splits.

Decides by names, once for all sources: hidden files, folders of systems and tools that hold no
images of the user's, extensions of images, and how a name that is not UTF-8 is written.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from data.images.examples import Member
from data.images.names import readable
from data.images.reading import PassedOver

# Extensions of images; the format is decided by the content.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    *(".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif"),
)
# Folders of thumbnails, bins and the like, of Synology, Windows, Linux and macOS.
_EXCLUDED = {"@eadir", "$recycle.bin", "system volume information", "lost+found", "__macosx"}
_HIDDEN = {"thumbs.db", "desktop.ini", "icon\r"}  # files that Windows and macOS hide themselves
# Files that mark a folder as written by this application, and a key in the JSON files.
_OURS = {"run.json": b'"flags"', "dataset.json": b'"format_version"', "conversion.lock": b""}
_EXPORTS = {"model.keras", "model.onnx", "model.tflite", "saved_model.pb"}  # beside labels.txt
# Files that do not make a folder without images a class.
TEXTS = (".txt", ".md", ".csv", ".json", ".xml", ".pdf", ".html", ".py", ".ipynb")
_FREE_LEVELS = 3  # root, split, class: a folder may be linked into several places


@dataclass
class Folder:
    """A folder on the disk or in an archive.

    Attributes:
        name: Readable name.
        entries: Images and folders in it, in the order of their names.
        others: Other files, by their names; None for a file that cannot be read.
        excluded: Names of its folders that are never listed.
        problem: Reason why it cannot be listed; empty if it can.
        identity: Device and inode, the same for each path to the folder; None in an archive.
    """

    name: str
    entries: "list[Folder | Member]" = field(default_factory=list)
    others: dict[str, Member | None] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)
    problem: str = ""
    identity: tuple[int, int] | None = None

    @property
    def folders(self) -> "list[Folder]":
        """The folders in it."""
        return [entry for entry in self.entries if isinstance(entry, Folder)]

    @property
    def images(self) -> list[Member]:
        """The images in it, without those of its folders."""
        return [entry for entry in self.entries if not isinstance(entry, Folder)]

    def members(self, prefix: str = "") -> Iterator[Member]:
        """Yields each image in it and below it once; names begin with `prefix`."""
        return self._members(prefix, set())

    def _members(self, prefix: str, seen: set) -> Iterator[Member]:
        if self.identity in seen:
            return
        if self.identity:
            seen.add(self.identity)
        for entry in self.entries:
            if isinstance(entry, Folder):
                yield from entry._members(f"{prefix}{entry.name}/", seen)
            else:
                yield entry._replace(name=prefix + entry.name)

    def has_images(self) -> bool:
        """Whether there is an image in it or below it."""
        return any(True for _ in self.members())

    def other_files(self) -> Iterator[str]:
        """Yields the names of all other files in it and below it."""
        yield from self.others
        for folder in self.folders:
            yield from folder.other_files()


def pass_over_level(folder: Folder, passed_over: PassedOver, *, images: bool = False) -> None:
    """Adds the files of a folder that are no images, and the folders that are never listed.

    Args:
        folder: The folder; folders in it are not searched.
        passed_over: List to add them to.
        images: Whether to add its images too.
    """
    passed_over.add_files([*folder.others, *(each.name for each in folder.images if images)])
    passed_over.add_folders(folder.excluded)


def pass_over_below(folder: Folder, passed_over: PassedOver) -> None:
    """Adds everything in a folder and below it that is not used; all images are."""
    pass_over_level(folder, passed_over)
    for inner in folder.folders:
        if inner.problem:
            passed_over.add_folders([inner.name])
            passed_over.closed.append(inner.name)
        else:
            pass_over_below(inner, passed_over)


def scan(path: str | os.PathLike) -> Folder:
    """Reads a folder and all folders below it, links included.

    Raises:
        OSError: If it does not exist or cannot be opened.
    """
    path = os.fspath(path)
    with os.scandir(path):  # the only folder that must be readable
        pass
    status = os.stat(path)
    name = readable(os.path.basename(os.path.abspath(path)))
    root = _scan(path, Folder(name, identity=(status.st_dev, status.st_ino)), (), set())
    if root.problem:
        raise PermissionError(f"{path} {root.problem}")
    return without_ours(root, _read)


def tree_of(files: Iterable[tuple[str, Member | None]]) -> Folder:
    """Builds the tree of an archive, equal to that of `scan` on the unpacked archive.

    Args:
        files: Name of every file in the archive, with `/` between folders, and its place; None
            for a link. If a name occurs again, the last one is used.
    """
    root = Folder("")
    folders = {(): root}
    for name, member in dict(files).items():
        *parents, last = [part for part in readable(name).split("/") if part not in ("", ".")]
        folder = _folder_for(folders, parents)
        if folder is None or _is_hidden(last):
            continue
        if member or last.lower().endswith((*EXTENSIONS, *TEXTS)):
            _add_file(folder, last, member)
        else:
            folder.entries.append(
                Folder(last, problem="is a link, and links in archives are not followed")
            )
    for folder in folders.values():
        folder.entries.sort(key=lambda entry: entry.name)
    return root


def without_ours(folder: Folder, read: Callable[[Member], bytes]) -> Folder:
    """Removes folders that this application has written from a tree: runs, conversions, exports.

    Args:
        folder: The tree, which is returned; its top folder stays.
        read: Reads a file.
    """
    ours = [inner for inner in folder.folders if _is_ours(inner, read)]
    folder.excluded += [inner.name for inner in ours]
    folder.entries = [entry for entry in folder.entries if entry not in ours]
    for inner in folder.folders:
        without_ours(inner, read)
    return folder


def _scan(path: str, folder: Folder, ancestors: tuple, seen: set) -> Folder:
    """Lists a folder.

    Args:
        path: Path of the folder.
        folder: The folder to fill in.
        ancestors: Identities of all folders above it, to detect cycles of links.
        seen: Identities of folders listed below the third level, where each is listed only once:
            links could lead to it by too many paths.
    """
    ancestors = (*ancestors, folder.identity)
    try:
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            if not _is_hidden(entry.name):
                _add_entry(
                    folder, entry, ancestors, set() if len(ancestors) <= _FREE_LEVELS else seen
                )
    except OSError as error:
        folder.problem = f"cannot be opened: {error.strerror}"
        folder.entries = []
    return folder


def _add_entry(folder: Folder, entry: os.DirEntry, ancestors: tuple, seen: set) -> None:
    name, link = readable(entry.name), entry.is_symlink()
    if _is_excluded(entry.name):
        folder.excluded.append(name)
    elif os.path.isdir(entry.path) if link else entry.is_dir():
        status = entry.stat()
        identity = status.st_dev, status.st_ino
        if identity not in ancestors and identity not in seen:
            seen.add(identity)
            inner = Folder(name, identity=identity)
            folder.entries.append(_scan(entry.path, inner, ancestors, seen))
    elif os.path.isfile(entry.path) if link else entry.is_file():
        _add_file(folder, name, Member(name, entry.path, 0, entry.stat().st_size))
    elif link and not name.lower().endswith((*EXTENSIONS, *TEXTS)):
        folder.entries.append(Folder(name, problem="is a broken link"))
    elif link:
        _add_file(folder, name, Member(name, entry.path, 0, 0))  # as an image it will be rejected
    else:  # a pipe, a device
        folder.others[name] = None


def _folder_for(folders: dict[tuple, Folder], parents: list[str]) -> Folder | None:
    """Returns the folder of a file in an archive, created if necessary; None if it is excluded."""
    folder, prefix = folders[()], ()
    for part in parents:
        if _is_excluded(part):
            folder.excluded += [part] * (part not in folder.excluded)
        if _is_excluded(part) or _is_hidden(part):
            return None
        prefix = (*prefix, part)
        if prefix not in folders:
            folders[prefix] = Folder(part)
            folder.entries.append(folders[prefix])
        folder = folders[prefix]
    return folder


def _add_file(folder: Folder, name: str, member: Member | None) -> None:
    if member and name.lower().endswith(EXTENSIONS):
        folder.entries.append(member._replace(name=name))
    else:
        folder.others[name] = member


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _HIDDEN


def _is_excluded(name: str) -> bool:
    return name.lower() in _EXCLUDED


def _is_ours(folder: Folder, read: Callable[[Member], bytes]) -> bool:
    if "labels.txt" in folder.others and _EXPORTS & folder.others.keys():
        return True
    marks = ((folder.others.get(name), key) for name, key in _OURS.items())
    return any(member and key in read(member) for member, key in marks)


def _read(member: Member) -> bytes:
    try:
        with open(member.path, "rb") as file:
            return file.read()
    except OSError:
        return b""
