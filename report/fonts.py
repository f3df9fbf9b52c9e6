"""Selects the fonts for a text: DejaVu Sans, and installed fonts for the characters it lacks.

Names of classes, files and folders may be in any script. Matplotlib includes DejaVu Sans, which
has Latin, Greek, Cyrillic and Arabic letters. Other characters are looked up in the installed
fonts, including those installed after matplotlib cached its list. A character that no font has is
drawn as the missing-glyph box, without a warning.
"""

import contextlib
import functools
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import matplotlib
from matplotlib import font_manager, ft2font

DEFAULT = "DejaVu Sans"
_NORMAL_WEIGHT = 400


class Font(NamedTuple):
    """An installed font.

    Attributes:
        family: Name of the font family.
        path: Path of the font file.
        face: Index of the font in its file, from 0.
    """

    family: str
    path: str
    face: int


def fonts_for(text: str) -> list[Font]:
    """Returns the fonts for a text, in the order in which to look up a character.

    Args:
        text: Text in any script.

    Returns:
        `DEFAULT`, followed by few other fonts that cover the characters it lacks.
    """
    missing = frozenset(text) - _characters(default())
    missing = frozenset(
        character for character in missing if unicodedata.category(character) != "Cc"
    )
    return [default(), *(_fallbacks(missing) if missing else ())]


def runs(text: str) -> Iterator[tuple[str, Font]]:
    """Splits a text into parts of one font each, for libraries without font fallback."""
    fonts = fonts_for(text)
    part, previous = "", default()
    for character in text:
        font = next((font for font in fonts if character in _characters(font)), default())
        if part and font != previous:
            yield part, previous
            part = ""
        part, previous = part + character, font
    if part:
        yield part, previous


@functools.cache
def default() -> Font:
    """Returns the first font to look up a character in."""
    path = font_manager.findfont(DEFAULT)
    return Font(DEFAULT, path.path, path.face_index)


@functools.lru_cache
def _fallbacks(missing: frozenset[str]) -> tuple[Font, ...]:
    """Selects installed fonts greedily, each covering the most of the remaining characters."""
    coverage = {font: missing & _characters(font) for font in _installed()}
    chosen = []
    while coverage:
        best = max(coverage, key=lambda font: len(coverage[font]))
        if not coverage[best]:
            break
        chosen.append(best)
        covered = coverage[best]
        coverage = {font: characters - covered for font, characters in coverage.items()}
    return tuple(chosen)


@functools.lru_cache(16)
def _characters(font: Font) -> frozenset[str]:
    """Returns the characters of a font; none if its file cannot be read."""
    try:
        return frozenset(map(chr, ft2font.FT2Font(font.path, face_index=font.face).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


def _installed() -> list[Font]:
    """Returns the most regular font of every installed family, sorted by family name.

    Matplotlib's own fonts are left out: they are for formulas or draw a box for every character.
    """
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        with contextlib.suppress(Exception):  # matplotlib's readers raise exceptions of any type
            font_manager.fontManager.addfont(path)
    bundled = matplotlib.get_data_path()
    entries = (e for e in font_manager.fontManager.ttflist if not e.fname.startswith(bundled))
    regular = {}
    for entry in sorted(entries, key=_distance):
        regular.setdefault(entry.name, Font(entry.name, entry.fname, entry.index))
    return [regular[name] for name in sorted(regular)]


def _distance(entry: font_manager.FontEntry) -> tuple:
    """Returns a sort key: the distance of a font from an upright one of normal weight."""
    return entry.style != "normal", abs(entry.weight - _NORMAL_WEIGHT), entry.fname
