"""XQuAD as a test collection in BEIR's layout: does the paragraph, or the article, that answers a question come first?

    python benchmarks/xquad.py FOLDER xquad-en --language en       # FOLDER has xquad.en.json of google-deepmind/xquad
    rerankd eval xquad-en --models embedded --html report.html     # BM25, the model, and a report

The questions are divided in two halves, by turns: `--split test`, and `--split fit` for what is fitted first, such as a
calibration.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SPLITS = ("test", "fit")


def write(source: Path, folder: Path, *, articles: bool = False) -> None:
    """Writes the folder. articles: each one is a document whole, in place of its paragraphs."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    corpus: list[dict[str, str]] = []
    queries: list[dict[str, str]] = []
    qrels: dict[str, list[str]] = {split: ["query-id\tcorpus-id\tscore"] for split in SPLITS}
    data = [article["paragraphs"] for article in json.loads(source.read_text("utf-8"))["data"]]
    documents = data if articles else [[paragraph] for article in data for paragraph in article]
    for number, paragraphs in enumerate(documents):
        text = "\n\n".join(paragraph["context"] for paragraph in paragraphs)
        corpus.append({"_id": f"p{number}", "title": "", "text": text})
        for question in (asked for paragraph in paragraphs for asked in paragraph["qas"]):
            qid = f"q{len(queries)}"
            qrels[SPLITS[len(queries) % len(SPLITS)]].append(f"{qid}\tp{number}\t1")
            queries.append({"_id": qid, "text": question["question"]})
    for name, rows in (("corpus", corpus), ("queries", queries)):
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, "utf-8")
    for split, lines in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--articles", action="store_true", help="whole articles are the documents, not paragraphs")
    options = parser.parse_args()
    write(options.folder / f"xquad.{options.language}.json", options.output, articles=options.articles)


if __name__ == "__main__":
    main()
