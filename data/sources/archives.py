"""Archives of images, read member by member: nothing is extracted.

The images of .zip and .tar files are byte ranges. Those of a compressed .tar are not: they are
unpacked into one file, which is removed after the conversion.
"""

import contextlib
import dataclasses
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from data.images.examples import Example, Member, Packing, Splits
from data.sources import tree

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error)
_DAMAGED = (*_DAMAGED, EOFError, NotImplementedError)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")  # first bytes of .tar.gz, .tar.bz2, .tar.xz
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a .zip file's member: two lengths at its end
_ENCRYPTED, _UTF_8 = 0x1, 0x800  # flags of a member


def is_archive(data: str) -> bool:
    """Whether a path is a file with the extension of an archive."""
    return data.lower().endswith(SUFFIXES) and os.path.isfile(data)


def is_compressed_tar(path: str) -> bool:
    """Whether a path is a .tar file whose members cannot be read one by one."""
    if not path.lower().endswith(SUFFIXES):
        return False
    with open(path, "rb") as file:
        return file.read(max(map(len, _COMPRESSED))).startswith(_COMPRESSED)


def without_suffix(name: str) -> str:
    """Removes the extension from the name of an archive."""
    suffix = next((each for each in SUFFIXES if name.lower().endswith(each)), "")
    return name[: len(name) - len(suffix)]


def scan(path: str) -> tree.Folder:
    """Lists an archive as a tree of folders, like `tree.scan` does for a folder.

    Returns:
        The tree; if everything lies in one folder, the tree of that folder.

    Raises:
        ValueError: If the archive is damaged, encrypted or not compressed by deflate.
    """
    try:
        members = _zipped if path.lower().endswith(".zip") else _in_tar
        root = tree.without_ours(tree.tree_of(members(path)), read)
    except PermissionError:
        raise
    except (*_DAMAGED, OSError) as error:
        cause = str(error).splitlines()[0].rstrip(": ")
        raise ValueError(f"{path}: not a whole archive: {cause}") from None
    if len(root.folders) > 1 or root.images or not any(each.folders for each in root.folders):
        return root
    (top,) = root.folders
    top.others = root.others | top.others
    top.excluded += root.excluded
    return top


def read(member: Member) -> bytes:
    """Returns the bytes of a member; a compressed .tar is read up to there."""
    if not is_compressed_tar(member.path):
        return Example(member.name, -1, *member[1:]).read()
    with tarfile.open(member.path) as archive:
        archive.fileobj.seek(member.offset)
        return archive.fileobj.read(member.size)


def unpacked(splits: Splits, scratch: Path) -> Splits:
    """Unpacks the images of compressed .tar files into a scratch folder.

    Args:
        splits: Examples by split; those in other files stay as they are.
        scratch: An existing folder.
    """
    examples = [example for split in splits.values() for example in split]
    locations = {}
    for number, path in enumerate(sorted({example.path for example in examples})):
        if is_compressed_tar(path):
            spool = scratch / f"unpacked-{number}"
            locations |= _spooled(spool, path, [each for each in examples if each.path == path])
    return {
        split: [
            dataclasses.replace(each, path=locations[key][0], offset=locations[key][1])
            if (key := (each.path, each.offset)) in locations
            else each
            for each in split_examples
        ]
        for split, split_examples in splits.items()
    }


def members_of(archive: tarfile.TarFile, *, links: bool = False) -> Iterator[tarfile.TarInfo]:
    """Yields the plain files of an open .tar: no devices, folders or sparse files.

    Args:
        archive: The .tar.
        links: Whether to yield links too.

    Raises:
        tarfile.TarError: If it is damaged; tarfile itself would take that for the end.
    """
    for member in archive:
        is_link = links and (member.islnk() or member.issym())
        if is_link or (member.isreg() and not member.issparse()):
            yield member
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"damaged at byte {archive.offset}")


def _in_tar(path: str) -> Iterator[tuple[str, Member | None]]:
    """Yields name and location of each member: for hard links the target's, for others None."""
    members_by_name = {}
    with tarfile.open(path) as archive:
        for member in members_of(archive, links=True):
            name = os.path.normpath(member.name)
            if member.isreg():
                members_by_name[name] = Member("", path, member.offset_data, member.size)
            else:
                target = os.path.normpath(member.linkname) if member.islnk() else None
                members_by_name[name] = members_by_name.get(target)
            yield member.name, members_by_name[name]


def _zipped(path: str) -> Iterator[tuple[str, Member]]:
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        members = [member for member in archive.infolist() if not member.is_dir()]
        by_windows = not any("/" in member.filename for member in members)
        for member in members:
            if member.flag_bits & _ENCRYPTED:
                raise ValueError(
                    f"{path}: {member.filename} is encrypted, expected an unencrypted file"
                )
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{path}: {member.filename} is neither stored nor deflated")
            file.seek(member.header_offset)
            lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            begin = member.header_offset + _LOCAL_HEADER.size + sum(lengths)
            deflated = member.compress_type == zipfile.ZIP_DEFLATED
            packing = Packing(member.file_size, member.CRC, deflated)
            name = _name(member)
            name = name.replace("\\", "/") if by_windows else name
            yield name, Member("", path, begin, member.compress_size, packing)


def _name(member: zipfile.ZipInfo) -> str:
    """Returns the name of a member; many programs write UTF-8 without setting its flag."""
    if not member.flag_bits & _UTF_8:
        with contextlib.suppress(UnicodeError):
            return member.filename.encode("cp437").decode("utf-8")
    return member.filename


def _spooled(
    spool: Path, path: str, examples: list[Example]
) -> dict[tuple[str, int], tuple[str, int]]:
    """Unpacks images; maps path and offset of each to those in the spool file."""
    locations, end = {}, 0
    with tarfile.open(path) as archive, open(spool, "wb") as file:
        for example in sorted(examples, key=lambda example: example.offset):
            archive.fileobj.seek(example.offset)
            locations[path, example.offset] = str(spool), end
            end += file.write(archive.fileobj.read(example.size))
    return locations
