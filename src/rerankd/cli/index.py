"""`rerankd index PATH`: builds or updates the index of a folder, for `rerankd search` and for a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rerankd.cli.indexing import FILES, FileOptions, opened
from rerankd.cli.options import command

app = command("index")


@app.default
def index(path: Annotated[Path, Parameter(name="PATH")], /, *, files: FileOptions = FILES) -> int:
    """Build the index of a folder's files, or update it.

    A server that was started with the same --index DIR answers from each update at once.

    Args:
        path: a folder, or one file
    """
    made = opened(path, files)
    done = made.last_update
    print(f"{done.added:,} files added, {done.changed:,} changed, {done.removed:,} removed, {done.kept:,} unchanged")
    return 0
