"""Finds the files of a test collection in a folder: queries, corpus and judgements.

| layout | files |
|---|---|
| BEIR | `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv` |
| a Hugging Face snapshot | `corpus/*.parquet`, `queries/*.parquet`, `qrels/<split>-*.parquet` or `default/…` |

Each file may be compressed, and JSONL, Parquet or tab-separated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankd.errors import InvalidRequest
from rerankd.runs.lines import kind_of

KINDS = (".jsonl", ".ndjson", ".jsonlines", ".parquet", ".pq", ".tsv", ".txt", ".trec")
QRELS_FOLDERS = ("qrels", "default")


@dataclass(frozen=True, slots=True)
class Collection:
    """A test collection. qrels: empty where the folder has no judgements of the split."""

    queries: Sequence[Path]
    corpus: Sequence[Path]
    qrels: Sequence[Path]


def collection_in(
    folder: Path, split: str = "test", queries: Path | None = None, corpus: Path | None = None
) -> Collection:
    """The collection in a folder.

    Args:
        split: of the judgements; where there is only one other, that one.
        queries, corpus: in place of those of the folder.

    Raises:
        InvalidRequest: the queries, the corpus or the split are not there.
    """
    return Collection(
        [queries] if queries else _files_of(folder, "queries"),
        [corpus] if corpus else _files_of(folder, "corpus"),
        _qrels_of(folder, split),
    )


def _files_of(folder: Path, name: str) -> list[Path]:
    found = _known(folder.glob(f"{name}.*")) or _known((folder / name).glob("*"))
    if not found:
        raise InvalidRequest(f"{folder} has no file {name}.*, nor files in {name}/: pass one with --{name}.")
    if found[0].parent == folder and len(found) > 1:
        raise InvalidRequest(f"{folder} has {len(found)} files {name}.*: pass one of them with --{name}.")
    return found


def _qrels_of(folder: Path, split: str) -> list[Path]:
    if single := _known(folder.glob("qrels.*")):
        return single[:1]
    found = next((files for name in QRELS_FOLDERS if (files := _known((folder / name).glob("*")))), [])
    by_split: dict[str, list[Path]] = {}
    for path in found:
        by_split.setdefault(path.name.split(".")[0].split("-")[0], []).append(path)
    if not by_split:
        return []
    if split in by_split:
        return by_split[split]
    if len(by_split) > 1:
        raise InvalidRequest(
            f"{found[0].parent} has no split {split!r}: pass --split with one of {', '.join(sorted(by_split))}."
        )
    return found


def _known(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.is_file() and kind_of(path) in KINDS)
