"""`rerankd search` over a manual: ten questions, and the place of the right page.

    apt-get download python3.11-doc && dpkg -x python3.11-doc_*.deb doc
    python benchmarks/manual.py doc/usr/share/doc/python3.11/html

The questions and their pages were written before the first search. Each is found by BM25 (`--first hybrid` or `dense`
for vectors, too) and ranked by the embedded model, as `rerankd search` shows it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from rerankd import Index, Reranker
from rerankd.search.order import shown_order

QUESTIONS = {
    "how do I read a JSON file into a dictionary?": ("library/json",),
    "make a command line option that is a flag": (
        *("library/argparse", "howto/argparse"),
        *("library/optparse", "library/getopt"),
    ),
    "run a program and capture what it prints": ("library/subprocess", "library/asyncio-subprocess"),
    "remove a directory with everything in it": ("library/shutil",),
    "count how often each word occurs in a list": ("library/collections",),
    "wait for several coroutines at the same time": ("library/asyncio-task",),
    "round a decimal number half up for money": ("library/decimal",),
    "what does the walrus operator do?": ("reference/expressions", "whatsnew/3.8"),
    "send an e-mail over SMTP with TLS": ("library/smtplib", "library/email.examples"),
    "generate a random password that is safe": ("library/secrets",),
}
DEPTH, FIRST = 50, 3


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", choices=("bm25", "dense", "hybrid"), default="bm25")
    options = parser.parse_args()
    good = 0
    with Reranker("embedded") as reranker, TemporaryDirectory() as kept:
        index = Index(options.folder, folder=kept, include=["*.html"], first=options.first)
        print(f"{index.last_update.added:,} pages, {len(index) - index.last_update.added:,} parts")
        for question, right in QUESTIONS.items():
            hits = index.search(question, DEPTH)
            ranking = reranker.rank(question, [hit.document for hit in hits])
            order = shown_order([one.index for one in ranking], [hit.whole for hit in hits], ranking.model or "")
            pages = list(dict.fromkeys(hits[place].path.removesuffix(".html") for place in order))
            place = next((place for place, page in enumerate(pages, 1) if page in right), None)
            good += place is not None and place <= FIRST
            print(f"{place or '-':>4}  {question}  {', '.join(pages[:FIRST])}")
    print(f"{good} of {len(QUESTIONS)} in the first {FIRST}")


if __name__ == "__main__":
    main()
