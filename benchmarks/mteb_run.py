"""A run of MTEB itself, through `rerankd.integrations.mteb`: does it find the figures that `rerankd eval` finds?

    pip install mteb
    python benchmarks/mteb_run.py xquad-en xquad-en-eval          # a BEIR folder, and the runs of rerankd eval over it

The task is made from the folder and from BM25's candidates, so that nothing is downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from rerankd import Reranker
from rerankd.evaluation.measures import Measures
from rerankd.integrations.mteb import RerankdCrossEncoder
from rerankd.runs.judgements import read_judgements
from rerankd.runs.run import read_run
from rerankd.runs.texts import documents_of, read_queries


def task_of(folder: Path, runs: Path) -> AbsTaskRetrieval:
    """The questions with judgements, and BM25's candidates of each."""
    judged = {qid: dict(grades) for qid, grades in read_judgements([folder / "qrels" / "test.tsv"]).items()}
    queries = read_queries([folder / "queries.jsonl"])
    first = read_run(runs / "bm25.trec").ranked
    corpus = [{"id": doc_id, "text": text, "title": ""} for doc_id, text in documents_of([folder / "corpus.jsonl"])]

    class Task(AbsTaskRetrieval):  # type: ignore[misc]  # MTEB is not among the development packages
        metadata = TaskMetadata(
            name="Folder", description="A folder.", reference=None, type="Reranking", category="t2t",
            modalities=["text"], eval_splits=["test"], eval_langs=["eng-Latn"], main_score="ndcg_at_10",
            dataset={"path": "none", "revision": "none"}, date=("2016-01-01", "2016-12-31"), domains=[],
            task_subtypes=[], license=None, annotations_creators=None, dialect=[], sample_creation=None,
            bibtex_citation="",
        )  # fmt: skip

        def load_data(self, *args: Any, **options: Any) -> None:
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_list(corpus),
                        "queries": Dataset.from_list([{"id": qid, "text": queries[qid].text} for qid in judged]),
                        "relevant_docs": judged,
                        "top_ranked": {qid: [one.doc_id for one in found] for qid, found in first.items()},
                    }
                }
            }
            self.data_loaded = True

    return Task()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", type=Path)
    options = parser.parse_args()
    with Reranker("embedded") as reranker:
        model = RerankdCrossEncoder(reranker, "rerankd/embedded")
        found = mteb.evaluate(model, task_of(options.folder, options.runs), cache=None, overwrite_strategy="always")
    print("MTEB   ", found.task_results[0].scores["test"][0]["ndcg_at_10"])
    judged = read_judgements([options.folder / "qrels" / "test.tsv"])
    ours = Measures(["nDCG@10"]).evaluate(read_run(options.runs / "embedded.jsonl").ranked, judged)
    print("rerankd", ours.means["nDCG@10"])


if __name__ == "__main__":
    main()
