"""What a small first model keeps for a large second one: XQuAD's paragraphs, ranked by the embedded model.

    python benchmarks/cascade.py FOLDER --questions 50      # with xquad.{en,de,zh,ar}.json of google-deepmind/xquad

Of each question 100 candidates: the paragraph that answers it, and the 99 after its article. A column is the share of
questions whose paragraph is among the first k: the most that a second model over k documents can put first. What it
saves is `rerankd bench --random-weights 0.6B --workload 100x150 30x150 --dtype bfloat16`, the time of both.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from passages import LANGUAGES, read

from rerankd import Reranker

TOPS = (1, 5, 10, 20, 30, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=50, help="of each language, evenly spaced")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--languages", nargs="+", default=LANGUAGES)
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}; {args.questions} questions of {args.candidates} candidates")
    print("  ".join(f"{name:>8}" for name in ("language", *(f"top {top}" for top in TOPS), "s a call")))
    with Reranker("embedded") as reranker:
        for language in args.languages:
            paragraphs, questions = read(args.folder / f"xquad.{language}.json")
            places, started = [], time.process_time()
            for number in range(args.questions):
                question, answer = questions[number * len(questions) // args.questions]
                others = [paragraphs[(answer + 5 + at) % len(paragraphs)] for at in range(args.candidates - 1)]
                ranking = reranker.rank(question, [*others, paragraphs[answer]])
                places.append([score.index for score in ranking].index(args.candidates - 1))
            shares = (f"{sum(place < top for place in places) / len(places):.0%}" for top in TOPS)
            seconds = f"{(time.process_time() - started) / args.questions:.2f}"
            print("  ".join(f"{cell:>8}" for cell in (language, *shares, seconds)), flush=True)


if __name__ == "__main__":
    main()
