"""Where in a long document an answer may stand: the embedded model with and without passages, on XQuAD.

    python benchmarks/passages.py FOLDER                     # with xquad.{en,de,zh,ar}.json of google-deepmind/xquad
    python benchmarks/passages.py FOLDER --questions 50 --others 80 --minutes 30

A document is the paragraph that answers a question among 40 others, at a depth from 0 to 100 %. `passage`: the best
passage overlaps the paragraph. `first`: the document comes before the same document without the paragraph, with and
without passages; without them, the model reads 8,190 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankd import Passages, Reranker

LANGUAGES = ("en", "de", "zh", "ar")
DEPTHS = (0, 25, 50, 75, 100)


@dataclass(frozen=True)
class Placed:
    """A question; a document with the paragraph that answers it, and where; the same document without it."""

    question: str
    document: str
    start: int
    end: int
    other: str


def read(file: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """The paragraphs of one of XQuAD's files, and each question with the index of the paragraph that answers it."""
    paragraphs: list[str] = []
    questions: list[tuple[str, int]] = []
    for article in json.loads(file.read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            questions += [(question["question"], len(paragraphs)) for question in paragraph["qas"]]
            paragraphs.append(paragraph["context"])
    return paragraphs, questions


def placed(question: str, answer: int, paragraphs: Sequence[str], depth: int, num_others: int) -> Placed:
    """Others are those that follow the article of the answer, in the file's order; an article has five paragraphs."""
    others = [paragraphs[(answer + 5 + number) % len(paragraphs)] for number in range(num_others)]
    before, after = others[: num_others * depth // 100], others[num_others * depth // 100 :]
    start = len("".join(f"{text}\n\n" for text in before))
    document = "\n\n".join((*before, paragraphs[answer], *after))
    return Placed(question, document, start, start + len(paragraphs[answer]), "\n\n".join(others))


def measure(reranker: Reranker, folder: Path, language: str, args: argparse.Namespace) -> None:
    """Prints a row of the table for each depth."""
    paragraphs, questions = read(folder / f"xquad.{language}.json")
    found = {depth: Counter[str]() for depth in DEPTHS}
    done = 0
    for number in random.Random(0).sample(range(args.questions), args.questions):  # so that any part is spread
        if time.monotonic() > args.until:
            break
        question, answer = questions[number * len(questions) // args.questions]
        some = [placed(question, answer, paragraphs, depth, args.others) for depth in DEPTHS]
        for passages in (Passages(args.tokens, max_per_doc=1000), False):
            # The document without the paragraph is the same at every depth.
            ranking = reranker.rank(question, [some[0].other, *(one.document for one in some)], passages=passages)
            other, *scores = ranking.scores
            for depth, one, score in zip(DEPTHS, some, scores, strict=True):
                best = score.passages[0] if score.passages else None
                found[depth]["passage"] += best is not None and best.start < one.end and one.start < best.end
                found[depth]["first" if passages else "without"] += score.raw_score > other.raw_score
        done += 1
    for depth, counts in found.items():
        shares = (f"{counts[name] / max(1, done):.1%}" for name in ("passage", "first", "without"))
        print("  ".join(f"{cell:>11}" for cell in (language, f"{depth} %", *shares, str(done))), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=20, help="of each language and depth, evenly spaced")
    parser.add_argument("--others", type=int, default=40, help="paragraphs beside the one that answers")
    parser.add_argument("--tokens", type=int, default=256, help="of a passage")
    parser.add_argument("--minutes", type=float, default=60, help="bound of the whole run, shared by the languages")
    parser.add_argument("--languages", nargs="+", default=LANGUAGES)
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}; {args.questions} questions, {args.others} others, {args.tokens} tokens")
    print("  ".join(f"{name:>11}" for name in ("language", "depth", "passage", "first", "no passages", "questions")))
    with Reranker("embedded") as reranker:
        for language in args.languages:
            args.until = time.monotonic() + args.minutes * 60 / len(args.languages)
            measure(reranker, args.folder, language, args)


if __name__ == "__main__":
    main()
