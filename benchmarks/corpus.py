"""The memory of a rerank over a large corpus: 1,000 queries with 100 candidates each, over corpora of two sizes.

    python benchmarks/corpus.py                        # 100,000 and 1,000,000 documents of 40 words
    python benchmarks/corpus.py --documents 1000000 --first

The scorer is a function, so that the figures are of the files. `--first` also indexes the corpus for BM25. Each size
runs in a process of its own, whose largest memory is printed.
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
from pathlib import Path
from tempfile import TemporaryDirectory

from rerankd.jobs.job import Job, Plan
from rerankd.runs.run import Candidate, Run
from rerankd.runs.texts import Query, documents_of
from rerankd.search.corpus import CorpusIndex
from rerankd.testing import FakeRanker

QUERIES, DEPTH, WORDS = 1_000, 100, 40


def write(path: Path, documents: int) -> None:
    """Documents of random words."""
    chance = random.Random(0)
    words = [f"word{number}" for number in range(20_000)]
    with path.open("w") as file:
        for number in range(documents):
            file.write(json.dumps({"_id": f"d{number}", "title": "", "text": " ".join(chance.choices(words, k=WORDS))}))
            file.write("\n")


def measure(folder: Path, documents: int, *, first: bool) -> None:
    """Runs one job and prints a row."""
    corpus, chance, begun = [folder / "corpus.jsonl"], random.Random(1), time.monotonic()
    if first:
        CorpusIndex.built(folder / "index", documents_of(corpus))
    indexed = time.monotonic()
    ranked = {
        f"q{q}": tuple(Candidate(f"d{d}", -rank) for rank, d in enumerate(chance.sample(range(documents), DEPTH)))
        for q in range(QUERIES)
    }
    plan = Plan((), {"name": "fake"}, None, DEPTH, skip_missing=False)
    job = Job(folder / "out.jsonl", plan, Run("r", ranked), {qid: Query("word1 word2") for qid in ranked})
    job.score(FakeRanker(), partial(documents_of, corpus))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{documents:>12,}{indexed - begun:>12.1f}{time.monotonic() - indexed:>12.1f}{peak:>12.0f}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--first", action="store_true")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        measure(options.folder, options.documents[0], first=options.first)
        return
    print("   documents   index s   rerank s     peak MB", flush=True)
    for documents in options.documents:
        with TemporaryDirectory() as folder:
            write(Path(folder) / "corpus.jsonl", documents)
            asked = ["--documents", str(documents), "--in", folder, *(["--first"] if options.first else [])]
            subprocess.run([sys.executable, __file__, *asked], check=True)


if __name__ == "__main__":
    main()
