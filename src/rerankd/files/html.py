"""HTML → the lines that a reader sees, with the numbers of the source's lines. Knows no files.

Left out are scripts, styles and the landmarks that repeat on every page: navigation and footer
(https://www.w3.org/TR/wai-aria-1.2/#landmark_roles). Browsers decide more; a text to be found needs no more.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

HIDDEN = {"script", "style", "template", "svg", "nav", "footer", "select", "button", "noscript"}
REPEATED = {"navigation", "search", "contentinfo"}
BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "br", "dd", "details", "div", "dl", "dt", "fieldset"),
    *("figcaption", "figure", "form", "header", "hr", "li", "main", "ol", "p", "pre", "section", "summary", "table"),
    *("title", "tr", "ul"),
}
SPACED = {"td", "th"}
HEADINGS = {f"h{level}": level for level in range(1, 7)}
TIGHT = {"br", "dd", "dt", "li", "summary", "tr"}
"""Blocks without an empty line around them."""

ANCHORS = {"¶", "#", "§", "🔗"}
"""The text of a link to the place where it stands."""

NumberedLine = tuple[int, str, int, int]
"""Number in the source, text, level of a heading or 0, and how many letters are in links."""


def lines_of(text: str) -> list[NumberedLine]:
    """The visible lines; an empty one between blocks. Of any text: a mistake in HTML is not an error."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    reader.end_block()
    return reader.lines


def letters_in(text: str) -> int:
    """The number of letters and digits."""
    return sum(map(str.isalnum, text))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[NumberedLine] = []
        self._line, self._number, self._level, self._linked = "", 1, 0, 0
        self._hidden, self._depth, self._pre, self._links = "", 0, 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden:
            self._depth += tag == self._hidden
            return
        if tag in HIDDEN or dict(attrs).get("role") in REPEATED:
            self._hidden, self._depth = tag, 1
        elif tag == "a":
            self._links = 1
        elif tag in SPACED:
            self._line += " "
        elif tag in BLOCKS or tag in HEADINGS:
            self._end_line() if tag in TIGHT else self.end_block()
            self._level = HEADINGS.get(tag, 0)
            self._pre += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._hidden and tag in BLOCKS:
            self.end_block()

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            self._depth -= tag == self._hidden
            self._hidden = self._hidden if self._depth else ""
        elif tag == "a":
            self._links = 0
        elif tag in BLOCKS or tag in HEADINGS:
            self._end_line() if tag in TIGHT else self.end_block()
            self._level = 0
            self._pre -= tag == "pre" and self._pre > 0

    def handle_data(self, data: str) -> None:
        if self._hidden or (self._links and data.strip() in ANCHORS):
            return
        first = self.getpos()[0]
        for place, piece in enumerate(data.split("\n")):
            if place:
                self._end_line()
            if not self._line:
                self._number = first + place
            self._line += piece if self._pre else re.sub(r"\s+", " ", piece)
            self._linked += letters_in(piece) * self._links

    def end_block(self) -> None:
        """Ends the line, and begins a paragraph."""
        self._end_line()
        if self.lines and self.lines[-1][1]:
            self.lines.append((self.lines[-1][0], "", 0, 0))

    def _end_line(self) -> None:
        text = self._line.rstrip() if self._pre else self._line.strip()
        if text:
            self.lines.append((self._number, text, self._level, self._linked))
        self._line, self._linked = "", 0
