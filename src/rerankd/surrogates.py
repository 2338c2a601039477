"""Lone surrogates: halves of characters, which Python strings can hold and no UTF-8 can. Standard library only.

They come from PDF readers, from file names and from cut JSON escapes. A text is ranked without them, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_PLACES = 5
"""A warning names so many texts."""


def without_surrogates(text: str) -> str:
    """The text with two halves that follow each other joined, and each other half replaced by U+FFFD."""
    if is_whole(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_whole(text: str) -> bool:
    """Whether the text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def surrogate_warnings(query: str, instruct: str | None, documents: Iterable[str]) -> tuple[str, ...]:
    """One sentence that names the texts of a call in which something is replaced; none where all are whole."""
    texts = [("the query", query), ("the instruct", instruct or "")]
    texts += [(f"document {index}", document) for index, document in enumerate(documents)]
    places = [name for name, text in texts if not is_whole(text)]
    if not places:
        return ()
    others = f" and {len(places) - MAX_PLACES} more" if len(places) > MAX_PLACES else ""
    return (f"lone surrogates were replaced by U+FFFD in {', '.join(places[:MAX_PLACES])}{others}",)
