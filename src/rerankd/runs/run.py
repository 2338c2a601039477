"""Reads runs: for each query the documents that a system retrieved, best first.

- TREC: `qid Q0 docid rank score tag`, separated by white space. The order is that of trec_eval: by score as a float32,
  then by docid, both descending; the rank is ignored.
- MS MARCO: `qid⇥pid⇥rank`, by rank; or `top1000`, `qid⇥pid⇥query⇥passage`, as in the file. Neither has scores.
- JSONL or Parquet, a record a pair: `qid`, `docid`, and `logit` or `score`. By this number, then as in the file. It
  may have `passages`, a list of `start`, `end` and `logit`.
- JSONL or Parquet, a record a query: `query-id` and `corpus-ids`, best first, as the first stages of NanoBEIR.
- JSON of MTEB: subset → split → qid → docid → score, of one subset and split; by score as TREC.
- JSONL of rank_llm: `{"query": {"qid", …}, "candidates": [{"docid", "score", …}, …]}`. By score, then as in the file.

trec_eval: https://github.com/usnistgov/trec_eval, form_res_rels.c. MS MARCO:
https://microsoft.github.io/msmarco/TREC-Deep-Learning. rank_llm: https://github.com/castorini/rank_llm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerankd.errors import InvalidRequest
from rerankd.runs.float32 import below, rounded
from rerankd.runs.judgements import BEIR_HEADER
from rerankd.runs.lines import (
    COMPRESSED,
    JSONL,
    PARQUET,
    WITH_PYARROW,
    has_records,
    kind_of,
    lines_of,
    records_of,
    text_field,
)

SUFFIXES = (*COMPRESSED, *WITH_PYARROW, *JSONL, *PARQUET, ".json", ".trec", ".txt", ".run", ".tsv")
"""That say the compression, and then the format."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A retrieved document.

    Attributes:
        score: as in the file; minus the rank where the file has no score.
        tokens: of its prompts; 0 where the file does not say.
        passages: the logits of its passages, in the order of the text; empty where the file has none.
        best: start and end of the best one in the text, in code points; None where the file has none.
    """

    doc_id: str
    score: float
    tokens: int = 0
    passages: tuple[float, ...] = ()
    best: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one retrieval system.

    Attributes:
        ranked: query id → its candidates, best first; the queries are in the file's order.
        has_logits: its scores are log odds of "yes" against "no".
    """

    name: str
    ranked: Mapping[str, tuple[Candidate, ...]]
    has_logits: bool = False


def read_run(path: Path) -> Run:
    """Reads a run; its suffix and its first line say the format.

    Raises:
        InvalidRequest: the file cannot be read, a line does not fit, or a query has a document twice.
        MissingExtra: see `records_of`.
    """
    queries: dict[str, dict[str, Candidate]] = {}
    kinds: set[bool] = set()
    pairs = _record_pairs if has_records(path) else _predicted_pairs if kind_of(path) == ".json" else _line_pairs
    by_id = pairs is not _record_pairs
    for place, qid, candidate, is_logit in pairs(path):
        found = queries.setdefault(qid, {})
        if candidate.doc_id in found:
            raise InvalidRequest(f"{place}: query {qid!r} has document {candidate.doc_id!r} twice.")
        found[candidate.doc_id] = candidate
        kinds.add(is_logit)
        if len(kinds) > 1:
            raise InvalidRequest(f"{place}: some records have a logit, others only a score: they cannot be compared.")
    if not queries:
        raise InvalidRequest(f"There are no documents in {path}.")
    ranked = {qid: tuple(_best_first(found.values(), by_id)) for qid, found in queries.items()}
    return Run(name_of(path), ranked, kinds == {True})


def name_of(path: Path) -> str:
    """A run's name: its file's, without suffixes that say the format or the compression."""
    name = path.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name or path.name


def _best_first(candidates: Iterable[Candidate], by_id: bool) -> list[Candidate]:
    ordered = sorted(candidates, key=lambda one: one.doc_id, reverse=True) if by_id else list(candidates)
    return sorted(ordered, key=lambda one: -rounded(one.score))


Pair = tuple[str, str, Candidate, bool]
"""(place in the file, query id, candidate, whether its score is a logit)."""


def _line_pairs(path: Path) -> Iterator[Pair]:
    columns = 0
    for number, line in lines_of(path):
        place, parts = f"{path}:{number}", line.split("\t")
        if not columns:
            _refuse_judgements(place, line)
            columns = len(parts) if len(parts) in (3, 4) else 6
        if columns == 6:
            yield place, *_of_trec(place, line), False
        elif len(parts) != columns:
            raise InvalidRequest(f"{place} has {len(parts)} columns; the first line has {columns}.")
        elif columns == 3:
            yield place, parts[0], Candidate(parts[1], -number_of(parts[2], f"{place}: the rank")), False
        else:
            yield place, parts[0], Candidate(parts[1], -float(number)), False


def _refuse_judgements(place: str, line: str) -> None:
    """Judgements have the columns of MS MARCO's runs, and every run without a relevant document is a run, too."""
    parts = line.split()
    is_trec = len(parts) == 4 and parts[1] in ("0", "Q0") and parts[3].lstrip("-").isdecimal()
    if is_trec or tuple(parts) == BEIR_HEADER:
        raise InvalidRequest(f"{place} is a judgement, not a line of a run: pass the file with --qrels.")


