"""A small job that is killed at a moment of its work with files.

    PYTHONPATH=src:tests python -m support.stopped_job FOLDER

reads a line for each run of the job from stdin, `OUT AT`, and answers with its status; AT 0 lets it end and answers
with the number of its moments. What is scored stands in `OUT.scored`.
"""

from __future__ import annotations

import sys
import zlib
from functools import partial
from pathlib import Path

import rerankd
from rerankd.jobs.job import Job, Plan
from rerankd.runs.run import Candidate, Run
from rerankd.runs.texts import Query
from rerankd.testing import FakeRanker
from rerankd.types import Passages
from support.killing import counted, stopped
from support.splitting import SplittingRanker

SOURCE = Path(rerankd.__file__).parent
PLACES = ("disk", *(f"jobs/{name}" for name in ("job", "journal", "store")))
PLACES = (*PLACES, *(f"runs/{name}" for name in ("about", "replaced", "written")))
FILES = {str(SOURCE / f"{place}.py") for place in PLACES}

QUERIES, DOCUMENTS = 6, 3
TEXTS = {f"d{number}": f"Text number {number} is short. It has a second sentence. " * 3 for number in range(9)}
PASSAGES = "passages"
"""In the name of a result: documents are split."""


def run_job(folder: Path, out: str) -> None:
    """Begins or continues the job that writes this file."""
    ranked = {
        f"q{query}": tuple(Candidate(f"d{query + place}", -place) for place in range(DOCUMENTS))
        for query in range(QUERIES)
    }
    with (folder / f"{out}.scored").open("a", buffering=1) as scored:

        def score(query: str, document: str) -> float:
            scored.write(f"{query}\n")
            return zlib.crc32(f"{query} {document}".encode()) / 2**32

        is_split = PASSAGES in out
        plan = Plan((), {"name": "fake"}, None, DOCUMENTS, False, passages=Passages(16, 0) if is_split else None)
        job = Job(folder / out, plan, Run("run", ranked), {qid: Query(qid) for qid in ranked}, at_once=2)
        job.score(SplittingRanker(score) if is_split else FakeRanker(score), lambda ids: TEXTS.items())


def main(folder: Path) -> None:
    for line in sys.stdin:
        out, at = line.split()
        work = partial(run_job, folder, out)
        print(stopped(work, FILES, int(at)) if int(at) else counted(work, FILES), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
