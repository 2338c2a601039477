"""Reads queries and documents.

| file | text of a query | text of a document |
|---|---|---|
| BEIR JSONL, Parquet: `_id`, `text`, `title` | `text` | title, a space, text |
| Pyserini JSONL: `id`, `contents` | | `contents` |
| `id⇥text` (MS MARCO passages, Anserini topics) | the text | the text |
| `docid⇥url⇥title⇥body` (MS MARCO documents) | | title, a space, body |

A title is put before the text as in BEIR, MTEB and ir_datasets. Tab-separated files have no quotes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from rerankd.errors import InvalidRequest
from rerankd.runs.lines import has_records, lines_of, records_of, text_field

IDS = ("_id", "id", "qid", "docid", "query_id", "doc_id", "query-id", "corpus-id")


def read_queries(path: Path) -> dict[str, str]:
    """Query id → text, in the file's order.

    Raises:
        InvalidRequest: the file cannot be read, a line does not fit, or an id stands twice with different texts.
        MissingExtra: see `records_of`.
    """
    queries: dict[str, str] = {}
    for place, qid, text in _queries_of_records(path) if has_records(path) else _queries_of_lines(path):
        if queries.setdefault(qid, text) != text:
            raise InvalidRequest(f"{place}: query {qid!r} has a second, different text.")
    if not queries:
        raise InvalidRequest(f"There are no queries in {path}.")
    return queries


def _queries_of_lines(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, line in lines_of(path):
        qid, tab, text = line.partition("\t")
        if not tab:
            raise InvalidRequest(f"{path}:{number} has no tab: a line is a query's id, a tab and its text.")
        yield f"{path}:{number}", qid, text


def _queries_of_records(path: Path) -> Iterator[tuple[str, str, str]]:
    for place, record in records_of(path):
        yield place, text_field(record, place, *IDS), text_field(record, place, "text", "query", "title")


def documents_of(path: Path, wanted: Container[str]) -> Iterator[tuple[str, str]]:
    """(document id, text) of the wanted documents, in one pass over a corpus of any size.

    Raises:
        InvalidRequest: the file cannot be read, or a line does not fit.
        MissingExtra: see `records_of`.
    """
    if has_records(path):
        for place, record in records_of(path):
            if (doc_id := text_field(record, place, *IDS)) in wanted:
                yield doc_id, document_text(record, place)
        return
    for number, line in lines_of(path):
        doc_id, tab, rest = line.partition("\t")
        if not tab:
            raise InvalidRequest(f"{path}:{number} has no tab: a line is a document's id, a tab and its text.")
        if doc_id in wanted:
            parts = rest.split("\t")
            yield doc_id, f"{parts[1]} {parts[2]}".strip() if len(parts) == 3 else rest


def document_text(record: Mapping[str, Any], place: str) -> str:
    """What of a record is ranked."""
    text = text_field(record, place, "text", "contents", "body", "segment", "passage")
    title = record.get("title")
    return f"{title} {text}" if isinstance(title, str) and title else text
