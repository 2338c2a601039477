"""Reads queries and documents.

| file | text of a query | text of a document |
|---|---|---|
| BEIR JSONL, Parquet: `_id`, `text`, `title` | `text` | title, a space, text |
| Pyserini JSONL: `id`, `contents` | | `contents` |
| `id⇥text` (MS MARCO passages, Anserini topics) | the text | the text |
| `docid⇥url⇥title⇥body` (MS MARCO documents) | | title, a space, body |

A title is put before the text as in BEIR, MTEB and ir_datasets. Tab-separated files have no quotes. A record of a query
may have its own `instruct` (or `instruction`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerankd.errors import InvalidRequest
from rerankd.runs.lines import has_records, lines_of, records_of, text_field

IDS = ("_id", "id", "qid", "docid", "query_id", "doc_id", "query-id", "corpus-id")
INSTRUCTS = ("instruct", "instruction")


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for. instruct: the sorting task of this query; None for that of the job."""

    text: str
    instruct: str | None = None


def read_queries(paths: Sequence[Path]) -> dict[str, Query]:
    """Query id → query, in the files' order.

    Raises:
        InvalidRequest: a file cannot be read, a line does not fit, or an id stands twice with different texts.
        MissingExtra: see `records_of`.
    """
    queries: dict[str, Query] = {}
    for path in paths:
        for place, qid, query in _queries_of_records(path) if has_records(path) else _queries_of_lines(path):
            if queries.setdefault(qid, query) != query:
                raise InvalidRequest(f"{place}: query {qid!r} has a second, different text.")
    if not queries:
        raise InvalidRequest(f"There are no queries in {', '.join(map(str, paths))}.")
    return queries


def _queries_of_lines(path: Path) -> Iterator[tuple[str, str, Query]]:
    for number, line in lines_of(path):
        qid, tab, text = line.partition("\t")
        if not tab:
            raise InvalidRequest(f"{path}:{number} has no tab: a line is a query's id, a tab and its text.")
        yield f"{path}:{number}", qid, Query(text)


def _queries_of_records(path: Path) -> Iterator[tuple[str, str, Query]]:
    for place, record in records_of(path):
        text = text_field(record, place, "text", "query", "title")
        yield place, text_field(record, place, *IDS), Query(text, instruct_of(record, place))


def instruct_of(record: Mapping[str, Any], place: str) -> str | None:
    """The instruct of a query's record, if it has one that is not empty."""
    if not any(record.get(name) for name in INSTRUCTS):
        return None
    return text_field(record, place, *INSTRUCTS)


def documents_of(paths: Iterable[Path], wanted: Container[str] | None = None) -> Iterator[tuple[str, str]]:
    """(document id, text) of the wanted documents, in one pass over a corpus of any size.

    Args:
        wanted: None for all documents.

    Raises:
        InvalidRequest: the file cannot be read, or a line does not fit.
        MissingExtra: see `records_of`.
    """
    for path in paths:
        yield from _of_records(path, wanted) if has_records(path) else _of_lines(path, wanted)


def _of_records(path: Path, wanted: Container[str] | None) -> Iterator[tuple[str, str]]:
    for place, record in records_of(path):
        doc_id = text_field(record, place, *IDS)
        if wanted is None or doc_id in wanted:
            yield doc_id, document_text(record, place)


def _of_lines(path: Path, wanted: Container[str] | None) -> Iterator[tuple[str, str]]:
    for number, line in lines_of(path):
        doc_id, tab, rest = line.partition("\t")
        if not tab:
            raise InvalidRequest(f"{path}:{number} has no tab: a line is a document's id, a tab and its text.")
        if wanted is None or doc_id in wanted:
            parts = rest.split("\t")
            yield doc_id, f"{parts[1]} {parts[2]}".strip() if len(parts) == 3 else rest


def document_text(record: Mapping[str, Any], place: str) -> str:
    """What of a record is ranked."""
    text = text_field(record, place, "text", "contents", "body", "segment", "passage")
    title = record.get("title")
    return f"{title} {text}" if isinstance(title, str) and title else text
