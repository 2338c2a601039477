"""Finds the run, the queries and the corpus of a job: files of their own, a folder, or one file of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rerankd.errors import InvalidRequest
from rerankd.runs.collection import Collection, collection_in
from rerankd.runs.judgements import read_judgements
from rerankd.runs.lines import has_records, records_of, text_field
from rerankd.runs.run import Candidate, Run, name_of, number_of, read_run
from rerankd.runs.texts import Query, document_text, documents_of, instruct_of, read_queries
from rerankd.surrogates import without_surrogates

FirstStage = Callable[[Sequence[Path], Mapping[str, Query]], Run]
"""The files of a corpus and the queries → their candidates."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The input of a job.

    Attributes:
        queries: by id.
        documents: wanted ids → (id, text), in one pass over the corpus.
        files: all that was or will be read.
    """

    run: Run
    queries: Mapping[str, Query]
    documents: Callable[[set[str]], Iterable[tuple[str, str]]]
    files: tuple[Path, ...]


def inputs_of(
    path: Path, run: Path | None, queries: Path | None, corpus: Path | None, subset: str | None = None
) -> Inputs:
    """Reads the run and the queries.

    Args:
        path: a run, whose queries and corpus are given; a folder, see `collection_in`; or a file of requests.
        subset: of a folder with several collections.

    Raises:
        InvalidRequest: a part is missing or cannot be read.
    """
    if path.is_dir():
        if run is None:
            raise InvalidRequest(f"{path} is a folder: pass a run with --run, or --first bm25.")
        found = collection_in(path, None, queries, corpus, subset)
        return _of_files(run, found.queries, found.corpus)
    if run is not None:
        raise InvalidRequest("--run belongs to a folder: pass the run itself, with --queries and --corpus.")
    if queries and corpus:
        return _of_files(path, [queries], [corpus])
    if queries or corpus or not has_records(path):
        raise InvalidRequest(f"{path} is a run: pass its texts with --queries and --corpus.")
    return _of_requests(path)


def retrieved(collection: Collection, first: FirstStage) -> Inputs:
    """The judged queries of a collection, or all where there are no judgements, with the candidates of a first stage.

    Raises:
        InvalidRequest: a file cannot be read, or no query has a text or a candidate.
    """
    queries = read_queries(collection.queries)
    if collection.qrels:
        judged = read_judgements(collection.qrels)
        queries = {qid: query for qid, query in queries.items() if qid in judged}
    if not queries:
        raise InvalidRequest("No query has judgements: are these the right files?")
    files = (*collection.queries, *collection.corpus, *collection.qrels)
    return Inputs(first(collection.corpus, queries), queries, partial(documents_of, tuple(collection.corpus)), files)


def _of_files(run: Path, queries: Sequence[Path], corpus: Sequence[Path]) -> Inputs:
    documents = partial(documents_of, tuple(corpus))
    return Inputs(read_run(run), read_queries(queries), documents, (run, *queries, *corpus))


def _of_requests(path: Path) -> Inputs:
    ranked: dict[str, tuple[Candidate, ...]] = {}
    queries: dict[str, Query] = {}
    texts: dict[str, str] = {}
    for number, (place, record) in enumerate(records_of(path), 1):
        qid, query, documents = _request(place, record, str(number))
        if qid in queries:
            raise InvalidRequest(f"{place}: query {qid!r} stands twice.")
        queries[qid] = query
        for candidate, text in documents:
            if texts.setdefault(candidate.doc_id, text) != text:
                raise InvalidRequest(f"{place}: document {candidate.doc_id!r} has a second, different text.")
        ranked[qid] = tuple(candidate for candidate, _ in documents)
    if not ranked:
        raise InvalidRequest(f"There are no requests in {path}.")

    def wanted(ids: set[str]) -> Iterator[tuple[str, str]]:
        return ((doc_id, text) for doc_id, text in texts.items() if doc_id in ids)

    return Inputs(Run(name_of(path), ranked), queries, wanted, (path,))


def _request(place: str, record: Mapping[str, Any], number: str) -> tuple[str, Query, list[tuple[Candidate, str]]]:
    """(query id, query, its documents) of a record of ours or of rank_llm."""
    query = record.get("query")
    if isinstance(query, Mapping):
        qid = text_field(query, place, "qid")
        documents = list(_candidates(place, record))
        return qid, Query(text_field(query, place, "text"), instruct_of(record, place)), documents
    qid = text_field(record, place, "id", "qid") if record.get("id") or record.get("qid") else number
    sent = record.get("documents")
    if not isinstance(sent, list) or not sent:
        raise InvalidRequest(f"{place}: 'documents' must be a list of one or more texts.")
    texts = [without_surrogates(one) if isinstance(one, str) else _text(one, place) for one in sent]
    documents = [(Candidate(f"{qid}:{index}", -index), text) for index, text in enumerate(texts)]
    return qid, Query(text_field(record, place, "query"), instruct_of(record, place)), documents


def _candidates(place: str, record: Mapping[str, Any]) -> Iterator[tuple[Candidate, str]]:
    candidates = record.get("candidates")
    if not isinstance(candidates, list) or not candidates:
        raise InvalidRequest(f"{place}: 'candidates' must be a list of one or more documents.")
    seen: set[str] = set()
    for rank, one in enumerate(candidates):
        if not isinstance(one, Mapping):
            raise InvalidRequest(f"{place}: a candidate is not an object.")
        doc, score, doc_id = one.get("doc"), one.get("score"), text_field(one, place, "docid")
        if doc_id in seen:
            raise InvalidRequest(f"{place}: document {doc_id!r} stands twice.")
        seen.add(doc_id)
        given = -rank if score is None else number_of(score, f"{place}: the score")
        yield Candidate(doc_id, given), without_surrogates(doc) if isinstance(doc, str) else _text(doc, place)


def _text(document: Any, place: str) -> str:
    if not isinstance(document, Mapping):
        raise InvalidRequest(f"{place}: a document is neither a text nor an object with a text.")
    return document_text(document, place)
