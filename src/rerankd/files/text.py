"""Reads bytes and decodes them to text, or reports what kind of file they are. Knows no records."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from pathlib import Path
from typing import IO

from rerankd.errors import InvalidRequest

MAX_UNPACKED = 2_000_000_000
"""Bytes that a compressed file may unpack to."""

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

PROBED = 8192
"""Bytes at the beginning that are searched for NUL."""

GZIP = b"\x1f\x8b\x08"

UNPACK = "unpack it first"
EXPORT = "export it as text or CSV first"

# First bytes of a file, what it is, and how to extract its text.
SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF-", "a PDF", "pdftotext FILE - | rerankd rank QUERY -"),
    (b"PK\x03\x04", "a ZIP archive", UNPACK),
    (b"PK\x05\x06", "an empty ZIP archive", UNPACK),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", EXPORT),
    (b"{\\rtf", "an RTF document", EXPORT),
    (b"BZh", "compressed with bzip2", "bzcat FILE | rerankd rank QUERY -"),
    (b"\xfd7zXZ\x00", "compressed with xz", "xzcat FILE | rerankd rank QUERY -"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstdcat FILE | rerankd rank QUERY -"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (b"PAR1", "a Parquet file", "write it as JSONL first"),
    (b"ARROW1", "an Arrow file", "write it as JSONL first"),
    (
        b"SQLite format 3\x00",
        "an SQLite database",
        "sqlite3 FILE -csv -header 'SELECT …' | rerankd rank QUERY --format csv",
    ),
    (b"\x89PNG", "a PNG image", ""),
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"GIF8", "a GIF image", ""),
    (b"\x7fELF", "a program", ""),
)
OFFICE_MARKS = (b"[Content_Types].xml", b"mimetypeapplication/vnd.", b"word/", b"xl/", b"ppt/")
TAR_AT, TAR = 257, b"ustar"


class NotText(InvalidRequest):
    """A file or stdin that is not text; the message says what it is, and how to convert it if possible."""


def text_of(source: str, raw: bytes) -> str:
    """Decodes UTF-8, or the encoding of a byte order mark; unpacks gzip.

    Raises:
        NotText: it is neither.
    """
    if raw.startswith(GZIP):
        raw = _unpacked(source, raw)
    for mark, encoding in BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return _decoded(source, raw[len(mark) :], encoding)
    if kind := _kind(raw):
        raise NotText(f"{source} is {kind.replace('FILE', 'FILE' if source == 'stdin' else source)}.")
    if b"\0" in raw[:PROBED]:
        raise NotText(f"{source} is not text in UTF-8: it holds NUL bytes.")
    return _decoded(source, raw, "utf-8")


def bytes_of(path: Path) -> bytes:
    """Raises InvalidRequest: the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a NUL in the name
        raise InvalidRequest(f"{str(path)!r} is not a file name: {error}.") from error


def _kind(raw: bytes) -> str | None:
    """The kind of file that the bytes are, with a way to convert it; None if unknown."""
    start = raw[:PROBED].lstrip()
    if start.startswith(b"PK\x03\x04") and any(mark in start for mark in OFFICE_MARKS):
        return f"an Office document, not text: {EXPORT}"
    for signature, kind, hint in SIGNATURES:
        if start.startswith(signature):
            return f"{kind}, not text" + (f": {hint}" if hint else "")
    return f"a tar archive, not text: {UNPACK}" if raw[TAR_AT : TAR_AT + len(TAR)] == TAR else None


def _decoded(source: str, raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        shown = {"utf-8": "UTF-8"}.get(encoding, encoding.upper())
        hint = f"; iconv -f latin1 -t utf-8 {'FILE' if source == 'stdin' else source} converts Latin-1"
        raise NotText(
            f"{source} is not text in {shown}: byte {error.start:,} is 0x{raw[error.start]:02x}"
            f"{hint if encoding == 'utf-8' else ''}."
        ) from None


def _unpacked(source: str, raw: bytes) -> bytes:
    packed: IO[bytes] = io.BytesIO(raw)
    try:
        with gzip.GzipFile(fileobj=packed) as file:
            text = file.read(MAX_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise NotText(f"{source} is a broken gzip file: {error}.") from None
    if len(text) > MAX_UNPACKED:
        raise NotText(f"{source} unpacks to more than {MAX_UNPACKED / 1e9:.0f} GB.")
    return text
