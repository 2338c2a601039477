"""A document compressor for LangChain: `pip install 'rerankd[langchain]'`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import AfterValidator

from rerankd.integrations.ranked import aranked, checked_ranker, ranked
from rerankd.types import Score


class RerankdCompressor(BaseDocumentCompressor):
    """Orders documents by relevance; each gets its score as `metadata["relevance_score"]`.

        compressor = RerankdCompressor(client=Client("http://127.0.0.1:8000"), top_n=3)
        compressor.compress_documents(documents, "capital of China?")

    As `base_compressor` of a `ContextualCompressionRetriever` it reranks what a retriever finds.
    """

    client: Annotated[Any, AfterValidator(checked_ranker)]
    """A `rerankd.Client`, an `AsyncClient`, a `Reranker` (a model in this process), or any ranker."""

    top_n: int | None = 3
    """How many documents are kept, None for all."""

    instruct: str | None = None
    """The sorting task, None for the default."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Copies of the best documents, best first. An `AsyncClient` needs `acompress_documents`."""
        texts = [document.page_content for document in documents]
        return _kept(documents, ranked(self.client, query, texts, self.top_n, self.instruct))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """`compress_documents` for asyncio. A `Client` works on another thread."""
        texts = [document.page_content for document in documents]
        return _kept(documents, await aranked(self.client, query, texts, self.top_n, self.instruct))


def _kept(documents: Sequence[Document], results: Sequence[Score]) -> list[Document]:
    """The documents of the results, with their scores."""
    return [
        documents[result.index].model_copy(
            update={"metadata": {**documents[result.index].metadata, "relevance_score": result.score}}
        )
        for result in results
    ]
