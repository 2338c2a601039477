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

from collections.abc import Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rerankd.errors import InvalidRequest
from rerankd.runs.lines import (
    PARQUET,
    Damaged,
    has_records,
    kind_of,
    lines_of,
    numbered_records,
    records_of,
    refuse,
    text_field,
)
from rerankd.surrogates import without_surrogates

IDS = ("_id", "id", "qid", "docid", "query_id", "doc_id", "query-id", "corpus-id")
INSTRUCTS = ("instruct", "instruction")
TEXTS = ("text", "contents", "content", "body", "segment", "passage", "page_content", "chunk", "abstract")


@dataclass(frozen=True, slots=True)
class Query:
    """The text of a query. instruct: its sorting task; None for that of the job."""

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
        one = _of_line(path, number, line)
        if wanted is None or one.doc_id in wanted:
            yield one.doc_id, f"{one.title} {one.text}".strip() if one.has_title else one.text


def document_text(record: Mapping[str, Any], place: str) -> str:
    """What of a record is ranked."""
    text, title = text_field(record, place, *TEXTS), _title(record)
    return f"{title} {text}" if title else text


def _title(record: Mapping[str, Any]) -> str:
    title = record.get("title")
    return without_surrogates(title) if isinstance(title, str) else ""


class Document(NamedTuple):
    """A document of a corpus.

    Attributes:
        number: of its line, from 1, or of its row, from 0.
        doc_id: where its record has none, the number.
        title: empty for none. has_title: whether the format has one.
    """

    number: int
    doc_id: str
    title: str
    text: str
    has_title: bool = True


PROBED = 10
"""Damaged records at the beginning of a file, after which it is not a corpus."""


def is_corpus(path: Path, field: str | None = None) -> bool:
    """Whether a file holds documents: the suffix says so of Parquet, the first lines of other files."""
    if kind_of(path) in PARQUET:
        return True
    seen: list[InvalidRequest] = []

    def pass_over(error: InvalidRequest) -> None:
        seen.append(error)
        if len(seen) == PROBED:
            raise error

    with closing(numbered_documents(path, field, pass_over)) as documents:
        try:
            return next(documents, None) is not None
        except InvalidRequest:
            return False


def numbered_documents(
    path: Path, field: str | None = None, damaged: Damaged = refuse
) -> Generator[Document, None, None]:
    """The documents of a corpus, in the file's order.

    Args:
        field: that holds the text; None for the first known one.
        damaged: called with the error of a line or record, which is passed over if it returns.

    Raises:
        InvalidRequest: the file cannot be read.
        MissingExtra: see `records_of`.
    """
    if not has_records(path):
        for number, line in lines_of(path, damaged):
            try:
                yield _of_line(path, number, line)
            except InvalidRequest as error:
                damaged(error)
        return
    for number, record in numbered_records(path, damaged):
        try:
            one = _of_record(f"{path}:{number}", number, record, field)
        except InvalidRequest as error:
            damaged(error)
        else:
            yield one


def _of_record(place: str, number: int, record: Mapping[str, Any], field: str | None) -> Document:
    has_id = any(record.get(name) is not None for name in IDS)
    doc_id = text_field(record, place, *IDS) if has_id else str(number)
    return Document(number, doc_id, _title(record), text_field(record, place, *((field,) if field else TEXTS)))


def _of_line(path: Path, number: int, line: str) -> Document:
    doc_id, tab, rest = line.partition("\t")
    if not tab:
        raise InvalidRequest(f"{path}:{number} has no tab: a line is a document's id, a tab and its text.")
    parts = rest.split("\t")
    title, text = parts[1:] if len(parts) == 3 else ("", rest)
    return Document(number, doc_id, title, text, len(parts) == 3)
