"""Writes a reranked run: TREC, JSONL or Parquet, by the file's suffix."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, get_type_hints

from rerankd.disk import replacement
from rerankd.errors import InvalidRequest, MissingExtra
from rerankd.runs.float32 import written
from rerankd.runs.run import Run, decreasing

SUFFIXES = {
    **dict.fromkeys((".trec", ".run", ".txt"), "trec"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
ROWS_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class RankedPassage:
    """The logit of a part of a document, `text[start:end]` in code points."""

    start: int
    end: int
    logit: float


@dataclass(frozen=True, slots=True)
class RankedPair:
    """A document of a reranked run.

    Attributes:
        rank: from 1.
        logit: float32; strictly decreasing within a query, so that every evaluator reads this order.
        score: in [0, 1] for a model of this machine; a server's score as sent.
        first_rank, first_score: of the run that was reranked.
        tokens: of the prompt, or of those of all passages; 0 where a server scored.
        passages: in the order of the text, where documents were split; TREC has no place for them.
    """

    qid: str
    docid: str
    rank: int
    logit: float
    score: float
    first_rank: int
    first_score: float
    tokens: int
    passages: tuple[RankedPassage, ...] = ()


def format_of(path: Path) -> str:
    """ "trec", "jsonl" or "parquet".

    Raises:
        InvalidRequest: the suffix says none of them.
    """
    if (found := SUFFIXES.get(path.suffix.lower())) is None:
        raise InvalidRequest(f"{path}: the suffix says the format of the result: {', '.join(SUFFIXES)}.")
    return found


def check_ids(format: str, run: Run) -> None:
    """Refuses ids that would move the columns of a TREC run.

    Raises:
        InvalidRequest: an id is empty or has white space.
    """
    if format != "trec":
        return
    for qid, found in run.ranked.items():
        for one in (qid, *(candidate.doc_id for candidate in found)):
            if one.split() != [one]:
                raise InvalidRequest(
                    f"A TREC run cannot hold the id {one!r} of query {qid!r}: write .jsonl or .parquet."
                )


def write_run(path: Path, run: Run) -> None:
    """Writes the candidates of a first stage as TREC or JSONL, by the suffix, whole or not at all.

    Raises:
        InvalidRequest: it cannot be written.
    """
    is_trec = format_of(path) == "trec"
    try:
        with replacement(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
            for qid, found in run.ranked.items():
                scores = decreasing(candidate.score for candidate in found)
                for rank, (one, score) in enumerate(zip(found, scores, strict=True), 1):
                    row = {"qid": qid, "docid": one.doc_id, "rank": rank, "score": float(written(score))}
                    file.write(
                        f"{qid} Q0 {one.doc_id} {rank} {written(score)} {run.name}\n"
                        if is_trec
                        else f"{json.dumps(row, ensure_ascii=False)}\n"
                    )
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror or error}.") from error


def write_ranked(path: Path, pairs: Iterable[RankedPair], tag: str, has_passages: bool = False) -> None:
    """Writes the file whole or not at all.

    Args:
        tag: the run's name, the last column of a TREC run.
        has_passages: write the passages of each document, too.

    Raises:
        InvalidRequest: it cannot be written.
        MissingExtra: Parquet is not installed.
    """
    names = [field.name for field in fields(RankedPair) if has_passages or field.name != "passages"]
    write = {"jsonl": _write_jsonl, "parquet": _write_parquet}
    try:
        with replacement(path) as unfinished:
            if (format := format_of(path)) == "trec":
                _write_trec(unfinished, pairs, tag)
            else:
                write[format](unfinished, pairs, names)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror or error}.") from error


def _write_trec(path: Path, pairs: Iterable[RankedPair], tag: str) -> None:
    name = "".join("_" if character.isspace() else character for character in tag) or "rerankd"
    with path.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        for pair in pairs:
            file.write(f"{pair.qid} Q0 {pair.docid} {pair.rank} {written(pair.logit)} {name}\n")


def _write_jsonl(path: Path, pairs: Iterable[RankedPair], names: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        for pair in pairs:
            values = asdict(pair)
            file.write(f"{json.dumps({name: values[name] for name in names}, ensure_ascii=False)}\n")


def _write_parquet(path: Path, pairs: Iterable[RankedPair], names: Sequence[str]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet", error, "write a .jsonl or .trec file", "parquet") from None
    passage = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("logit", pa.float32())])
    types: dict[Any, Any] = {str: pa.string(), int: pa.int32(), float: pa.float64()}
    types |= {"logit": pa.float32(), "passages": pa.list_(passage)}
    hints = get_type_hints(RankedPair)
    schema = pa.schema([(name, types[name] if name in types else types[hints[name]]) for name in names])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for rows in _in_parts(pairs):
            values = [asdict(row) for row in rows]
            writer.write_table(pa.table({name: [row[name] for row in values] for name in names}, schema))


def _in_parts(pairs: Iterable[RankedPair]) -> Iterator[list[RankedPair]]:
    left = iter(pairs)
    while rows := list(islice(left, ROWS_AT_ONCE)):
        yield rows
