"""Finds the files of a test collection in a folder: queries, corpus and judgements.

| layout | files |
|---|---|
| BEIR | `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv` |
| a Hugging Face snapshot | `corpus/*.parquet`, `queries/*.parquet`, `qrels/<split>-*.parquet` or `default/…` |

A snapshot's README.md may list files of other names (`snapshot.py`). Each file may be compressed, and JSONL, Parquet or
tab-separated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankd.errors import InvalidRequest
from rerankd.runs.lines import has_records, kind_of
from rerankd.runs.snapshot import Files, collection_files, collections_in, split_of

KINDS = frozenset((".jsonl", ".ndjson", ".jsonlines", ".parquet", ".pq", ".tsv", ".txt", ".trec"))
QRELS_FOLDERS = ("qrels", "default")


@dataclass(frozen=True, slots=True)
class Collection:
    """A test collection. qrels: empty where the folder has no judgements of the split."""

    queries: Sequence[Path]
    corpus: Sequence[Path]
    qrels: Sequence[Path]


def collection_in(
    folder: Path,
    split: str | None = "test",
    queries: Path | None = None,
    corpus: Path | None = None,
    subset: str | None = None,
) -> Collection:
    """The collection in a folder.

    Args:
        split: of the judgements; where there is only one other, that one. None: without judgements.
        queries, corpus: in place of those of the folder.
        subset: which one, where the folder has several.

    Raises:
        InvalidRequest: the queries, the corpus or the split are not there, or there are several collections.
        MissingExtra: see `collection_files`.
    """
    listed = {} if subset is None and queries and corpus else collection_files(folder, subset, KINDS)
    return Collection(
        [queries] if queries else _of_split(listed["queries"], split) if listed else _files_of(folder, "queries"),
        [corpus] if corpus else _of_split(listed["corpus"], split) if listed else _files_of(folder, "corpus"),
        [] if split is None else _judgements(folder, listed.get("qrels", {}) or _qrels_in(folder), split),
    )


def _of_split(files: Files, split: str | None) -> list[Path]:
    """Those of the split, where the documents or queries of each have files of their own; else all."""
    if split is not None and split in files:
        return list(files[split])
    return [path for some in files.values() for path in some]


def _files_of(folder: Path, name: str) -> list[Path]:
    found = _known(folder.glob(f"{name}.*")) or _known((folder / name).glob("*"))
    if not found:
        raise InvalidRequest(
            f"{folder} has no file {name}.*, nor files in {name}/: rerankd rerank takes them with --{name}."
        )
    if found[0].parent == folder and len(found) > 1:
        raise InvalidRequest(f"{folder} has {len(found)} files {name}.*: pass one of them with --{name}.")
    return found


def _qrels_in(folder: Path) -> Files:
    """The judgements by split; one file without a split has none."""
    if single := _known(folder.glob("qrels.*")):
        return {"": single[:1]}
    by_split: dict[str, list[Path]] = {}
    for path in next((files for name in QRELS_FOLDERS if (files := _known((folder / name).glob("*")))), []):
        by_split.setdefault(split_of(path), []).append(path)
    return by_split


def _judgements(folder: Path, by_split: Files, split: str) -> list[Path]:
    if split not in by_split and len(by_split) > 1:
        names = ", ".join(sorted(by_split))
        raise InvalidRequest(f"{folder} has no judgements of the split {split!r}: pass --split with one of {names}.")
    return list(by_split[split] if split in by_split else next(iter(by_split.values()), []))


def _known(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.is_file() and kind_of(path) in KINDS)


def corpus_in(folder: Path) -> list[Path]:
    """The files of documents of the test collections in a folder; nothing where it has none.

    Raises:
        MissingExtra: see `collection_files`.
    """
    try:
        several = collections_in(folder, KINDS).values()
        found = [path for one in several for path in _of_split(one["corpus"], None)]
        found = list(dict.fromkeys(found)) or list(collection_in(folder, None).corpus)
    except InvalidRequest:
        return []
    return found if all(has_records(path) or kind_of(path) == ".tsv" for path in found) else []
