"""Documents with markup: their text, without the markup."""

import html
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from moreish.data.text.decode import NotTextError
from moreish.errors import MoreishError, one_line
from moreish.utils.extras import import_extra

WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
"""The namespace of Word documents."""

TIMING = re.compile(r"^.*-->.*$")
"""The line above a subtitle that says when it is shown."""

SUBTITLE_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|\{\\[^{}]*\}")

BLOCK_TAGS = [
    "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption",
    "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p",
    "pre", "section", "table", "tr", "ul",
]  # fmt: skip

SKIPPED_TAGS = ["head", "math", "noscript", "script", "style", "svg", "template"]

NO_TEXT = "leave it out"

SIGNATURES = (
    (b"%PDF-", "a PDF document", "rename it to end with .pdf", ".pdf"),
    (b"{\\rtf", "an RTF document", "save it as plain text", ""),
    (b"\xd0\xcf\x11\xe0", "a document of an old Office format", "save it as plain text", ""),
    (b"\x1f\x8b", "compressed by gzip", "rename it to end with .gz", ".gz"),
    (b"BZh", "compressed by bzip2", "rename it to end with .bz2", ".bz2"),
    (b"\xfd7zXZ", "compressed by xz", "rename it to end with .xz", ".xz"),
    (b"(\xb5/\xfd", "compressed by Zstandard", "rename it to end with .zst", ".zst"),
    (b"PK\x03\x04", "a ZIP archive or an Office document", "unpack it, or save it as text", ""),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it", ""),
    (b"Rar!", "a RAR archive", "unpack it", ""),
    (b"SQLite format 3", "a SQLite database", "export the column to learn as text", ""),
    (b"\x89PNG\r\n", "a PNG image", NO_TEXT, ""),
    (b"\xff\xd8\xff", "a JPEG image", NO_TEXT, ""),
    (b"GIF8.a", "a GIF image", NO_TEXT, ""),
    (b"II*\0", "a TIFF image", NO_TEXT, ""),
    (b"MM\0*", "a TIFF image", NO_TEXT, ""),
    (b"RIFF....WEBP", "a WebP image", NO_TEXT, ""),
    (b"RIFF....WAVE", "a WAV recording", NO_TEXT, ""),
    (b"RIFF....AVI ", "an AVI video", NO_TEXT, ""),
    (b"....ftyp", "an MP4 video or recording", NO_TEXT, ""),
    (b"ID3\3", "an MP3 recording", NO_TEXT, ""),
    (b"ID3\4", "an MP3 recording", NO_TEXT, ""),
    (b"OggS\0", "an Ogg recording", NO_TEXT, ""),
    (b"fLaC\0", "a FLAC recording", NO_TEXT, ""),
    (b"\x7fELF", "a program", NO_TEXT, ""),
    (b"MZ\x90\0", "a program", NO_TEXT, ""),
    (b"PAR1\x15", "a Parquet file", "rename it to end with .parquet", ".parquet"),
)
"""Beginnings of files that are no text (a `.` is any byte): what they are, what to do, and the
suffix with which they are read."""


class UnsupportedFileError(NotTextError):
    """A file is of a known format that is not text."""


def check_is_no_document(path: Path) -> None:
    """Raise UnsupportedFileError if a file is recognized by its beginning as no text."""
    with path.open("rb") as file:
        head = file.read(16)
    for signature, what, advice, suffix in SIGNATURES:
        is_found = re.match(re.escape(signature).replace(rb"\.", b"."), head, re.DOTALL)
        if is_found and path.suffix.lower() != suffix:
            raise UnsupportedFileError(f"{path} is {what}, not text: {advice}", path)


def _read_html(path: Path) -> str:
    return _html_text(path.read_bytes(), str(path))


