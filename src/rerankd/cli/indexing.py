"""Which files a command indexes, how parts are found, and where the index is. Shared by `index`, `search` and `mcp`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from rerankd.cli.options import COUNT, FLAG
from rerankd.cli.progress import LoadingBar, duration
from rerankd.cli.rank import PATTERNS, SIZE
from rerankd.embedder import EmbedderChoice
from rerankd.errors import SettingsError
from rerankd.search.index import First, Index
from rerankd.search.stored import Update


@Parameter(name="*", group=Group("Files", sort_key=1))
@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """The files of the folder that are indexed.

    Attributes:
        include: only such files: '*.md', 'docs/**'; repeatable
        exclude: no such files; repeatable
        no_ignore: also read what .gitignore names, and node_modules, dist, minified and lock files
        max_filesize: skip larger files: 500K, 2M; PDF and Office files may have 50 MB
        index: the folder of the index (default: one for each path and choice of files, in the user's cache)
        rebuild: remove the index and build it again
        field: the field of a record (JSONL, Parquet) that holds its text (default: the first known one)
    """

    include: Annotated[tuple[str, ...], PATTERNS] = ()
    exclude: Annotated[tuple[str, ...], PATTERNS] = ()
    no_ignore: Annotated[bool, FLAG] = False
    max_filesize: Annotated[int, SIZE] = 1_000_000
    index: Annotated[Path | None, Parameter(metavar="DIR", show_default=False)] = None
    rebuild: Annotated[bool, FLAG] = False
    field: Annotated[str | None, Parameter(metavar="NAME", show_default=False)] = None


@Parameter(name="*", group=Group("First stage", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """How parts are found.

    Attributes:
        first: by words (bm25), by the vectors of an embedder (dense), or by both (hybrid); the last two make missing
            vectors
        embedder: 'embedded' (16 languages), Qwen3-Embedding or an encoder of sentence-transformers, by hub id or folder
            (default: the one of the index, else 'embedded')
        dimensions: cut the vectors of --embedder to this many dimensions
    """

    first: First = "bm25"
    embedder: Annotated[str | None, Parameter(metavar="MODEL", show_default=False)] = None
    dimensions: Annotated[int | None, COUNT] = None


FILES = FileOptions()
STAGE = StageOptions()


def embedder_of(stage: StageOptions, device: str = "auto", *, offline: bool = False) -> EmbedderChoice:
    """The embedder that the command line names; it loads when it is needed.

    Raises:
        SettingsError: the options contradict each other.
    """
    if stage.first == "bm25" and stage.embedder is not None:
        raise SettingsError("--embedder needs --first dense or --first hybrid.")
    if stage.dimensions is not None and stage.embedder is None:
        raise SettingsError("--dimensions needs --embedder.")
    return EmbedderChoice(stage.embedder, stage.dimensions, device, offline)


def opened(
    path: Path, options: FileOptions, stage: StageOptions = STAGE, embedder: EmbedderChoice | None = None
) -> Index:
    """The updated index of a folder or file; notes on stderr name what was left out.

    Args:
        embedder: see `embedder_of`.

    Raises:
        InvalidRequest: see `Index`.
    """
    with LoadingBar() as bar:
        index = Index(
            path,
            folder=options.index,
            include=options.include,
            exclude=options.exclude,
            max_bytes=options.max_filesize,
            ignoring=not options.no_ignore,
            first=stage.first,
            embedder=embedder,
            rebuild=options.rebuild,
            field=options.field,
            progress=_Progress(path, bar),
        )
    for note in index.last_update.notes:
        print(f"note: {note}", file=sys.stderr)
    return index


class _Progress:
    """Shows what an update does, and how long the vectors still take."""

    def __init__(self, path: Path, bar: LoadingBar) -> None:
        self._path, self._bar = path, bar
        self._began: float | None = None

    def __call__(self, update: Update) -> None:
        if not update.to_embed:
            numbers = f"{update.records:,} documents" if update.records else f"{update.added:,} new files"
            self._bar(f"indexing {self._path}: {numbers}", 0.0)
            self._began = time.monotonic()
            return
        share = update.embedded / update.to_embed
        left_s = (time.monotonic() - (self._began or time.monotonic())) * (1 - share) / share
        numbers = f"{update.embedded:,} of {update.to_embed:,} parts"
        self._bar(f"embedding {self._path}: {numbers}, {duration(left_s)} left", share)
