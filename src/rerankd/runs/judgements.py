"""Reads relevance judgements (qrels): for each query the grades of documents.

| file | a line or record |
|---|---|
| TREC | `qid 0 docid grade`, separated by white space |
| BEIR | `query-id⇥corpus-id⇥score`, with these names in the first line |
| JSONL or Parquet | `query-id`, `corpus-id` and `score`, or `qid`, `docid` and `relevance`; without a grade, 1 |

A grade over 0 is relevant; negative grades are those of spam.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rerankd.errors import InvalidRequest
from rerankd.runs.lines import has_records, lines_of, records_of, text_field

Judgements = Mapping[str, Mapping[str, int]]
"""Query id → document id → grade."""

HIGHEST_GRADE = 1_000
"""A larger number is a mistake: collections have grades of -2 to 4."""

BEIR_HEADER = ("query-id", "corpus-id", "score")


def read_judgements(paths: Sequence[Path]) -> Judgements:
    """Reads files of judgements; the suffix and the first line of each say the format.

    Raises:
        InvalidRequest: a file cannot be read, a line does not fit, or a document is judged twice.
        MissingExtra: see `records_of`.
    """
    judged: dict[str, dict[str, int]] = {}
    for path in paths:
        for place, qid, doc_id, grade in _of_records(path) if has_records(path) else _of_lines(path):
            grades = judged.setdefault(qid, {})
            if grades.setdefault(doc_id, grade) != grade:
                raise InvalidRequest(f"{place}: document {doc_id!r} of query {qid!r} has a second, different grade.")
    if not judged:
        raise InvalidRequest(f"There are no judgements in {', '.join(map(str, paths))}.")
    return judged


def judges_irrelevant(judgements: Judgements) -> bool:
    """Whether some documents are judged to be irrelevant; if none is, an unjudged one counts as irrelevant."""
    return any(grade <= 0 for grades in judgements.values() for grade in grades.values())


def _of_lines(path: Path) -> Iterator[tuple[str, str, str, int]]:
    is_beir = False
    for number, line in lines_of(path):
        place, tabs = f"{path}:{number}", line.split("\t")
        if number == 1 and tuple(tabs) == BEIR_HEADER:
            is_beir = True
            continue
        parts = tabs if is_beir else line.split()
        if len(parts) != (3 if is_beir else 4):
            raise InvalidRequest(
                f"{place} has {len(parts)} columns; judgements have four: query, 0, document and grade; or three under "
                f"the header {' '.join(BEIR_HEADER)}."
            )
        yield place, parts[0], parts[-2], _grade(parts[-1], place)


def _of_records(path: Path) -> Iterator[tuple[str, str, str, int]]:
    for place, record in records_of(path):
        qid = text_field(record, place, "query-id", "query_id", "qid")
        doc_id = text_field(record, place, "corpus-id", "corpus_id", "docid", "doc_id")
        grade = next((record[name] for name in ("score", "relevance", "grade") if record.get(name) is not None), 1)
        yield place, qid, doc_id, _grade(grade, place)


def _grade(value: Any, place: str) -> int:
    try:
        number = 0.5 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = 0.5
    if not (number.is_integer() and abs(number) <= HIGHEST_GRADE):
        raise InvalidRequest(f"{place}: the grade is not an integer of at most {HIGHEST_GRADE:,}: {str(value)[:40]!r}.")
    return int(number)