def _of_trec(place: str, line: str) -> tuple[str, Candidate]:
    parts = line.split(None, 5)
    if len(parts) < 6:
        raise InvalidRequest(
            f"{place} has {len(parts)} columns; a run has six: query, Q0, document, rank, score and a name. Without "
            "scores: query, document and rank, separated by tabs."
        )
    return parts[0], Candidate(parts[2], number_of(parts[4], f"{place}: the score"))


def number_of(text: Any, what: str) -> float:
    """A number as it stands in a file.

    Args:
        what: begins the message of the error.

    Raises:
        InvalidRequest: it is none.
    """
    if text is None:
        raise InvalidRequest(f"{what} is missing.")
    try:
        value = math.nan if isinstance(text, bool) else float(text)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"{what} is not a number: {str(text)[:40]!r}.") from None
    if math.isnan(value):
        raise InvalidRequest(f"{what} is not a number (NaN).")
    return value


def _record_pairs(path: Path) -> Iterator[Pair]:
    for place, record in records_of(path):
        if "candidates" in record:
            yield from _of_rank_llm(place, record)
            continue
        if "corpus-ids" in record:
            yield from _of_ids(place, record)
            continue
        is_logit = record.get("logit") is not None
        if not is_logit and record.get("score") is None:
            raise InvalidRequest(f"{place} has neither 'logit' nor 'score': is it a run?")
        score = number_of(record.get("logit" if is_logit else "score"), f"{place}: the score")
        tokens = record.get("tokens")
        candidate = Candidate(
            text_field(record, place, "docid", "doc_id", "corpus-id"),
            score,
            tokens if isinstance(tokens, int) else 0,
            *_passages(place, record.get("passages")),
        )
        yield place, text_field(record, place, "qid", "query_id", "query-id"), candidate, is_logit


def _predicted_pairs(path: Path) -> Iterator[Pair]:
    """MTEB's predictions: of one subset and split, or the queries alone as MTEB 1 wrote them."""
    found = _only(path, _json_of(path))
    for qid, scores in found.items():
        if not isinstance(scores, Mapping):
            raise InvalidRequest(f"{path}: query {qid!r} has no object of documents and scores.")
        for doc_id, score in scores.items():
            yield f"{path}, query {qid!r}", qid, Candidate(doc_id, number_of(score, f"{path}: the score")), False


def _json_of(path: Path) -> Mapping[str, Any]:
    text = "\n".join(line for _, line in lines_of(path))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} is not JSON: {error}.") from None
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{path} is JSON, but no predictions of MTEB.")
    return {name: one for name, one in value.items() if name != "mteb_model_meta"}


def _only(path: Path, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Down to the queries: the objects of a query hold numbers, those above hold objects of queries."""
    inner = next((one for one in value.values() if isinstance(one, Mapping) and one), {})
    if not any(isinstance(one, Mapping) for one in inner.values()):
        return value
    if len(value) > 1:
        raise InvalidRequest(f"{path} has predictions of {', '.join(sorted(value))}: write those of one to a file.")
    return _only(path, inner)


def _passages(place: str, found: Any) -> tuple[tuple[float, ...], tuple[int, int] | None]:
    """The logits of a document's passages, and where the best one stands."""
    if not found:
        return (), None
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise InvalidRequest(f"{place}: 'passages' must be a list of objects with 'start', 'end' and 'logit'.")
    logits = tuple(number_of(one.get("logit"), f"{place}: the logit of a passage") for one in found)
    best = found[logits.index(max(logits))]
    start, end = best.get("start"), best.get("end")
    return logits, (start, end) if isinstance(start, int) and isinstance(end, int) else None


def _of_ids(place: str, record: Mapping[str, Any]) -> Iterator[Pair]:
    qid, found = text_field(record, place, "query-id", "qid"), record["corpus-ids"]
    if not isinstance(found, list):
        raise InvalidRequest(f"{place}: 'corpus-ids' must be a list of ids.")
    for rank, doc_id in enumerate(found, 1):
        yield place, qid, Candidate(text_field({"id": doc_id}, place, "id"), -rank), False


def _of_rank_llm(place: str, record: Mapping[str, Any]) -> Iterator[Pair]:
    query, candidates = record.get("query"), record["candidates"]
    if not isinstance(query, Mapping) or not isinstance(candidates, list):
        raise InvalidRequest(f"{place}: 'query' must be an object with 'qid', and 'candidates' a list.")
    qid = text_field(query, place, "qid")
    for candidate in candidates:
        if not isinstance(candidate, Mapping):
            raise InvalidRequest(f"{place}: a candidate is not an object.")
        score = number_of(candidate.get("score"), f"{place}: the score")
        yield place, qid, Candidate(text_field(candidate, place, "docid"), score), False


def decreasing(scores: Iterable[float]) -> list[float]:
    """The scores as float32, each below the one before it: a tie or a rise becomes the next smaller number.

    Evaluators break ties in different ways. Strictly decreasing scores give the same order in all of them.
    """
    result: list[float] = []
    last = math.inf
    for score in scores:
        last = min(rounded(score), below(last))
        result.append(last)
    return result
