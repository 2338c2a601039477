"""A job that is killed again and again, at random moments.

    PYTHONPATH=tests python -m support.killed_job KILLS FOLDER [--passages]

The scorer is a function, so that a start takes a third of a second; everything about files is the real thing. A job
whose result is named `…-passages.jsonl` splits its documents.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from functools import partial
from pathlib import Path

from rerankd.jobs.job import Job, Plan
from rerankd.runs.run import read_run
from rerankd.runs.texts import documents_of, read_queries
from rerankd.testing import FakeRanker
from rerankd.types import Passages
from support.splitting import SplittingRanker

QUERIES, DOCUMENTS = 300, 12
PASSAGES, PASSAGE_WORDS = "-passages", 20


def write_inputs(folder: Path) -> None:
    """A run, its queries and its corpus, in some of the formats."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"q{q} Q0 d{(7 * q + d) % 900} {d} {-d} bm25\n" for q in range(QUERIES) for d in range(DOCUMENTS)]
    (folder / "run.trec").write_text("".join(lines))
    (folder / "queries.tsv").write_text("".join(f"q{q}\tquery number {q}\n" for q in range(QUERIES)))
    documents = (json.dumps({"_id": f"d{d}", "title": f"Title {d}", "text": f"text {d} " * 20}) for d in range(1000))
    (folder / "corpus.jsonl").write_text("\n".join(documents))


def job(folder: Path, out: str) -> Job:
    """The job that writes this file."""
    passages = Passages(PASSAGE_WORDS, 0) if PASSAGES in out else None
    plan = Plan((), {"name": "fake"}, None, DOCUMENTS, skip_missing=False, passages=passages)
    return Job(folder / out, plan, read_run(folder / "run.trec"), read_queries([folder / "queries.tsv"]), at_once=4)


def score(folder: Path, out: str) -> None:
    """Runs or resumes the job in this process, and counts each scored pair in a file."""
    with (folder / f"{out}.scored").open("a", buffering=1) as counted:

        def counting(query: str, document: str) -> float:
            counted.write(f"{query}|{document}\n")
            time.sleep(0.001)
            return zlib.crc32(f"{query} {document}".encode()) / 2**32

        ranker = SplittingRanker(counting) if PASSAGES in out else FakeRanker(counting)
        job(folder, out).score(ranker, partial(documents_of, [folder / "corpus.jsonl"]))


def run_killed(folder: Path, out: str, kills: int, seed: int = 0) -> int:
    """Starts the job again and again, and kills it after a random number of pairs; then lets it end.

    Returns:
        how often it was killed.
    """
    chance, killed = random.Random(seed), 0
    command = [sys.executable, "-m", "support.killed_job", "--score", str(folder), out]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths}
    for _ in range(kills):
        target = _num_scored(folder, out) + chance.randrange(QUERIES * DOCUMENTS // 6)
        with subprocess.Popen(command, env=environment) as process:
            while process.poll() is None and _num_scored(folder, out) < target:
                time.sleep(chance.random() / 100)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
        if (folder / out).exists():
            break
    if not (folder / out).exists():
        subprocess.run(command, env=environment, check=True)
    return killed


def _num_scored(folder: Path, out: str) -> int:
    path = folder / f"{out}.scored"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    if sys.argv[1] == "--score":
        score(Path(sys.argv[2]), sys.argv[3])
        return
    kills, folder, ending = int(sys.argv[1]), Path(sys.argv[2]), PASSAGES if "--passages" in sys.argv else ""
    write_inputs(folder)
    score(folder, f"undisturbed{ending}.jsonl")
    done = rounds = pairs = 0
    while done < kills:
        rounds += 1
        out = f"disturbed-{rounds}{ending}.jsonl"
        done += run_killed(folder, out, kills - done, seed=rounds)
        assert (folder / out).read_bytes() == (folder / f"undisturbed{ending}.jsonl").read_bytes()
        pairs += len((folder / f"{out}.scored").read_text().splitlines())
    whole = len((folder / f"undisturbed{ending}.jsonl.scored").read_text().splitlines())
    print(f"{done} kills over {rounds} jobs: every result byte-equal; {pairs / rounds:,.0f} texts scored a job")
    print(f"of {whole:,} that it has: what was in flight at a kill is scored again")


if __name__ == "__main__":
    main()
