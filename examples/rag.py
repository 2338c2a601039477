"""Retrieve candidates from a vector store, rerank them, and build the prompt of a language model.

pip install -r examples/requirements-rag.txt
RERANKD_URL=http://127.0.0.1:8000 python examples/rag.py
"""

from __future__ import annotations

import hashlib

import numpy as np
from usearch.index import Index

from rerankd import Client

QUESTION = "How can I cancel an order?"
PASSAGES = [
    "Orders are delivered within three days.",
    "To cancel an order, open My orders and choose Cancel.",
    "An order that has been shipped can be returned within 30 days.",
    "Our office is in Berlin.",
    "We accept cards, bank transfers and vouchers.",
]
DIMENSIONS = 256


def embed(text: str) -> np.ndarray:
    """Counts of character trigrams, hashed: stands in for an embedding model, so that the example needs none."""
    counts = np.zeros(DIMENSIONS, dtype=np.float32)
    padded = f"  {text.lower()}  "
    for start in range(len(padded) - 2):
        digest = hashlib.blake2b(padded[start : start + 3].encode(), digest_size=2).digest()
        counts[int.from_bytes(digest) % DIMENSIONS] += 1
    return counts


def main() -> None:
    store = Index(ndim=DIMENSIONS, metric="cos")
    store.add(np.arange(len(PASSAGES)), np.stack([embed(text) for text in PASSAGES]))
    candidates = [PASSAGES[key] for key in store.search(embed(QUESTION), 4).keys]
    with Client() as client:
        ranking = client.rank(QUESTION, candidates, top_n=2)
    context = "\n".join(f"[{number}] {result.document}" for number, result in enumerate(ranking, start=1))
    print(f"Answer from these passages only:\n{context}\n\nQuestion: {QUESTION}")


if __name__ == "__main__":
    main()
