"""Checks the arguments of a call, for `Reranker`, `Client` and `AsyncClient` alike. Standard library only.

Data frames and vector stores do not always give a list of strings. An argument with one possible meaning is accepted;
the error for any other names the place of the mistake.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rerankd.errors import InvalidRequest
from rerankd.surrogates import surrogate_warnings, without_surrogates
from rerankd.types import DEFAULT_INSTRUCT, Passages, RerankRequest

MAX_DEADLINE_S = 3600

Documents = Iterable[str | Mapping[str, Any]]
"""Texts, or objects with a `text`, in a list, a tuple, an array, a table's column, a generator …"""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a call in plain types, without lone surrogates. warnings: about what was replaced or is
    probably a mistake."""

    query: str
    documents: tuple[str, ...]
    top_n: int | None
    instruct: str | None
    warnings: tuple[str, ...] = ()
    passages: Passages | None = None
    deadline_s: float | None = None

    def request(self) -> RerankRequest:
        """The call of a model in this process."""
        instruct = DEFAULT_INSTRUCT if self.instruct is None else self.instruct
        deadline = None if self.deadline_s is None else time.monotonic() + self.deadline_s
        asked = (self.query,), self.documents, instruct, self.top_n
        return RerankRequest(*asked, passages=self.passages, deadline=deadline)


def checked(
    query: object,
    documents: object,
    top_n: object = None,
    instruct: object = None,
    passages: object = None,
    deadline_s: object = None,
) -> Arguments:
    """Checks the arguments of a call and converts them to plain strings and numbers.

    Raises:
        InvalidRequest: one has the wrong type or is out of range; the message says which, and what to send.
    """
    if not isinstance(query, str):
        raise InvalidRequest(f"The query is {_kind(query)}: send a string.")
    if not isinstance(instruct, str | None):
        raise InvalidRequest(f"The instruct is {_kind(instruct)}: send a string, or leave it out for the default.")
    texts = tuple(_text(index, document) for index, document in enumerate(_iterable(documents)))
    warnings = () if query.strip() else ("the query is empty: the scores mean little",)
    return Arguments(
        _whole(query),
        tuple(map(without_surrogates, texts)),
        _top_n(top_n),
        None if instruct is None else _whole(instruct),
        warnings + surrogate_warnings(query, instruct, texts),
        _passages(passages),
        _deadline(deadline_s),
    )


def _iterable(documents: object) -> Iterable[object]:
    if isinstance(documents, str | bytes | bytearray):
        raise InvalidRequest(f"The documents are one {_noun(documents)}: send a list of strings.")
    if isinstance(documents, Mapping):
        raise InvalidRequest("The documents are one object (dict): send a list, for example list(documents.values()).")
    if isinstance(documents, set | frozenset):
        raise InvalidRequest(
            "The documents are a set, which has no order, so an index would mean nothing: send a list."
        )
    if hasattr(documents, "columns"):
        raise InvalidRequest("The documents are a table: send one of its columns.")
    if hasattr(documents, "__aiter__"):
        raise InvalidRequest("The documents are an asynchronous generator: collect them in a list first.")
    try:
        return iter(documents)  # type: ignore[call-overload, no-any-return]  # raises TypeError if it is not iterable
    except TypeError:
        raise InvalidRequest(f"The documents are {_kind(documents)}: send a list of strings.") from None


def _text(index: int, document: object) -> str:
    if isinstance(document, str):
        return _plain(document)
    if not isinstance(document, Mapping):
        raise InvalidRequest(f"Document {index} is {_kind(document)}: send a string, or an object with 'text'.")
    if "text" not in document:
        raise InvalidRequest(
            f"Document {index} is an object (dict) without 'text': send a string, or put its text there."
        )
    if not isinstance(text := document["text"], str):
        raise InvalidRequest(f"The 'text' of document {index} is {_kind(text)}: it should be a string.")
    return _plain(text)


def _top_n(top_n: object) -> int | None:
    if top_n is None:
        return None
    try:
        if isinstance(top_n, bool):
            raise TypeError
        number = operator.index(top_n)  # type: ignore[arg-type]  # numpy's integers have one
    except TypeError:
        shown = f"{_kind(top_n)}: send a whole number, or leave it out for all"
        raise InvalidRequest(f"top_n is {shown}.") from None
    if number < 1:
        raise InvalidRequest(f"top_n must be at least 1, or left out for all; it is {number}.")
    return number


def _passages(passages: object) -> Passages | None:
    if passages is None or isinstance(passages, bool):
        return Passages() if passages else None
    if not isinstance(passages, Passages):
        raise InvalidRequest(f"passages is {_kind(passages)}: send True, or Passages(max_tokens=512).")
    return passages


def _deadline(deadline_s: object) -> float | None:
    if deadline_s is None:
        return None
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float) or not 0 < deadline_s <= MAX_DEADLINE_S:
        raise InvalidRequest(
            f"deadline_s is {_kind(deadline_s)}: send seconds, up to {MAX_DEADLINE_S}, or leave it out."
        )
    return float(deadline_s)


def _plain(text: str) -> str:
    """The text as a plain `str`: numpy's strings and enumerations of strings are subclasses."""
    return str.__str__(text)


def _whole(text: str) -> str:
    return without_surrogates(_plain(text))


def _noun(text: str | bytes | bytearray) -> str:
    return "string" if isinstance(text, str) else "run of bytes"


def _kind(value: object) -> str:
    """Describes a value without its contents."""
    if value is None:
        return "None"
    if isinstance(value, float) and math.isnan(value):
        return "NaN, a missing value"
    if isinstance(value, bytes | bytearray):
        return f"bytes ({type(value).__name__}), not text: decode them"
    if isinstance(value, bool | int | float):
        return f"of type {type(value).__name__} ({value})"
    return f"of type {type(value).__name__}"
