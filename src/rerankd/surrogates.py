"""Lone surrogates: halves of characters that Python strings can hold and UTF-8 cannot. Standard library only.

They come from PDF readers, file names and truncated JSON escapes. They are replaced, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_PLACES = 5
"""The most texts that a warning names."""


def without_surrogates(text: str) -> str:
    """Joins adjacent halves of a character and replaces every other half by U+FFFD."""
    if is_whole(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_whole(text: str) -> bool:
    """Whether UTF-8 can encode the text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def surrogate_warnings(query: str, instruct: str | None, documents: Iterable[str]) -> tuple[str, ...]:
    """One sentence that names the texts of a call with lone surrogates; none if there are none."""
    texts = [("the query", query), ("the instruct", instruct or "")]
    texts += [(f"document {index}", document) for index, document in enumerate(documents)]
    places = [name for name, text in texts if not is_whole(text)]
    if not places:
        return ()
    others = f" and {len(places) - MAX_PLACES} more" if len(places) > MAX_PLACES else ""
    return (f"lone surrogates were replaced by U+FFFD in {', '.join(places[:MAX_PLACES])}{others}",)
