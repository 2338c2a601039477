"""The memory and time of large corpora and runs.

    python benchmarks/corpus.py                                      # 100,000 and 1,000,000 documents, 100,000 pairs
    python benchmarks/corpus.py --documents 1000000 --first          # and the index of the first stage
    python benchmarks/corpus.py --documents 1000000 --queries 10000  # a run of 1,000,000 pairs
    python benchmarks/corpus.py --documents 1000000 --search         # in place of a run, the index of rerankd search

A run has 100 candidates a query; documents have 40 words. The scorer is a function, so that the figures are of the
files. Each size runs in a process of its own: its memory before the first pair is scored, and the largest one. Times
are of the processor.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from rerankd import Index
from rerankd.jobs.job import Job, Plan, Progress
from rerankd.runs.run import Candidate, Run
from rerankd.runs.texts import Query, documents_of
from rerankd.search.corpus import CorpusIndex
from rerankd.testing import FakeRanker

DEPTH, WORDS = 100, 40
ASKED = "word1 word2"


def write(path: Path, documents: int) -> None:
    """Documents of random words."""
    chance = random.Random(0)
    words = [f"word{number}" for number in range(20_000)]
    with path.open("w") as file:
        for number in range(documents):
            file.write(json.dumps({"_id": f"d{number}", "title": "", "text": " ".join(chance.choices(words, k=WORDS))}))
            file.write("\n")


def peak_mb() -> float:
    """The largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: Path, documents: int, queries: int, *, first: bool) -> None:
    """Runs one job and prints a row."""
    corpus, chance, begun = [folder / "corpus.jsonl"], random.Random(1), time.process_time()
    if first:
        CorpusIndex.built(folder / "index", documents_of(corpus))
    indexed = time.process_time()
    ranked = {
        f"q{q}": tuple(Candidate(f"d{d}", -rank) for rank, d in enumerate(chance.sample(range(documents), DEPTH)))
        for q in range(queries)
    }
    plan = Plan((), {"name": "fake"}, None, DEPTH, skip_missing=False)
    job = Job(folder / "out.jsonl", plan, Run("r", ranked), {qid: Query(ASKED) for qid in ranked})
    ranker, before = FakeRanker(lambda query, document: len(document) % 100 / 100), list[float]()

    def report(progress: Progress) -> None:
        ranker.calls.clear()
        if not before:
            before.append(peak_mb())

    job.score(ranker, partial(documents_of, corpus), report)
    seconds = indexed - begun, time.process_time() - indexed
    print(f"{documents:>12,}{queries * DEPTH:>12,}{seconds[0]:>10.1f}{seconds[1]:>11.1f}", end="")
    print(f"{before[0]:>12.0f}{peak_mb():>9.0f}", flush=True)


def measure_search(folder: Path, documents: int) -> None:
    """Indexes the corpus for search, updates the index and asks it, and prints a row."""
    path, before = folder / "corpus.jsonl", peak_mb()
    times = [time.process_time()]
    index = Index(path, folder=folder / "index")
    assert index.last_update.records == documents
    times.append(time.process_time())
    with path.open("a") as file:
        file.write(json.dumps({"_id": "new", "text": ASKED}) + "\n")
    index.update()
    assert index.last_update.records == 1
    times.append(time.process_time())
    assert index.search(ASKED, DEPTH)[0].id == "new"
    times.append(time.process_time())
    steps = [after - earlier for earlier, after in pairwise(times)]
    disk = sum(file.stat().st_size for file in (folder / "index").rglob("*") if file.is_file()) / 1e6
    print(f"{documents:>12,}{steps[0]:>10.1f}{steps[1]:>11.1f}{1000 * steps[2]:>12.1f}", end="")
    print(f"{before:>12.0f}{peak_mb():>9.0f}{disk:>9.0f}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--first", action="store_true")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder and options.search:
        measure_search(options.folder, options.documents[0])
        return
    if options.folder:
        measure(options.folder, options.documents[0], options.queries, first=options.first)
        return
    of_search = "   documents   index s   update s    query ms   before MB  peak MB  disk MB"
    of_runs = "   documents       pairs   index s   rerank s   before MB  peak MB"
    print(of_search if options.search else of_runs, flush=True)
    for documents in options.documents:
        with TemporaryDirectory() as folder:
            write(Path(folder) / "corpus.jsonl", documents)
            asked = ["--documents", str(documents), "--queries", str(options.queries), "--in", folder]
            asked += [f"--{name}" for name in ("first", "search") if getattr(options, name)]
            subprocess.run([sys.executable, __file__, *asked], check=True)


if __name__ == "__main__":
    main()
