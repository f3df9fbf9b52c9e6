"""kinds: what is refused is refused by its name, and videos are told from images."""

import gzip
import io
import tarfile
import zipfile

import corpus
import pytest

from data.images import decode, kinds
from data.images.decode import BadImage


def brands(major, *others):
    """The beginning of an ISO base media file."""
    content = b"".join((b"ftyp", major, bytes(4), *others))
    return (4 + len(content)).to_bytes(4) + content + bytes(300)


def archive(mode):
    file = io.BytesIO()
    if mode == "zip":
        with zipfile.ZipFile(file, "w") as packed:
            packed.writestr("a.txt", "text")
    else:
        with tarfile.open(fileobj=file, mode="w") as packed:
            packed.addfile(tarfile.TarInfo("a.txt"))
    return file.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
NAMED = {  # what the reason begins with
    "a PDF document": [b"%PDF-1.7\n", b"\n%PDF-1.4\n"],
    "a HEIC image": [
        brands(b"heic", b"mif1"),
        brands(b"heis"),
        brands(b"hevc", b"msf1"),
        brands(b"mif1", b"heic"),
        brands(b"msf1"),
    ],
    "an AVIF image": [brands(b"avif"), brands(b"avis", b"msf1"), brands(b"mif1", b"avif")],
    "an MP4 video": [brands(b"isom", b"mp41"), brands(b"mp42"), brands(b"3gp5"), brands(b"M4V ")],
    "a QuickTime video": [brands(b"qt  "), b"\0\0\0\x08wide" + bytes(99)],
    "an AVI video": [b"RIFF\0\0\0\0AVI LIST"],
    "a Matroska or WebM video": [b"\x1aE\xdf\xa3"],
    "an ASF (WMV) video": [b"0&\xb2u\x8ef\xcf\x11"],
    "an MPEG video": [b"\0\0\1\xba!", b"\0\0\1\xb3!"],
    "an MPEG transport stream": [(b"G" + bytes(187)) * 3, (bytes(4) + b"G" + bytes(187)) * 3],
    "a Flash video": [b"FLV\1"],
    "an Ogg video or audio file": [b"OggS"],
    "a camera's raw file": [
        brands(b"crx "),
        b"II*\0\x10\0\0\0CR\2\0",
        b"FUJIFILMCCD-RAW",
        b"IIU\0",
        b"IIRO",
    ],
    "an SVG drawing": [
        SVG,
        b"\xef\xbb\xbf  " + SVG,
        b'<?xml version="1.0"?>\n<!-- drawn -->\n' + SVG,
        b"<!DOCTYPE svg>" + SVG,
    ],
    "an HTML page": [b"<!DOCTYPE html><title>404</title>", b"\n<HTML>", b"<?xml?><html/>"],
    "an XML document": [b'<?xml version="1.0"?><a/>'],
    "a PostScript document": [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6"],
    "a Photoshop document": [b"8BPS\0\1"],
    "a GIMP document": [b"gimp xcf v011"],
    "a Windows icon or cursor": [corpus.saved(corpus.picture(), "ICO"), b"\0\0\2\0\1\0"],
    "a JPEG XL image": [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"],
    "a JPEG 2000 image": [b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"],
    "a PNM image": [corpus.saved(corpus.picture(), "PPM")],
    "a DICOM image": [bytes(128) + b"DICM"],
    "an AutoCAD drawing": [b"AC1032"],
    "a ZIP archive or an Office document": [archive("zip")],
    "a gzip archive": [gzip.compress(b"text")],
    "a tar archive": [archive("tar")],
    "a RAR archive": [b"Rar!\x1a\x07\0"],
    "an HDF5 file": [b"\x89HDF\r\n\x1a\n"],
    "a Git LFS pointer without its file": [b"version https://git-lfs.github.com/spec/v1\n"],
    "what macOS keeps beside a file (AppleDouble)": [b"\0\5\x16\7" + bytes(99)],
    "an empty file": [b""],
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_refused_is_refused_by_its_name(name):
    for data in NAMED[name]:
        with pytest.raises(BadImage) as error:
            decode.decode(data)
        assert str(error.value).startswith(name)
        assert "not an image" not in str(error.value) and "\n" not in str(error.value)


ACCEPTED = {"JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF", "AVIF", "HEIC"}


def test_a_refusal_says_what_is_expected():
    with pytest.raises(BadImage) as error:
        decode.decode(b"%PDF-1.7")
    _, expected = str(error.value).split(", expected ")
    assert set(expected.replace(" or ", ", ").split(", ")) == ACCEPTED


UNKNOWN = {
    "text": b"remember to buy milk\n" * 20,
    "text like an atom": b"the free lunch",
    "text like a bitmap": b"BMW and other makers of cars and motorcycles",
    "text of a PDF": b"see %PDF-1.7",
    "zeros": bytes(500),
    "JSON": b'{"a": 1}',
    "cut within its brand": b"\0\0\0\x18ftypav",
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_only_what_is_of_no_known_kind_is_not_an_image(case):
    assert kinds.detect(UNKNOWN[case]) is None
    with pytest.raises(BadImage, match="^not an image of a known format"):
        decode.decode(UNKNOWN[case])


@pytest.mark.parametrize("format", corpus.FORMATS)
def test_a_damaged_file_of_an_accepted_format_is_named(format):
    data = corpus.saved(corpus.picture(), format)
    kind = kinds.detect(data)
    assert kind.format == format and not kind.is_video
    said = {"WEBP": "WebP", "HEIF": "HEIC"}.get(format, format)
    for end in (len(data) // 20 + 16, len(data) // 2, len(data) * 19 // 20):
        with pytest.raises(BadImage) as error:
            decode.decode(data[:end])
        assert said in str(error.value) and "expected" not in str(error.value)


VIDEOS = [name for name in NAMED if name.endswith((" video", "audio file", "stream"))]
VIDEOS += ["an ASF (WMV) video"]


@pytest.mark.parametrize("name", NAMED)
def test_videos_are_told_from_all_others(name):
    found = {kind is not None and kind.is_video for kind in map(kinds.detect, NAMED[name])}
    assert found == {name in VIDEOS}


def test_a_raw_file_of_tiff_is_told_by_its_directory():
    whole = corpus.tiff([[1, 2], [3, 4]], bits=8)
    assert decode.decode(whole).shape == (2, 2, 3)
    preview = corpus.tiff([[1, 2], [3, 4]], bits=8, more={254: [1], 330: [8]})
    negative = corpus.tiff([[1, 2], [3, 4]], bits=8, more={50706: [1]})
    for data in (preview, negative):
        with pytest.raises(BadImage, match="^a camera's raw file, expected JPEG"):
            decode.decode(data)
