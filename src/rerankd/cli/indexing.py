"""Which files a command indexes, and where the index is kept. Shared by `index`, `search` and `mcp`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from rerankd.cli.options import FLAG
from rerankd.cli.progress import LoadingBar
from rerankd.cli.rank import PATTERNS, SIZE
from rerankd.search.index import Index


@Parameter(name="*", group=Group("Files", sort_key=1))
@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Which files of the folder are indexed.

    Attributes:
        include: only such files: '*.md', 'docs/**'; repeatable
        exclude: no such files; repeatable
        no_ignore: also read what .gitignore names, and node_modules, dist, minified and lock files
        max_filesize: skip larger files: 500K, 2M; PDF and Office files may have 50 MB
        index: the folder of the index (default: one for each path and choice of files, in the user's cache)
        rebuild: remove the index and build it again
    """

    include: Annotated[tuple[str, ...], PATTERNS] = ()
    exclude: Annotated[tuple[str, ...], PATTERNS] = ()
    no_ignore: Annotated[bool, FLAG] = False
    max_filesize: Annotated[int, SIZE] = 1_000_000
    index: Annotated[Path | None, Parameter(metavar="DIR", show_default=False)] = None
    rebuild: Annotated[bool, FLAG] = False


FILES = FileOptions()


def opened(path: Path, options: FileOptions) -> Index:
    """The updated index of a folder or file; notes on stderr name what was left out.

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
            rebuild=options.rebuild,
            progress=lambda update: bar(f"indexing {path}: {update.added:,} new files", 0.0),
        )
    for note in index.last_update.notes:
        print(f"note: {note}", file=sys.stderr)
    return index
