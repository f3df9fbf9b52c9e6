"""A section of the report, which is written after every row so that nothing is lost."""

import json
from collections.abc import Sequence
from pathlib import Path

from runtime import files

UNEXPECTED = "**no**"  # cell of a row that is not as it should be


class Section:
    """The rows and notes of a check."""

    def __init__(self, path: Path, title: str = "") -> None:
        """Starts an empty section.

        Args:
            path: File that is written after every change.
            title: Heading.
        """
        self._path, self._title = path, title
        self._header: list[str] = []
        self._rows: list[list[str]] = []
        self._notes: list[str] = []
        self._failed: str | None = None

    @staticmethod
    def read(path: Path) -> dict | None:
        """Returns the content of a section's file; None if there is none."""
        return json.loads(path.read_text()) if path.exists() else None

    def content(self) -> dict:
        """Returns the section as JSON values."""
        return {
            "title": self._title,
            "rows": [self._header, *self._rows] if self._rows else [],
            "notes": self._notes,
            "failed": self._failed,
        }

    def header(self, *cells: str) -> None:
        """Sets the titles of the columns."""
        self._header = list(cells)

    def row(self, *cells: object) -> None:
        """Adds a row, with a cell per column."""
        self._rows.append([str(cell) for cell in cells])
        self._save()

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Replaces all rows; the first one is the header."""
        self._header, *self._rows = map(list, rows)
        self._save()

    def note(self, sentence: str) -> None:
        """Adds a sentence below the table."""
        self._notes.append(sentence)
        self._save()

    def fail(self, reason: str) -> None:
        """Writes why the check could not be finished."""
        self._failed = reason
        self._save()

    def _save(self) -> None:
        text = json.dumps(self.content(), indent=1)
        files.replace(self._path, lambda path: path.write_text(text))
