"""First stages of search over XQuAD: what BM25, the embedded vectors and both find, in and across languages; and cost.

    python benchmarks/first_stage.py FOLDER                       # xquad.{en,de,zh,ar}.json of google-deepmind/xquad
    python benchmarks/first_stage.py FOLDER --embedder Qwen/Qwen3-Embedding-0.6B
    python benchmarks/first_stage.py FOLDER --passages 20000                   # time and memory
    python benchmarks/first_stage.py FOLDER --passages 100000 --random 1024    # the same without a model

Quality: each of the 240 paragraphs is a file, each third question is asked; the figure is the share of the questions
whose paragraph is among the first 10 files. Cost: passages of 110 to 160 words, each a part of its own, drawn from the
English paragraphs by frequency. Times are of the processor, in brackets of the clock. With `--random`, the vectors have
so many dimensions and no meaning: what storage and search cost, for any embedder.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerankd import Embedder, Hit, Index

LANGUAGES = ("en", "de", "zh", "ar")
STAGES = ("bm25", "dense", "hybrid")
EVERY, FIRST_FILES, DEPTH, QUERIES, IN_A_FILE = 3, 10, 100, 200, 100


class RandomEmbedder:
    """Vectors without a model: of standard normal numbers, from one seed."""

    name, digest, num_truncated = "random", "random", 0

    def __init__(self, dimensions: int) -> None:
        self.dimensions, self._chance = dimensions, np.random.default_rng(1)

    def queries(self, texts: Sequence[str], instruct: str | None = None) -> NDArray[np.float32]:
        return self.documents(texts)

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = self._chance.standard_normal((len(texts), self.dimensions), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def read(folder: Path, language: str) -> tuple[list[str], list[tuple[str, int]]]:
    """The paragraphs, and each question with the number of its paragraph."""
    data = json.loads((folder / f"xquad.{language}.json").read_text("utf-8"))["data"]
    paragraphs = [one for article in data for one in article["paragraphs"]]
    asked = [(question["question"], number) for number, one in enumerate(paragraphs) for question in one["qas"]]
    return [one["context"] for one in paragraphs], asked[::EVERY]


def quality(folder: Path, embedder: Embedder) -> None:
    """Prints a row for each language of the questions and of the paragraphs."""
    texts = {language: read(folder, language) for language in LANGUAGES}
    print(f"question → paragraphs{'':6}" + "".join(f"{stage:>9}" for stage in STAGES), flush=True)
    for corpus in LANGUAGES:
        with tempfile.TemporaryDirectory() as name:
            files = Path(name, "files")
            files.mkdir()
            for number, text in enumerate(texts[corpus][0]):
                (files / f"{number}.txt").write_text(text, "utf-8")
            index = Index(files, folder=Path(name, "index"), first="hybrid", embedder=embedder)
            for language in LANGUAGES:
                asked = texts[language][1]
                shares = [sum(is_found(index, *one, stage) for one in asked) / len(asked) for stage in STAGES]
                print(f"{language} → {corpus}{'':18}" + "".join(f"{share:9.3f}" for share in shares), flush=True)


def is_found(index: Index, question: str, number: int, stage: Any) -> bool:
    """Whether the paragraph is among the first files."""
    return f"{number}.txt" in first_files(index.search(question, DEPTH, first=stage))


def first_files(hits: Sequence[Hit]) -> list[str]:
    return list(dict.fromkeys(hit.path for hit in hits))[:FIRST_FILES]


def measured(work: Callable[[], Any]) -> tuple[str, Any]:
    """Seconds of the processor and of the clock, and the result."""
    processor, clock = time.process_time(), time.monotonic()
    result = work()
    return f"{time.process_time() - processor:.2f} s ({time.monotonic() - clock:.2f})", result


def cost(folder: Path, num_passages: int, embedder: Embedder | RandomEmbedder) -> None:
    """Prints the time to index and to search, and the memory."""
    words = " ".join(read(folder, "en")[0]).split()
    chance = random.Random(3)

    def passage(least: int, most: int) -> str:
        return " ".join(chance.choices(words, k=chance.randint(least, most)))

    with tempfile.TemporaryDirectory() as name:
        files, kept = Path(name, "files"), Path(name, "index")
        files.mkdir()
        for number in range(num_passages // IN_A_FILE):
            (files / f"{number}.txt").write_text("\n\n".join(passage(110, 160) for _ in range(IN_A_FILE)))
        queries = [passage(4, 9) for _ in range(QUERIES)]
        before = peak_mb()
        spent, index = measured(lambda: Index(files, folder=kept))
        print(f"{len(index):,} parts and files: bm25 index {spent}")
        spent, index = measured(lambda: Index(files, folder=kept, first="hybrid", embedder=embedder))
        print(f"vectors {spent}, of {index.last_update.embedded:,} texts")
        spent, index = measured(lambda: Index(files, folder=kept, first="hybrid", embedder=embedder))
        print(f"unchanged {spent}")
        for stage in STAGES:
            spent, _ = measured(partial(search_all, index, queries, stage))
            print(f"{QUERIES} queries, {stage}: {spent}", flush=True)
        sizes = {path.name: path.stat().st_size for path in (kept / "vectors").iterdir()}
        print(f"peak memory {before:.0f} → {peak_mb():.0f} MB, vectors on disk {sum(sizes.values()) / 1e6:.0f} MB")


def search_all(index: Index, queries: Sequence[str], stage: Any) -> None:
    for query in queries:
        index.search(query, DEPTH, first=stage)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--embedder", default="embedded")
    parser.add_argument("--passages", type=int)
    parser.add_argument("--random", type=int, metavar="DIMENSIONS")
    options = parser.parse_args()
    if options.passages:
        embedder = RandomEmbedder(options.random) if options.random else Embedder(options.embedder)
        cost(options.folder, options.passages, embedder)
    else:
        quality(options.folder, Embedder(options.embedder))


if __name__ == "__main__":
    main()
