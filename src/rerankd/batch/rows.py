"""The rows of a batch: what a record of the input asks, and what the output says about it. Reads no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the input's fields.

    Attributes:
        document: a text, or a list of texts.
        id: a field that names the record; its place in the input is used where a record has none.
    """

    query: str = "query"
    document: str = "document"
    id: str = "id"


@dataclass(frozen=True, slots=True)
class Pair:
    """One document to score. Either both texts are given, or `error` says what is wrong with the record.

    Attributes:
        id: of its record.
        index: of the document in its record's list; 0 for a single one.
    """

    id: str
    index: int
    query: str = ""
    document: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A row of the output.

    Attributes:
        score: in [0, 1]; None with an error.
        logit: float32; None with an error.
        tokens: of the prompt, or of those of all its passages, template included; 0 with an error.
        truncated: the document or the query did not fit, or has more text than its passages.
        error: empty for a scored pair.
        passage_start, passage_end: of the best passage in the document, in code points; None with an error.
        num_passages: that were scored; 1 for a document that is not split.
    """

    id: str
    index: int
    score: float | None
    logit: float | None
    tokens: int
    truncated: bool
    error: str
    passage_start: int | None = None
    passage_end: int | None = None
    num_passages: int = 0


OF_PASSAGES = ("passage_start", "passage_end", "num_passages")
"""The fields of `ScoredPair` that a batch without passages does not write."""


def pairs_of(place: str, record: object, columns: Columns) -> Iterator[Pair]:
    """The pairs of one record. A faulty record is one pair with an error, never an exception.

    Args:
        place: where the record is; the id of a record without one.
    """
    if not isinstance(record, Mapping):
        yield Pair(place, 0, error="the record is not a JSON object")
        return
    name = str(record[columns.id]) if record.get(columns.id) is not None else place
    query, documents = record.get(columns.query), _documents(record, columns.document)
    if not isinstance(query, str) or not query.strip():
        yield Pair(name, 0, error=f"{columns.query!r} is {_fault(query)}")
    elif not isinstance(documents, list):
        yield Pair(name, 0, error=f"{columns.document!r} is {_fault(documents)}")
    else:
        for index, document in enumerate(documents):
            if isinstance(document, str):
                yield Pair(name, index, query, document)
            else:
                yield Pair(name, index, error=f"{columns.document!r}[{index}] is {_fault(document)}")


def _documents(record: Mapping[str, Any], name: str) -> Any:
    """A list; or what stands where a text or a list is wanted. `documents` is read for `document`, too."""
    value = record.get(name)
    if value is None:
        value = record.get(f"{name}s")
    return [value] if isinstance(value, str) else value


def _fault(value: object) -> str:
    if value is None:
        return "missing"
    return "empty" if isinstance(value, str) else f"not a string, but of type {type(value).__name__}"
