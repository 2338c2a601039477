"""Rerank a JSON Lines file with a model in this process, without a server.

    python examples/rank_file.py queries.jsonl > ranked.jsonl
    python examples/rank_file.py queries.jsonl --model Qwen/Qwen3-Reranker-4B

A line of the input is {"query": "…", "documents": ["…", "…"]}. A line of the output has the query, the indices of the
documents, best first, and their scores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rerankd import Reranker


def main() -> None:
    parser = argparse.ArgumentParser(description="Rerank a JSON Lines file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default="auto")
    arguments = parser.parse_args()
    with Reranker(arguments.model) as reranker, arguments.file.open(encoding="utf-8") as lines:
        for line in lines:
            call = json.loads(line)
            ranking = reranker.rank(call["query"], call["documents"])
            order = {"indices": [result.index for result in ranking], "scores": [result.score for result in ranking]}
            print(json.dumps({"query": call["query"], **order}, ensure_ascii=False))


if __name__ == "__main__":
    main()
