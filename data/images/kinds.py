"""Kinds of files by their first bytes: one table for images, videos and others.

Source of most signatures: the formats' own specifications, as in the `file` command.
"""

import re
from dataclasses import dataclass

HEAD = 1024  # first bytes of a file that `detect` reads


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: Name with its article: "a PDF document".
        format: Pillow's name of an accepted image format; None for other files.
        is_video: Whether FFmpeg may open it.
    """

    name: str
    format: str | None = None
    is_video: bool = False


def _image(name: str) -> Kind:
    return Kind(name, name.split()[1])


def _video(name: str) -> Kind:
    return Kind(name, is_video=True)


_AVIF = _image("an AVIF image")
_HEIF = Kind("a HEIC image", "HEIF")
_TIFF = _image("a TIFF image")
_GIF = _image("a GIF image")
_MP4 = _video("an MP4 video")
_QUICKTIME = _video("a QuickTime video")
_RAW = Kind("a camera's raw file")
_HTML = Kind("an HTML page")
_ZIP = Kind("a ZIP archive or an Office document")
_MP3 = Kind("an MP3 audio file")

_BEGINNINGS = {  # where one begins with another, the longer one comes first
    b"\xff\xd8\xff": _image("a JPEG image"),
    b"\x89PNG\r\n\x1a\n": _image("a PNG image"),
    b"GIF87a": _GIF,
    b"GIF89a": _GIF,
    b"II*\0\x10\0\0\0CR": _RAW,  # Canon's CR2
    b"II*\0": _TIFF,
    b"MM\0*": _TIFF,
    b"II+\0": _TIFF,
    b"MM\0+": _TIFF,
    b"FUJIFILMCCD-RAW": _RAW,
    b"IIRO": _RAW,  # Olympus
    b"IIRS": _RAW,
    b"MMOR": _RAW,
    b"IIU\0": _RAW,  # Panasonic
    b"FOVb": _RAW,  # Sigma
    b"\0MRM": _RAW,  # Minolta
    b"8BPS": Kind("a Photoshop document"),
    b"gimp xcf": Kind("a GIMP document"),
    b"\xff\x0a": Kind("a JPEG XL image"),
    b"\0\0\0\x0cJXL \r\n\x87\n": Kind("a JPEG XL image"),
    b"\xff\x4f\xff\x51": Kind("a JPEG 2000 image"),
    b"\0\0\0\x0cjP  \r\n\x87\n": Kind("a JPEG 2000 image"),
    b"II\xbc\x01": Kind("a JPEG XR image"),
    b"v/1\x01": Kind("an OpenEXR image"),
    b"#?RADIANCE": Kind("a Radiance image"),
    b"#?RGBE": Kind("a Radiance image"),
    b"DDS ": Kind("a DirectDraw surface"),
    b"qoif": Kind("a QOI image"),
    b"SIMPLE  =": Kind("a FITS image"),
    b"icns": Kind("an Apple icon"),
    b"%!PS": Kind("a PostScript document"),
    b"\xc5\xd0\xd3\xc6": Kind("a PostScript document"),
    b"{\\rtf": Kind("an RTF document"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": Kind("an old Office document or Thumbs.db"),
    b"PK\x03\x04": _ZIP,
    b"PK\x05\x06": _ZIP,
    b"\x1f\x8b": Kind("a gzip archive"),
    b"BZh": Kind("a bzip2 archive"),
    b"\xfd7zXZ\0": Kind("an xz archive"),
    b"\x28\xb5\x2f\xfd": Kind("a Zstandard archive"),
    b"7z\xbc\xaf\x27\x1c": Kind("a 7-Zip archive"),
    b"Rar!\x1a\x07": Kind("a RAR archive"),
    b"SQLite format 3\0": Kind("an SQLite database"),
    b"\x89HDF\r\n\x1a\n": Kind("an HDF5 file"),
    b"\x93NUMPY": Kind("a NumPy array"),
    b"PAR1": Kind("a Parquet table"),
    b"\x7fELF": Kind("a Linux program"),
    b"\0\5\x16\7": Kind("what macOS keeps beside a file (AppleDouble)"),
    b"version https://git-lfs": Kind("a Git LFS pointer without its file"),
    b"ID3": _MP3,
    b"fLaC": Kind("a FLAC audio file"),
    b"\x1aE\xdf\xa3": _video("a Matroska or WebM video"),
    b"0&\xb2u\x8ef\xcf\x11": _video("an ASF (WMV) video"),
    b"\0\0\1\xba": _video("an MPEG video"),
    b"\0\0\1\xb3": _video("an MPEG video"),
    b"FLV\1": _video("a Flash video"),
    b"OggS": _video("an Ogg video or audio file"),
}
_RIFF = {
    b"WEBP": Kind("a WebP image", "WEBP"),
    b"AVI ": _video("an AVI video"),
    b"WAVE": Kind("a WAV audio file"),
}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_HEIF_BRANDS |= {b"mif1", b"mif2", b"msf1", b"miaf", b"heif"}  # with any codec
_BRANDS = {  # the other major brands of ISO base media files that are no MP4 video
    b"qt  ": _QUICKTIME,
    b"crx ": _RAW,  # Canon's CR3
    b"M4A ": Kind("an MPEG-4 audio file"),
    b"M4B ": Kind("an MPEG-4 audio file"),
}
_QUICKTIME_ATOMS = {b"moov", b"mdat", b"wide", b"pnot"}  # first atoms of old files
_PATTERNS = (  # matched at the first byte if no beginning above fits
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", _image("a BMP image")),
    (rb"\0\0[\1\2]\0[^\0]\0", Kind("a Windows icon or cursor")),
    (rb"P[1-7]\s", Kind("a PNM image")),
    (rb"AC10\d\d", Kind("an AutoCAD drawing")),
    (rb".{128}DICM", Kind("a DICOM image")),
    (rb".{257}ustar", Kind("a tar archive")),
    (rb"G.{187}G.{187}G", _video("an MPEG transport stream")),
    (rb".{4}G.{191}G.{191}G", _video("an MPEG transport stream")),  # from camcorders
    (rb"\s*%PDF-", Kind("a PDF document")),
    (rb"\s*(<!doctype\s+html|<html)", _HTML),
    (rb"\s*<(\?xml|!--|!doctype\s+svg|svg\b).*?<svg\b|\s*<svg\b", Kind("an SVG drawing")),
    (rb"\s*<\?xml.*?<html\b", _HTML),
    (rb"\s*<\?xml", Kind("an XML document")),
    (rb"\xff[\xf2\xf3\xfa\xfb]", _MP3),
)
_COMPILED = [(re.compile(text, re.DOTALL | re.IGNORECASE), kind) for text, kind in _PATTERNS]
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def detect(data: bytes) -> Kind | None:
    """Returns the kind of a file; None if it is unknown, as for plain text.

    Args:
        data: The file, or its first `HEAD` bytes.
    """
    head = data[:HEAD].removeprefix(_BYTE_ORDER_MARK)
    if head[4:8] == b"ftyp":
        return _detect_brand(head)
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[:1] == b"\0" and head[4:8] in _QUICKTIME_ATOMS:
        return _QUICKTIME
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    return next((kind for pattern, kind in _COMPILED if pattern.match(head)), None)


def _detect_brand(head: bytes) -> Kind | None:
    """Returns the kind of an ISO base media file, by its major and compatible brands."""
    major, size = head[8:12], int.from_bytes(head[:4])
    if len(major) < 4:
        return None
    others = {head[offset : offset + 4] for offset in range(16, min(size, len(head)), 4)}
    if major in _AVIF_BRANDS or (major in _HEIF_BRANDS and others & _AVIF_BRANDS):
        return _AVIF
    if major in _HEIF_BRANDS:
        return _HEIF
    return _BRANDS.get(major, _MP4)
