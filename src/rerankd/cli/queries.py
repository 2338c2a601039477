"""Reads queries with their candidates from JSONL, one query per line."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from rerankd.compare import Query
from rerankd.errors import InvalidRequest
from rerankd.files.text import text_of
from rerankd.types import DEFAULT_INSTRUCT

HIGHEST_GRADE = 100
"""A larger number is a mistake: collections have grades of 0 to 4."""


def read_queries(path: Path) -> list[Query]:
    """Reads a file; skips empty lines.

    A line: {"query": str, "documents": [str, …], "relevance": [number, …], "instruct": str}, the last two optional.

    Raises:
        InvalidRequest: the file cannot be read or holds no query, or a line is malformed; the message names the line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    return _queries(str(path), text_of(str(path), raw))


def built_in_queries() -> list[Query]:
    """Twelve queries in English, Chinese and German, judged 3 (answers it), 2 (in part), 1 (same subject) or 0."""
    name = "compare.jsonl"
    return _queries(name, resources.files("rerankd").joinpath("data", name).read_text("utf-8"))


def _queries(name: str, text: str) -> list[Query]:
    lines = enumerate(text.split("\n"), 1)
    queries = [_query(f"{name}:{number}", line) for number, line in lines if line.strip()]
    if not queries:
        raise InvalidRequest(f"There are no queries in {name}.")
    return queries


def _query(source: str, line: str) -> Query:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{source} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"{source} is not an object with 'query' and 'documents'.")
    text, documents = value.get("query"), value.get("documents")
    if not isinstance(text, str):
        raise InvalidRequest(f"{source}: 'query' must be a string; it {_is(text)}.")
    if not isinstance(documents, list) or not documents:
        raise InvalidRequest(f"{source}: 'documents' must be a list of one or more strings; it {_is(documents)}.")
    for index, document in enumerate(documents):
        if not isinstance(document, str):
            raise InvalidRequest(f"{source}: 'documents' must hold strings; number {index} {_is(document)}.")
    instruct = value.get("instruct")
    if instruct is not None and not isinstance(instruct, str):
        raise InvalidRequest(f"{source}: 'instruct' must be a string; it {_is(instruct)}.")
    relevance = _relevance(source, value.get("relevance"), len(documents))
    return Query(source, text, tuple(documents), relevance, DEFAULT_INSTRUCT if instruct is None else instruct)


def _relevance(source: str, grades: Any, num_documents: int) -> tuple[float, ...] | None:
    if grades is None:
        return None
    if not isinstance(grades, list):
        raise InvalidRequest(f"{source}: 'relevance' must be a list of numbers; it {_is(grades)}.")
    if len(grades) != num_documents:
        raise InvalidRequest(f"{source}: 'relevance' has {len(grades)} grades for {num_documents} documents.")
    for index, grade in enumerate(grades):
        if not isinstance(grade, int | float) or isinstance(grade, bool) or not 0 <= grade <= HIGHEST_GRADE:
            raise InvalidRequest(
                f"{source}: 'relevance' must hold numbers from 0 to {HIGHEST_GRADE}; number {index} {_is(grade)}."
            )
    return tuple(grades)


def _is(value: Any) -> str:
    """Describes a value in a few words."""
    if value is None:
        return "is missing"
    shown = json.dumps(value)
    return f"is {shown if len(shown) <= 40 else shown[:37] + '...'}"
