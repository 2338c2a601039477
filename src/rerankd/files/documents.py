"""PDF and Office files → the lines of their text, through kreuzberg. The only file that knows it.

kreuzberg 4 (MIT, https://docs.kreuzberg.dev) is one wheel without dependencies. It reads the file and nothing else: no
picture is recognised, no network is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rerankd.errors import MissingExtra
from rerankd.files.text import NotText

SUFFIXES = {
    *(".pdf", ".docx", ".docm", ".pptx", ".pptm", ".xlsx", ".xlsm", ".odt", ".ods", ".odp", ".epub"),
    *(".doc", ".ppt", ".xls", ".rtf"),
}
PAGED = {".pdf", ".pptx", ".pptm", ".ppt", ".odp"}
MAX_BYTES = 50_000_000
"""The largest file that is read; it has fonts and pictures beside its text."""

HEADING, PAGE_END = "#", "\f"


def lines_of(path: Path) -> Iterator[tuple[int, str, int]]:
    """Number, text, and level of a heading or 0. The number is the page's, where the file has pages, else the line's.

    Raises:
        NotText: the file is broken, encrypted or without text.
        MissingExtra: kreuzberg is not installed.
    """
    library = _library()
    pages = library.PageConfig(extract_pages=True) if path.suffix.lower() in PAGED else None
    config = library.ExtractionConfig(output_format="markdown", pages=pages, use_cache=False)
    try:
        result = library.extract_file_sync(str(path), config=config)
    except Exception as error:  # its own tree of errors, and those of its readers
        raise NotText(f"{path} cannot be converted: {error}") from None
    if not result.content.strip():
        raise NotText(f"{path} has no text, such as a scan.")
    if result.pages:
        for page in result.pages:
            yield from (_line(page["page_number"], line) for line in [*page["content"].split("\n"), PAGE_END])
    else:
        yield from (_line(number, line) for number, line in enumerate(result.content.split("\n"), 1))


def _line(number: int, line: str) -> tuple[int, str, int]:
    marks = len(line) - len(line.lstrip(HEADING))
    return number, line, marks if marks <= 6 and line[marks : marks + 1] == " " else 0


def _library() -> Any:
    try:
        import kreuzberg
    except ImportError as error:
        raise MissingExtra("Reading PDF and Office files", error, "convert them to text", "documents") from None
    return kreuzberg
