"""A ranker for Haystack: `pip install 'rerankd[haystack]'`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from haystack import Document, component
from haystack.utils import Secret

from rerankd.client.async_client import AsyncClient
from rerankd.client.client import Client
from rerankd.client.dialects import DialectName
from rerankd.integrations.ranked import aranked, ranked
from rerankd.types import Score

KEY_OF_ENVIRONMENT = Secret.from_env_var("RERANKD_API_KEY", strict=False)
"""No key if the variable is not set."""


@component
class RerankdRanker:
    """Orders documents by relevance to a query; the score of each is replaced.

        ranker = RerankdRanker("http://127.0.0.1:8000", top_k=3)
        ranker.run(query="capital of China?", documents=documents)["documents"]

    A stored pipeline is loaded with `allowed_modules=["rerankd.integrations.haystack"]`.

    Args:
        base_url, dialect, model: see `rerankd.Client`.
        api_key: stored in a pipeline's YAML as the name of its environment variable.
        top_k: how many documents are kept, None for all.
        instruct: the sorting task, None for the default.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: Secret | None = KEY_OF_ENVIRONMENT,
        dialect: DialectName = "auto",
        model: str | None = None,
        top_k: int | None = None,
        instruct: str | None = None,
    ) -> None:
        self.base_url = base_url
        self.api_key = api_key
        self.dialect = dialect
        self.model = model
        self.top_k = top_k
        self.instruct = instruct
        self._client: Client | None = None
        self._async_client: AsyncClient | None = None

    def warm_up(self) -> None:
        """Reads the key. The first call makes the connections."""
        if self._client is None:
            self._client = Client(self.base_url, self._key(), dialect=self.dialect, model=self.model)

    def close(self) -> None:
        """Closes the connections. The next call makes new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def close_async(self) -> None:
        """`close` for the connections of `run_async`, in the event loop that made them."""
        if self._async_client is not None:
            await self._async_client.close()
            self._async_client = None

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Copies of the best documents, best first. top_k: replaces the component's."""
        self.warm_up()
        assert self._client is not None
        top_n = self.top_k if top_k is None else top_k
        return _kept(documents, ranked(self._client, query, _texts(documents), top_n, self.instruct))

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The same for an `AsyncPipeline`."""
        if self._async_client is None:
            self._async_client = AsyncClient(self.base_url, self._key(), dialect=self.dialect, model=self.model)
        top_n = self.top_k if top_k is None else top_k
        return _kept(documents, await aranked(self._async_client, query, _texts(documents), top_n, self.instruct))

    def _key(self) -> str | None:
        return self.api_key.resolve_value() if self.api_key else None


def _texts(documents: list[Document]) -> list[str]:
    return [document.content or "" for document in documents]


def _kept(documents: list[Document], results: Sequence[Score]) -> dict[str, list[Document]]:
    """The documents of the results, with their scores."""
    return {"documents": [replace(documents[result.index], score=result.score) for result in results]}