def _html_text(raw: bytes, where: str) -> str:
    library = import_extra("bs4", "documents", f"{where}: reading HTML")
    soup = library.BeautifulSoup(raw, "html.parser")
    for tag in soup(SKIPPED_TAGS):
        tag.decompose()
    for text in soup.find_all(string=True):
        is_plain = type(text) is library.NavigableString  # and no comment
        if is_plain and text.find_parent("pre") is None:
            text.replace_with(re.sub(r"\s+", " ", text))
    for tag in soup(BLOCK_TAGS):
        tag.insert_before("\n")
        tag.insert_after("\n")
    lines = (" ".join(line.split()) for line in soup.get_text().split("\n"))
    return "\n".join(filter(None, lines)) + "\n"


def _read_docx(path: Path) -> str:
    """Return the paragraphs of a Word document (Office Open XML, ECMA-376, part 1, 17.3)."""
    try:
        with zipfile.ZipFile(path) as archive:
            document = archive.read("word/document.xml")
        body = ElementTree.fromstring(document)  # noqa: S314 (expat bounds the expansion)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, ElementTree.ParseError) as error:
        raise MoreishError(f"{path} is damaged ({one_line(error)})") from None
    marks = {f"{WORD}tab": "\t", f"{WORD}br": "\n", f"{WORD}cr": "\n"}
    paragraphs = [
        "".join(
            (part.text or "") if part.tag == f"{WORD}t" else marks.get(part.tag, "")
            for part in paragraph.iter()
        )
        for paragraph in body.iter(f"{WORD}p")
    ]
    return "\n".join(paragraphs) + "\n"


def _read_pdf(path: Path) -> str:
    library = import_extra("pypdf", "documents", f"{path}: reading PDF")
    try:
        pages = [page.extract_text() for page in library.PdfReader(path).pages]
    except Exception as error:  # a damaged file may raise anything
        raise MoreishError(f"{path} cannot be read ({one_line(error) or 'damaged'})") from None
    text = "\n".join(page.strip("\n") for page in pages) + "\n"
    if not text.strip():
        raise MoreishError(f"{path} contains pictures of text: recognize the text first (OCR)")
    return text


def _read_epub(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return "\n".join(
                _html_text(archive.read(name), f"{path}, {name}") for name in _chapters(archive)
            )
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError) as error:
        raise MoreishError(f"{path} is damaged ({one_line(error)})") from None


def _chapters(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the chapters of an EPUB book in reading order."""
    container = archive.read("META-INF/container.xml").decode("utf-8", "replace")
    package_name = _attribute(container, "rootfile", "full-path")
    package = archive.read(package_name).decode("utf-8", "replace")
    items = {
        _attribute(item, "item", "id"): html.unescape(_attribute(item, "item", "href"))
        for item in re.findall(r"<(?:\w+:)?item\s[^>]*>", package)
    }
    folder = package_name.rpartition("/")[0]
    order = re.findall(r"<(?:\w+:)?itemref\s[^>]*idref=[\"']([^\"']*)", package)
    return [f"{folder}/{items[name]}".lstrip("/") for name in order]


def _attribute(text: str, tag: str, name: str) -> str:
    found = re.search(rf"<(?:\w+:)?{tag}\s[^>]*?\b{name}=[\"']([^\"']*)", text)
    if found is None:
        raise ValueError(f"no {name} of {tag}")
    return found[1]


def _read_subtitles(path: Path) -> str:
    """Return the lines of subtitles (SubRip or WebVTT), without numbers, times and tags."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    shown: list[str] = []
    in_cue = False
    for line in lines:
        if TIMING.match(line):
            in_cue = True
        elif not line.strip():
            in_cue = False
        elif in_cue and (spoken := SUBTITLE_TAG.sub("", line).strip()):
            shown.append(spoken)
    if not shown:
        raise MoreishError(
            f"{path} has no subtitles: no line with two times and an arrow between them"
        )
    return "\n".join(shown) + "\n"


DOCUMENT_READERS: dict[str, Callable[[Path], str]] = {
    ".htm": _read_html, ".html": _read_html, ".xhtml": _read_html, ".docx": _read_docx,
    ".pdf": _read_pdf, ".epub": _read_epub, ".srt": _read_subtitles, ".vtt": _read_subtitles,
}  # fmt: skip
