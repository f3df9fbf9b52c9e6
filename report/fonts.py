"""Decides which fonts draw a text: DejaVu Sans, and installed ones for what it lacks.

Names of classes, files and folders may be in any script. Matplotlib brings DejaVu Sans, which has
Latin, Greek, Cyrillic and Arabic letters; for other characters the installed fonts are searched,
also those that were installed after matplotlib listed them. A character that no font has is drawn
as the missing-glyph box, without a warning.
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
        family: Its name.
        path: Its file.
        face: Which font of that file, from 0.
    """

    family: str
    path: str
    face: int


def fonts_for(text: str) -> list[Font]:
    """The fonts that draw a text, in the order in which they are asked for a character.

    Args:
        text: Any.

    Returns:
        `DEFAULT`, then few other fonts that have the characters that it lacks.
    """
    missing = frozenset(text) - _characters(default())
    missing = frozenset(each for each in missing if unicodedata.category(each) != "Cc")
    return [default(), *(_fallbacks(missing) if missing else ())]


def runs(text: str) -> Iterator[tuple[str, Font]]:
    """Splits a text into parts of one font each, for what cannot draw with several."""
    fonts = fonts_for(text)
    part, previous = "", default()
    for each in text:
        font = next((font for font in fonts if each in _characters(font)), default())
        if part and font != previous:
            yield part, previous
            part = ""
        part, previous = part + each, font
    if part:
        yield part, previous


@functools.cache
def default() -> Font:
    """The font that is asked first."""
    path = font_manager.findfont(DEFAULT)
    return Font(DEFAULT, path.path, path.face_index)


@functools.lru_cache
def _fallbacks(missing: frozenset[str]) -> tuple[Font, ...]:
    """Installed fonts, the one with the most of the characters first."""
    having = {font: missing & _characters(font) for font in _installed()}
    chosen = []
    while having:
        best = max(having, key=lambda font: len(having[font]))
        if not having[best]:
            break
        chosen.append(best)
        found = having[best]
        having = {font: characters - found for font, characters in having.items()}
    return tuple(chosen)


@functools.lru_cache(16)
def _characters(font: Font) -> frozenset[str]:
    """All that a font can draw; nothing if its file cannot be read."""
    try:
        return frozenset(map(chr, ft2font.FT2Font(font.path, face_index=font.face).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


def _installed() -> list[Font]:
    """The plainest font of every family, by the names of the families.

    Those that matplotlib brings are left out: they are for formulas, or have a box for everything.
    """
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        with contextlib.suppress(Exception):  # matplotlib's readers raise what they like
            font_manager.fontManager.addfont(path)
    own = matplotlib.get_data_path()
    entries = (e for e in font_manager.fontManager.ttflist if not e.fname.startswith(own))
    plainest = {}
    for entry in sorted(entries, key=_distance):
        plainest.setdefault(entry.name, Font(entry.name, entry.fname, entry.index))
    return [plainest[name] for name in sorted(plainest)]


def _distance(entry: font_manager.FontEntry) -> tuple:
    """How far a font is from an upright one of normal weight."""
    return entry.style != "normal", abs(entry.weight - _NORMAL_WEIGHT), entry.fname
