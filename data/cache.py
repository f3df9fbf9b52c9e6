"""Converted copies of images, kept between runs: `python -m data.cache` lists and removes them."""

import argparse
import re
import time

from data.shards import copies
from runtime import console, files

_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}  # seconds


def _table(entries: list[copies.Copy]) -> list[str]:
    """Formats a table of copies, and a line with their total size."""
    width = max((len(copy.folder.name) for copy in entries), default=0)
    lines = [f"{'NAME':{width}}  {'SIZE':>9}  {'LAST USED':16}  SOURCE"] if entries else []
    for copy in entries:
        source = copy.source or ("not known" if copy.is_whole else "a conversion that was stopped")
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(copy.last_used))
        lines.append(
            f"{copy.folder.name:{width}}  {console.size(copy.bytes):>9}  {used:16}  {source}"
        )
    return [*lines, f"{_total(entries)} in {files.cache()}"]


def _total(entries: list[copies.Copy]) -> str:
    noun = "converted copy" if len(entries) == 1 else "converted copies"
    return f"{len(entries)} {noun}, {console.size(sum(copy.bytes for copy in entries))},"


def _age(text: str) -> float:
    """Reads the value of `--prune`, in seconds."""
    if match := re.fullmatch(r"([0-9]+)([mhdw])", text):
        return int(match[1]) * _UNITS[match[2]]
    raise argparse.ArgumentTypeError(
        f"expected a number with m, h, d or w (minutes to weeks), such as 30d, received {text}"
    )


def _chosen(entries: list[copies.Copy], names: list[str]) -> list[copies.Copy]:
    """Returns the copies with the given names.

    Raises:
        ValueError: If there is no copy of a name.
    """
    by_name = {copy.folder.name: copy for copy in entries}
    if unknown := [name for name in names if name not in by_name]:
        raise ValueError(
            f"no converted copy {unknown[0]} in {files.cache()}; python -m data.cache lists what "
            "is there"
        )
    return [by_name[name] for name in dict.fromkeys(names)]


def _remove(chosen: list[copies.Copy]) -> None:
    removed = []
    for copy in chosen:
        try:
            copy.remove()
        except files.BusyError as error:
            print(console.printable(f"{copy.folder.name} is kept: {error}"))
            continue
        print(console.printable(f"removed {copy.folder.name}"))
        removed.append(copy)
    print(f"{_total(removed)} removed")


def main(argv: list[str] | None = None) -> None:
    """Lists or removes converted copies."""
    parser = console.Parser(prog="python -m data.cache", description=__doc__, allow_abbrev=False)
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--prune", type=_age, help="remove copies that were not used for this time, such as 30d"
    )
    action.add_argument("--remove", action="append", help="remove the copy with this name")
    args = parser.parse_args(argv)
    with console.user_errors():
        entries = copies.listed()
        if args.remove:
            _remove(_chosen(entries, args.remove))
        elif args.prune is not None:
            _remove([copy for copy in entries if copy.last_used < time.time() - args.prune])
        else:
            print(*map(console.printable, _table(entries)), sep="\n")


if __name__ == "__main__":
    console.open_streams(exit_on_closed_pipe=True)
    main()
