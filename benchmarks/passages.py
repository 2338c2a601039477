"""Where in a long document an answer may stand: the embedded model with and without passages, on XQuAD.

    python benchmarks/passages.py FOLDER --only-passages     # with xquad.{en,de,zh,ar}.json of google-deepmind/xquad
    python benchmarks/passages.py FOLDER --questions 50 --others 80 --minutes 30

A document is the paragraph that answers a question among 40 others, at a depth from 0 to 100 %. `passage`: the best
passage overlaps the paragraph. `alone`: the paragraph is first of the same paragraphs as documents of their own:
nothing is split, so it is what the model itself can do. `first`: the document comes before the same document without
the paragraph, with and without passages; without them, the model reads 8,190 tokens.
`--misses` shows each question whose best passage does not overlap the paragraph.
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
from rerankd.types import Score

LANGUAGES = ("en", "de", "zh", "ar")
DEPTHS = (0, 25, 50, 75, 100)


@dataclass(frozen=True)
class Placed:
    """A document with the paragraph that answers, and where; the same document without it; its paragraphs."""

    document: str
    start: int
    end: int
    other: str
    paragraphs: Sequence[str]


def read(file: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """The paragraphs of one of XQuAD's files, and each question with the index of the paragraph that answers it."""
    paragraphs: list[str] = []
    questions: list[tuple[str, int]] = []
    for article in json.loads(file.read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            questions += [(question["question"], len(paragraphs)) for question in paragraph["qas"]]
            paragraphs.append(paragraph["context"])
    return paragraphs, questions


def placed(answer: int, paragraphs: Sequence[str], depth: int, num_others: int) -> Placed:
    """Others are those that follow the article of the answer, in the file's order; an article has five paragraphs."""
    others = [paragraphs[(answer + 5 + number) % len(paragraphs)] for number in range(num_others)]
    before, after = others[: num_others * depth // 100], others[num_others * depth // 100 :]
    start = len("".join(f"{text}\n\n" for text in before))
    all_of_it = (*before, paragraphs[answer], *after)
    end = start + len(paragraphs[answer])
    return Placed("\n\n".join(all_of_it), start, end, "\n\n".join(others), (paragraphs[answer], *others))


def chosen(questions: Sequence[tuple[str, int]], number: int) -> list[tuple[int, list[str]]]:
    """Paragraphs, evenly spaced, each with all its questions: its documents are read once for all of them.

    number: of questions, at least; as many paragraphs as that takes.
    """
    of_paragraph: dict[int, list[str]] = {}
    for question, answer in questions:
        of_paragraph.setdefault(answer, []).append(question)
    places = list(of_paragraph)
    for count in range(1, len(places) + 1):
        some = [places[at * len(places) // count] for at in range(count)]
        if sum(len(of_paragraph[answer]) for answer in some) >= number:
            break
    return [(answer, of_paragraph[answer]) for answer in some]


def overlaps(score: Score, one: Placed) -> bool:
    """Whether the best passage has a part of the paragraph."""
    best = score.passages[0] if score.passages else None
    return best is not None and best.start < one.end and one.start < best.end


class Tally:
    """What was found in one language."""

    def __init__(self, reranker: Reranker, language: str, args: argparse.Namespace) -> None:
        self.reranker, self.language, self.args = reranker, language, args
        self.found = {depth: Counter[str]() for depth in DEPTHS}
        self.done = self.alone = 0

    def add(self, question: str, some: Sequence[Placed]) -> None:
        """A question, and its documents by depth."""
        paragraphs = some[0].paragraphs
        self.alone += self.reranker.rank(question, paragraphs)[0].index == 0
        kinds = (Passages(self.args.tokens, max_per_doc=1000), *(() if self.args.only_passages else (False,)))
        for passages in kinds:
            # The document without the paragraph is the same at every depth.
            ranking = self.reranker.rank(question, [some[0].other, *(one.document for one in some)], passages=passages)
            other, *scores = ranking.scores
            for depth, one, score in zip(DEPTHS, some, scores, strict=True):
                self.found[depth]["first" if passages else "without"] += score.raw_score > other.raw_score
                if passages:
                    self.found[depth]["passage"] += overlaps(score, one)
                    self._show_miss(question, depth, one, score)
        self.done += 1

    def _show_miss(self, question: str, depth: int, one: Placed, score: Score) -> None:
        if not self.args.misses or overlaps(score, one):
            return
        best = score.passages[0]
        print(f"{self.language} {depth} % {question!r}: {best.logit:.2f} for {one.document[best.start : best.end]!r}")
        right = [passage for passage in score.passages if passage.start < one.end and one.start < passage.end]
        logits = ", ".join(f"{passage.logit:.2f}" for passage in right)
        print(f"    the paragraph: {logits}; {one.document[one.start : one.end]!r}", flush=True)

    def show(self) -> None:
        """A row for each depth."""
        asked = max(1, self.done)
        for depth, counts in self.found.items():
            shares = [f"{counts[name] / asked:.1%}" for name in ("passage", "first", "without")]
            shares[2:] = [] if self.args.only_passages else shares[2:]
            cells = (self.language, f"{depth} %", *shares, f"{self.alone / asked:.1%}", str(self.done))
            print("  ".join(f"{cell:>11}" for cell in cells), flush=True)


def measure(reranker: Reranker, language: str, args: argparse.Namespace) -> None:
    """Prints a row of the table for each depth."""
    paragraphs, questions = read(args.folder / f"xquad.{language}.json")
    tally = Tally(reranker, language, args)
    groups = chosen(questions, args.questions)
    for answer, some_questions in random.Random(0).sample(groups, len(groups)):  # so that any part is spread
        some = [placed(answer, paragraphs, depth, args.others) for depth in DEPTHS]
        for question in some_questions:
            if time.monotonic() < args.until:
                tally.add(question, some)
    tally.show()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=200, help="of each language and depth, at least")
    parser.add_argument("--others", type=int, default=40, help="paragraphs beside the one that answers")
    parser.add_argument("--tokens", type=int, default=256, help="of a passage")
    parser.add_argument("--minutes", type=float, default=60, help="bound of the whole run, shared by the languages")
    parser.add_argument("--languages", nargs="+", default=LANGUAGES)
    parser.add_argument("--only-passages", action="store_true", help="not the same without passages")
    parser.add_argument("--misses", action="store_true")
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}; {args.questions} questions, {args.others} others, {args.tokens} tokens")
    names = ["language", "depth", "passage", "first", "no passages", "alone", "questions"]
    if args.only_passages:
        names.remove("no passages")
    print("  ".join(f"{name:>11}" for name in names))
    with Reranker("embedded") as reranker:
        for language in args.languages:
            args.until = time.monotonic() + args.minutes * 60 / len(args.languages)
            measure(reranker, language, args)


if __name__ == "__main__":
    main()
