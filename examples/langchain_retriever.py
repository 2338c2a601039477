"""Rerank the documents of a LangChain retriever.

pip install '.[langchain]'
RERANKD_URL=http://127.0.0.1:8000 python examples/langchain_retriever.py
"""

from __future__ import annotations

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from rerankd import Client
from rerankd.integrations.langchain import RerankdCompressor

QUESTION = "What is the capital of China?"
TEXTS = [
    "Gravity is a force.",
    "Paris is the capital of France.",
    "Beijing is the capital of China.",
    "China exports tea.",
]


class SharedWords(BaseRetriever):
    """Retrieves the documents that share a word with the query; replace it by your vector store's retriever."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        words = set(query.lower().strip("?").split())
        return [document for document in self.documents if words & set(document.page_content.lower().split())]


def main() -> None:
    retriever = SharedWords(documents=[Document(text) for text in TEXTS])
    with Client() as client:
        compressor = RerankdCompressor(client=client, top_n=2)
        best = compressor.compress_documents(retriever.invoke(QUESTION), QUESTION)
    for document in best:
        print(f"{document.metadata['relevance_score']:.4f}  {document.page_content}")


if __name__ == "__main__":
    main()
