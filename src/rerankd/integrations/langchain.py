"""A document compressor for LangChain: `pip install 'rerankd[langchain]'`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document

from rerankd.integrations.ranked import ranked


class RerankdCompressor(BaseDocumentCompressor):
    """Orders documents by relevance; each gets its score as `metadata["relevance_score"]`.

        compressor = RerankdCompressor(client=Client("http://127.0.0.1:8000"), top_n=3)
        compressor.compress_documents(documents, "capital of China?")

    As `base_compressor` of a `ContextualCompressionRetriever` it reranks what a retriever finds.
    """

    client: Any
    """A `rerankd.Client`, or a `rerankd.Reranker` for a model in this process."""

    top_n: int | None = 3
    """How many documents are kept, None for all."""

    instruct: str | None = None
    """The sorting task, None for the default."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best documents first, as copies."""
        texts = [document.page_content for document in documents]
        kept = []
        for result in ranked(self.client, query, texts, self.top_n, self.instruct):
            document = documents[result.index]
            metadata = {**document.metadata, "relevance_score": result.score}
            kept.append(document.model_copy(update={"metadata": metadata}))
        return kept
