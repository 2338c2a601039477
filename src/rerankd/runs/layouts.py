"""Finds the run, the queries and the corpus of a job: files of their own, a BEIR folder, or one file of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rerankd.errors import InvalidRequest
from rerankd.runs.lines import has_records, records_of, text_field
from rerankd.runs.run import Candidate, Run, name_of, read_run
from rerankd.runs.texts import document_text, documents_of, read_queries


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a job reranks.

    Attributes:
        queries: id → text.
        documents: wanted ids → (id, text), in one pass over the corpus.
        files: all that was or will be read.
    """

    run: Run
    queries: Mapping[str, str]
    documents: Callable[[set[str]], Iterable[tuple[str, str]]]
    files: tuple[Path, ...]


def inputs_of(path: Path, run: Path | None, queries: Path | None, corpus: Path | None) -> Inputs:
    """Reads the run and the queries.

    Args:
        path: a run, whose queries and corpus are given; a folder as BEIR's; or a file of requests.

    Raises:
        InvalidRequest: a part is missing or cannot be read.
    """
    if path.is_dir():
        if run is None:
            raise InvalidRequest(f"{path} is a folder: pass the run to rerank with --run.")
        return _of_files(run, queries or _one_of(path, "queries"), corpus or _one_of(path, "corpus"))
    if run is not None:
        raise InvalidRequest("--run belongs to a folder: pass the run itself, with --queries and --corpus.")
    if queries and corpus:
        return _of_files(path, queries, corpus)
    if queries or corpus or not has_records(path):
        raise InvalidRequest(f"{path} is a run: pass its texts with --queries and --corpus.")
    return _of_requests(path)


def _of_files(run: Path, queries: Path, corpus: Path) -> Inputs:
    return Inputs(read_run(run), read_queries(queries), partial(documents_of, corpus), (run, queries, corpus))


def _one_of(folder: Path, name: str) -> Path:
    found = sorted(path for path in folder.glob(f"{name}.*") if path.is_file())
    found += sorted(path for path in (folder / name).glob("*.parquet"))
    if len(found) != 1:
        there = f"{len(found)} files" if found else "no file"
        raise InvalidRequest(f"{folder} has {there} {name}.*: pass it with --{name}.")
    return found[0]


def _of_requests(path: Path) -> Inputs:
    ranked: dict[str, tuple[Candidate, ...]] = {}
    queries: dict[str, str] = {}
    texts: dict[str, str] = {}
    for number, (place, record) in enumerate(records_of(path), 1):
        qid, query, documents = _request(place, record, str(number))
        if qid in queries:
            raise InvalidRequest(f"{place}: query {qid!r} stands twice.")
        queries[qid] = query
        texts.update({candidate.doc_id: text for candidate, text in documents})
        ranked[qid] = tuple(candidate for candidate, _ in documents)
    if not ranked:
        raise InvalidRequest(f"There are no requests in {path}.")

    def wanted(ids: set[str]) -> Iterator[tuple[str, str]]:
        return ((doc_id, text) for doc_id, text in texts.items() if doc_id in ids)

    return Inputs(Run(name_of(path), ranked), queries, wanted, (path,))


def _request(place: str, record: Mapping[str, Any], number: str) -> tuple[str, str, list[tuple[Candidate, str]]]:
    """(query id, query, its documents) of a record of ours or of rank_llm."""
    query = record.get("query")
    if isinstance(query, Mapping):
        qid = text_field(query, place, "qid")
        documents = list(_candidates(place, record))
        return qid, text_field(query, place, "text"), documents
    qid = text_field(record, place, "id", "qid") if record.get("id") or record.get("qid") else number
    sent = record.get("documents")
    if not isinstance(sent, list) or not sent:
        raise InvalidRequest(f"{place}: 'documents' must be a list of one or more texts.")
    texts = [one if isinstance(one, str) else _text(one, place) for one in sent]
    documents = [(Candidate(f"{qid}:{index}", -index), text) for index, text in enumerate(texts)]
    return qid, text_field(record, place, "query"), documents


def _candidates(place: str, record: Mapping[str, Any]) -> Iterator[tuple[Candidate, str]]:
    candidates = record.get("candidates")
    if not isinstance(candidates, list) or not candidates:
        raise InvalidRequest(f"{place}: 'candidates' must be a list of one or more documents.")
    for rank, one in enumerate(candidates):
        if not isinstance(one, Mapping):
            raise InvalidRequest(f"{place}: a candidate is not an object.")
        doc, score = one.get("doc"), one.get("score")
        text = doc if isinstance(doc, str) else _text(doc, place)
        yield (
            Candidate(text_field(one, place, "docid"), float(score) if isinstance(score, int | float) else -rank),
            text,
        )


def _text(document: Any, place: str) -> str:
    if not isinstance(document, Mapping):
        raise InvalidRequest(f"{place}: a document is neither a text nor an object with a text.")
    return document_text(document, place)
