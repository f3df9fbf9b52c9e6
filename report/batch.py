"""Draws a batch: every stored image, its crop window, and the augmented input of the network."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from report import fonts
from runtime import console

_COLUMNS = 8
_SIDE = 160  # longer side of a picture in pixels
_GAP = 6
_LINE = 14  # line height in pixels
_TEXT = 10  # font size in pixels
_FRAME = (255, 60, 60)


@dataclass(frozen=True)
class Row:
    """An example of a batch.

    Attributes:
        title: Number and class of the example.
        filename: Name of its image file.
        stored: Stored image, uint8 [H, W, 3].
        window: Top, left, height and width of the crop in pixels of the stored image.
        seen: Input of the network, uint8 [S, S, 3].
    """

    title: str
    filename: str
    stored: np.ndarray
    window: tuple[int, int, int, int]
    seen: np.ndarray


def draw(rows: Sequence[Row], path: Path) -> None:
    """Writes a picture of a batch as PNG.

    Args:
        rows: Examples of the batch.
        path: Path of the file.

    Raises:
        OSError: If the file cannot be written.
    """
    columns = min(_COLUMNS, math.ceil(math.sqrt(len(rows) / 2)))  # about square
    width, height = 2 * _SIDE + 3 * _GAP, _SIDE + 2 * _LINE + 2 * _GAP
    row_count = -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * width, row_count * height), "white")
    for index, row in enumerate(rows):
        corner = (index % columns * width + _GAP, index // columns * height + _GAP)
        _draw_row(sheet, row, *corner)
    sheet.save(path, format="PNG")


def _draw_row(sheet: Image.Image, row: Row, x: int, y: int) -> None:
    drawing = ImageDraw.Draw(sheet)
    for line, text in enumerate((row.title, row.filename)):
        _write(drawing, console.one_line(text), x, y + line * _LINE + _TEXT)
    top = y + 2 * _LINE
    stored, scale = _scaled(row.stored)
    sheet.paste(stored, (x, top))
    top_edge, left, height, width = (scale * side for side in row.window)
    corners = _inside([left, top_edge, left + width - 1, top_edge + height - 1])
    drawing.rectangle(
        [(x + corners[0], top + corners[1]), (x + corners[2], top + corners[3])], outline=_FRAME
    )
    sheet.paste(_scaled(row.seen)[0], (x + _SIDE + _GAP, top))


def _scaled(image: np.ndarray) -> tuple[Image.Image, float]:
    """Scales an image to the size of a picture; returns it and the scale factor."""
    scale = _SIDE / max(image.shape[:2])
    shape = [max(1, round(scale * side)) for side in image.shape[1::-1]]
    resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    return Image.fromarray(image).resize(shape, resampling), scale


def _inside(corners: list[float]) -> list[float]:
    """Clips a frame to the picture's cell, because crop windows may exceed their image."""
    return [min(max(corner, -_GAP / 2), _SIDE + _GAP / 2) for corner in corners]


def _write(drawing: ImageDraw.ImageDraw, text: str, x: float, y: float) -> None:
    """Writes one line of text that starts at `x`, with its baseline at `y`."""
    for part, font in fonts.runs(_fitting(text, 2 * _SIDE)):
        drawing.text((x, y), part, fill="black", font=_opened(font), anchor="ls")
        x += _opened(font).getlength(part)


def _fitting(text: str, width: int) -> str:
    """Shortens a text at its beginning until it fits a width in pixels."""
    if _length(text) <= width:
        return text
    while text and _length("..." + text) > width:
        text = text[1:]
    return "..." + text


def _length(text: str) -> float:
    return sum(_opened(font).getlength(part) for part, font in fonts.runs(text))


@functools.cache
def _opened(font: fonts.Font) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font.path, _TEXT, index=font.face)
