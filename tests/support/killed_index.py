"""Updates of an index that are killed.

    PYTHONPATH=src:tests python -m support.killed_index FILES INDEX

reads a line for each update from stdin: `step SHARE` kills it at this share of the calls in the modules that write,
`bytes NUMBER` when a file gets longer. It answers with the status of the update's process.
"""

from __future__ import annotations

import math
import shutil
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import tantivy  # noqa: F401 - loaded once, before the forks

import rerankd.search.dense
import rerankd.search.embedding
import rerankd.search.vectors
from rerankd import Index
from support.killing import counted, stopped, torn
from support.word_embedder import WordEmbedder

FOLDER = Path(rerankd.search.vectors.__file__).parent
WRITERS = {str(FOLDER / f"{name}.py") for name in ("dense", "embedding", "index", "made_by", "stored", "vectors")}

BATCH = 3
"""Texts between two writes of vectors: small, so that an update has several."""


def update(files: Path, index: Path) -> None:
    Index(files, folder=index, first="hybrid", embedder=WordEmbedder())


def calls_of(files: Path, index: Path) -> int:
    """Of an update of a copy."""
    with TemporaryDirectory() as folder:
        copy = Path(folder, "index")
        shutil.copytree(index, copy)
        return counted(partial(update, files, copy), WRITERS)


def main(files: Path, index: Path) -> None:
    rerankd.search.embedding.BATCH = BATCH
    work = partial(update, files, index)
    for line in sys.stdin:
        kind, number = line.split()
        if kind == "bytes":
            print(torn(work, int(number)), flush=True)
        else:
            print(stopped(work, WRITERS, math.ceil(float(number) * calls_of(files, index))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
