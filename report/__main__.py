"""Writes an HTML page about one or several runs.

python -m report RUN                  RUN/report.html
python -m report RUN RUN ...          report.html: all runs, compared
python -m report RUN --output=X.html
"""

import argparse
from pathlib import Path

from report import compare, page
from runtime import console


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and writes the page."""
    parser = console.Parser(
        prog="python -m report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument(
        "--output", help="path of the page (default: RUN/report.html; for several runs report.html)"
    )
    options = parser.parse_args(argv)
    folder = Path(options.runs[0] if len(options.runs) == 1 else ".")
    path = Path(options.output or folder / "report.html")
    with console.user_errors():
        compare.write_page(page.page(options.runs), path)
    print(f"page: {path}")


if __name__ == "__main__":
    console.open_streams(exit_on_closed_pipe=True)
    main()
