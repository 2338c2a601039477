"""`rerankd search` beside bm25s on the same passages: time to index, time of a query, memory.

    pip install bm25s==0.3.16
    python benchmarks/search.py                        # 100,000 passages in 1,000 files, about 2 minutes
    python benchmarks/search.py --passages 10000

The passages have 60 to 100 words by Zipf's law, which one seed makes. Each library works in a process of its own, on
one thread: rerankd reads the files and keeps its index on disk, bm25s gets the passages from memory and keeps its index
there (k1 1.2, b 0.75 in both, the words as they are). Times are of the processor, in brackets of the clock. `alike` is
the share of rerankd's first ten passages that have the score of bm25s' tenth, less 1 %: tantivy rounds lengths.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

IN_A_FILE, VOCABULARY, QUERIES, DEPTH = 100, 50_000, 200, 100
LIKE = 0.99


class Texts:
    """Words by Zipf's law."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        made = ("".join(self._chance.choices(letters, k=self._chance.randint(6, 11))) for _ in range(2 * VOCABULARY))
        self._words = list(dict.fromkeys(made))[:VOCABULARY]
        self._weights = list(accumulate(1 / place for place in range(1, VOCABULARY + 1)))

    def some(self, number: int) -> str:
        return " ".join(self._chance.choices(self._words, cum_weights=self._weights, k=number))

    def passage(self) -> str:
        return self.some(self._chance.randint(60, 100))

    def query(self) -> str:
        return " ".join(dict.fromkeys(self.some(self._chance.randint(1, 6)).split()))


def measured(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Processor seconds, seconds of the clock, and the result."""
    processor, clock = time.process_time(), time.monotonic()
    result = work()
    return time.process_time() - processor, time.monotonic() - clock, result


def of_rerankd(folder: Path, queries: Sequence[str]) -> Iterator[Any]:
    from rerankd import Index

    def opened() -> Index:
        return Index(folder / "files", folder=folder / "index")

    yield measured(opened)
    processor, clock, index = measured(opened)  # a second search looks at each file's size and time
    yield processor, clock, None
    yield measured(lambda: [[hit.text for hit in index.search(query, DEPTH)] for query in queries])


def of_bm25s(folder: Path, queries: Sequence[str]) -> Iterator[Any]:
    import bm25s

    texts = [text for file in sorted((folder / "files").iterdir()) for text in file.read_text().split("\n\n")]

    def built() -> Any:
        index = bm25s.BM25(k1=1.2, b=0.75)
        index.index(bm25s.tokenize(texts, stopwords=None, show_progress=False), show_progress=False)
        return index

    def searched() -> list[list[str]]:
        found = []
        for query in queries:
            tokens = bm25s.tokenize(query, stopwords=None, show_progress=False)
            places, scores = index.retrieve(tokens, k=DEPTH, show_progress=False, n_threads=1)
            found.append([texts[place] for place in places[0][scores[0] > LIKE * scores[0][9]]])
        return found

    processor, clock, index = measured(built)
    yield processor, clock, index
    yield measured(searched)


def write(folder: Path, num_passages: int) -> list[str]:
    """The files, and queries."""
    texts = Texts(7)
    (folder / "files").mkdir()
    for number in range(num_passages // IN_A_FILE):
        passages = "\n\n".join(texts.passage() for _ in range(IN_A_FILE))
        (folder / "files" / f"{number:06}.txt").write_text(passages)
    return [texts.query() for _ in range(QUERIES)]


def run_part(name: str, folder: Path) -> None:
    """Measures one library, and writes its figures and first passages."""
    queries = json.loads((folder / "queries.json").read_text())
    before = peak_mb()
    *steps, (processor, clock, found) = (of_rerankd if name == "rerankd" else of_bm25s)(folder, queries)
    figures = [f"index {steps[0][0]:.1f} s ({steps[0][1]:.1f})"]
    figures += [f"unchanged {one[0]:.2f} s ({one[1]:.2f})" for one in steps[1:]]
    figures.append(f"query {1000 * processor / len(queries):.2f} ms ({1000 * clock / len(queries):.2f})")
    figures.append(f"peak memory {before:.0f} → {peak_mb():.0f} MB")
    print(f"{name:8}", ", ".join(figures), flush=True)
    (folder / f"{name}.json").write_text(json.dumps(found))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--part", choices=["rerankd", "bm25s"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        run_part(args.part, args.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "queries.json").write_text(json.dumps(write(folder, args.passages)))
        for part in ("rerankd", "bm25s"):
            subprocess.run([sys.executable, __file__, "--part", part, "--folder", name], check=True, timeout=900)
        size = sum(file.stat().st_size for file in (folder / "index").rglob("*") if file.is_file())
        ours, theirs = (json.loads((folder / f"{part}.json").read_text()) for part in ("rerankd", "bm25s"))
        alike = [text in set(other) for one, other in zip(ours, theirs, strict=True) for text in one[:10]]
        print(f"index on disk {size / 1e6:.0f} MB, alike {100 * sum(alike) / len(alike):.1f} %")


if __name__ == "__main__":
    main()
