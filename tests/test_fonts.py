"""Text in pictures: installed fonts where they have it, boxes where not, and never a warning."""

import warnings

import cv2
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from report import batch, fonts, plots

NAMES = [
    "\u732b\u3000\u72ac",  # cat, an ideographic space, dog
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # three people
    "$1",
    "$\\frac{$",
    "a\u00a0b",
    "two\nlines",
    "back\\slash",
    "tab\tbell\x07",
    "caf\udce9",  # a byte that is not UTF-8
    "\u0939\u093f\u0928\u094d\u0926\u0940",  # Devanagari, which is shaped
    "\ue000",  # for private use: no font has it
]
WEIGHTS = {"Regular": 400, "Medium": 500, "Bold": 700}


@pytest.fixture(autouse=True)
def only(monkeypatch):
    """Installs fonts, no others but matplotlib's own: `only(path, ...)`."""
    own = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]

    def install(*paths):
        monkeypatch.setattr(font_manager.fontManager, "ttflist", list(own))
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(map(str, paths)))
        font_manager.fontManager._findfont_cached.cache_clear()
        fonts._fallbacks.cache_clear()

    install()
    yield install
    fonts._fallbacks.cache_clear()


@pytest.fixture
def font(tmp_path):
    """Writes a font that has a black square for every character of a text."""

    def write(family, text, style="Regular"):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for point in ((0, 1000), (1000, 1000), (1000, 0)):
            pen.lineTo(point)
        pen.closePath()
        square, glyphs = pen.glyph(), [".notdef", *(f"u{ord(each):x}" for each in text)]
        builder = FontBuilder(1000)
        builder.setupGlyphOrder(glyphs)
        builder.setupCharacterMap(dict(zip(map(ord, text), glyphs[1:], strict=True)))
        builder.setupGlyf(dict.fromkeys(glyphs, square))
        builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
        builder.setupHorizontalHeader(ascent=1000, descent=0)
        builder.setupNameTable({"familyName": family, "styleName": style})
        builder.setupOS2(usWeightClass=WEIGHTS[style])
        builder.setupPost()
        path = tmp_path / f"{family}-{style}.ttf".replace(" ", "")
        builder.save(path)
        return path

    return write


@pytest.fixture
def silent(capfd, caplog):
    """Fails if anything is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert capfd.readouterr() == ("", "") and not caplog.records


def families(text):
    return [font.family for font in fonts.fonts_for(text)]


def confusion(names):
    png = plots.confusion(np.eye(len(names), dtype=np.int64), names)
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)


def has_square(picture, side):
    """Whether a black square of so many pixels is in a picture."""
    return bool(cv2.erode(np.uint8(picture < 40), np.ones([side, side])).any())


def test_a_font_that_has_a_character_is_found(only, font):
    cats, both = font("Cats", "\u732b"), font("Both", "\u72ac\u732b")
    assert families("caf\u00e9 $1\n\t") == ["DejaVu Sans"]
    assert families("\u732b") == ["DejaVu Sans"]  # nothing is installed
    only(cats)
    assert families("a \u732b\u72ac") == ["DejaVu Sans", "Cats"]
    only(cats, both)
    assert families("\u732b\u72ac") == ["DejaVu Sans", "Both"]  # the fewest
    assert families("\u732b") == ["DejaVu Sans", "Both"]  # by name
    assert families("\ue000") == ["DejaVu Sans"]


def test_several_fonts_are_taken_where_none_has_all(only, font):
    only(font("Cats", "\u732b"), font("Dogs", "\u72ac\u72d0"))
    assert families("\u72ac\u732b\u72d0") == ["DejaVu Sans", "Dogs", "Cats"]
    parts = [(part, font.family) for part, font in fonts.runs("1: \u72ac\u72d0, \u732b\ue000")]
    assert parts == [
        ("1: ", "DejaVu Sans"),
        ("\u72ac\u72d0", "Dogs"),
        (", ", "DejaVu Sans"),
        ("\u732b", "Cats"),
        ("\ue000", "DejaVu Sans"),
    ]


def test_of_a_family_the_regular_font_is_taken(only, font):
    bold, regular = font("Cats", "\u732b", "Bold"), font("Cats", "\u732b")
    only(bold, regular)
    assert [found.path for found in fonts.fonts_for("\u732b")[1:]] == [str(regular)]


def test_a_file_that_is_no_font_is_passed_over(only, font, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    only(tmp_path / "broken.ttf", tmp_path / "gone.ttf", font("Cats", "\u732b"))
    assert families("\u732b") == ["DejaVu Sans", "Cats"]


def test_plots_draw_with_the_font_that_has_it(only, font, silent):
    assert not has_square(confusion(["a", "\u732b"]), 8)
    only(font("Cats", "\u732b", "Medium"))  # matplotlib remarks that it is not a regular one
    assert has_square(confusion(["a", "\u732b"]), 15)  # 8 points are 16.7 pixels


def test_a_batch_is_drawn_with_the_font_that_has_it(only, font, silent, tmp_path):
    image = np.full([40, 40, 3], 255, np.uint8)

    def title():
        row = batch.Row("0: \u732b", "x.jpg", image, (0, 0, 40, 40), image)
        batch.draw([row], tmp_path / "batch.png")
        return cv2.imread(str(tmp_path / "batch.png"), cv2.IMREAD_GRAYSCALE)[:18]

    assert not has_square(title(), 5)
    only(font("Cats", "\u732b"))
    assert has_square(title(), 9)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_drawn_in_silence(name, silent, tmp_path):
    assert confusion(["a", name]).std() > 10
    assert plots.epochs({"loss": {name: [[(1, 1.0), (2, 0.5)]]}})[:4] == b"\x89PNG"
    image = np.zeros([40, 40, 3], np.uint8)
    rows = [batch.Row(f"0: {name}", f"{name * 20}.jpg", image, (0, 0, 40, 40), image)]
    batch.draw(rows, tmp_path / "batch.png")
    assert cv2.imread(str(tmp_path / "batch.png")).std() > 10


def test_a_name_is_no_formula():
    """Its dollars and backslashes are seen: a formula would have neither."""

    def width(name):
        text = panel.text(0, 0, name, fontsize=10)
        return text.get_window_extent(figure.canvas.get_renderer()).width

    figure, panel = plots.pyplot.subplots()
    assert width("$x$") == pytest.approx(width("x") + 2 * width("$"), abs=3)
    assert width("$\\alpha$") > width("alpha")
    plots.pyplot.close(figure)


def test_a_line_break_is_a_blank_in_a_picture():
    np.testing.assert_array_equal(confusion(["a", "two\nlines"]), confusion(["a", "two lines"]))
    broken, whole = ({"x": {name: [[(1, 1.0)]]}} for name in ("two\nlines", "two lines"))
    assert plots.epochs(broken) == plots.epochs(whole)


@pytest.mark.parametrize("count", [2, 4, 10, 40])
def test_nothing_is_cut_off_at_the_edge(count):
    drawn = confusion([f"class number {label}" for label in range(count)])
    edges = [drawn[:3], drawn[-3:], drawn[:, :3], drawn[:, -3:]]
    assert all(edge.min() == 255 for edge in edges)
