"""Documents as objects: which of their text is scored, and what of them is returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from rerankd.errors import InvalidRequest
from rerankd.server.wire.dialect import JSON


class EchoedDocument(BaseModel):
    """With all keys of a document that was sent as an object."""

    model_config = ConfigDict(extra="allow")

    text: str


ObjectDocument = str | dict[str, Any]
"""A text; an object with the key `text`; one with `content`, vLLM's list of parts; or one with the rank fields."""


def texts_of(documents: Sequence[ObjectDocument], path: str, rank_fields: Sequence[str] | None = None) -> list[str]:
    """The text of each document.

    Args:
        path: of the list in the body, for messages.
        rank_fields: the keys whose values are scored, one a line as `key: value`, as Cohere's v1 does; `text` alone
            is scored as it is.

    Raises:
        InvalidRequest: an object has none of them, or they are not texts.
    """
    return [text_of(document, f"{path}.{index}", rank_fields) for index, document in enumerate(documents)]


def echo(document: ObjectDocument, text: str) -> JSON:
    """A document as a reply shows it: an object with `text`, a string, and all that was sent beside it."""
    if isinstance(document, str):
        return {"text": text}
    return document if isinstance(document.get("text"), str) else {**document, "text": text}


def text_of(document: ObjectDocument, path: str, rank_fields: Sequence[str] | None = None) -> str:
    """The text of one document, or of a query that may be an object, too."""
    if isinstance(document, str):
        return document
    if rank_fields and list(rank_fields) != ["text"]:
        return "\n".join(f"{name}: {document[name]}" for name in rank_fields if name in document) or _refuse(
            path, f"the document has none of the rank_fields ({', '.join(rank_fields)})"
        )
    text = document.get("text", document.get("content"))
    if isinstance(text, list):
        text = _parts(text, path)
    return text if isinstance(text, str) else _refuse(path, "a document object needs the key 'text', a string")


def _parts(parts: list[Any], path: str) -> str:
    """vLLM's content: text parts only, this model sees no images."""
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            _refuse(path, "only parts of the type 'text' can be scored")
        texts.append(part["text"])
    return "\n".join(texts)


def _refuse(path: str, problem: str) -> str:
    raise InvalidRequest(f"{path}: {problem}.", ((path, problem),))
