"""Documents as objects: which of their text is scored, and what of them is returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

from rerankd.apis.base import JSON
from rerankd.errors import InvalidRequest


class EchoedDocument(BaseModel):
    """With all keys of a document that was sent as an object."""

    model_config = ConfigDict(extra="allow")

    text: str


MAX_NAMES = 8
MAX_NAME_CHARS = 100
"""Of the caller's fields in a message."""

ObjectDocument = str | dict[str, Any]
"""A text; an object with the key `text`; one with `content`, vLLM's list of parts; or one with the rank fields."""


def texts_of(
    documents: Sequence[ObjectDocument], path: str, rank_fields: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The text of each document.

    Args:
        path: of the list in the body, for messages.
        rank_fields: the keys whose values are scored, one a line as `key: value`, as Cohere's v1 does; `text` alone
            is scored as it is.

    Raises:
        InvalidRequest: an object has none of them, or they are not texts.
    """
    names = list(dict.fromkeys(rank_fields or ()))  # named twice, a text would be scored twice
    return tuple(text_of(document, f"{path}.{index}", names) for index, document in enumerate(documents))


def echo(document: ObjectDocument, text: str | None) -> JSON:
    """A document as a reply shows it: an object with `text`, a string, and all that was sent beside it."""
    if isinstance(document, str):
        return {"text": text}
    return document if isinstance(document.get("text"), str) else {**document, "text": text}


def text_of(document: ObjectDocument, path: str, rank_fields: Sequence[str] | None = None) -> str:
    """The text of one document, or of a query that may be an object, too."""
    if isinstance(document, str):
        return document
    if rank_fields and list(rank_fields) != ["text"]:
        return _ranked_text(document, path, rank_fields)
    text = document.get("text", document.get("content"))
    if isinstance(text, list):
        text = _parts(text, path)
    return text if isinstance(text, str) else _refuse(path, "a document object needs the key 'text', a string")


def _ranked_text(document: dict[str, Any], path: str, rank_fields: Sequence[str]) -> str:
    try:
        lines = [f"{name}: {document[name]}" for name in rank_fields if name in document]
    except RecursionError:
        _refuse(path, "a value is nested too deeply to be scored")
    names = ", ".join(name[:MAX_NAME_CHARS] for name in rank_fields[:MAX_NAMES])
    return "\n".join(lines) or _refuse(path, f"the document has none of the rank_fields ({names})")


def _parts(parts: list[Any], path: str) -> str:
    """vLLM's content: text parts only, this model sees no images."""
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            _refuse(path, "only parts of the type 'text' can be scored")
        texts.append(part["text"])
    return "\n".join(texts)


def _refuse(path: str, problem: str) -> NoReturn:
    raise InvalidRequest(f"{path}: {problem}.", ((path, problem),))
