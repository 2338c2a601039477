"""`rerankd index PATH`: builds or updates the index of a folder, for `rerankd search` and for a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rerankd.cli.indexing import FILES, STAGE, FileOptions, StageOptions, embedder_of, opened
from rerankd.cli.options import command

app = command("index")


@app.default
def index(
    path: Annotated[Path, Parameter(name="PATH")], /, *, files: FileOptions = FILES, stage: StageOptions = STAGE
) -> int:
    """Build the index of a folder's files, or update it.

    A server that was started with the same --index DIR answers from each update at once.

    Args:
        path: a folder, or one file; a corpus (BEIR folder, JSONL, Parquet, `docid⇥text`) is read document by document
    """
    made = opened(path, files, stage, embedder_of(stage))
    done = made.last_update
    records = f"; {done.records:,} documents of them are new or changed" if done.records else ""
    counts = f"{done.added:,} files added, {done.changed:,} changed, {done.removed:,} removed, {done.kept:,} unchanged"
    print(f"{counts}{records}")
    if stage.first != "bm25" and made.made_by is not None:
        print(f"{done.embedded:,} parts embedded by {made.made_by.embedder}")
    return 0
