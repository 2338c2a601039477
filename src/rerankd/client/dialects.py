"""How each rerank API is asked, and which one an address speaks. Knows no replies: `reply.py` reads them all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import httpx2

from rerankd.client.address import completed, folders_of, folders_of_path, is_complete, read_address, with_folders
from rerankd.errors import SettingsError

JSON = dict[str, Any]

DialectName = Literal[
    "auto",
    "vllm",
    "dashscope",
    "dashscope-compatible",
    "cohere",
    "jina",
    "voyage",
    "tei",
    "infinity",
    "sglang",
    "llamacpp",
    "mixedbread",
    "xinference",
    "nim",
]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API.

    path: of the API, from the server's root. bases: see `address.completed`. model, documents, top_n, instruct: what it
    calls these fields, None where it has none. constants: sent with every request. nested: the texts are under `input`,
    the options under `parameters`. wrapped: query and documents are objects with `text`. takes_blank: whether it scores
    a text without a letter; else it refuses the whole call for one. max_documents, max_tokens (query tokens ×
    documents + Σ document tokens): limits of one request.
    """

    path: str = "/v1/rerank"
    bases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    model: str | None = "model"
    documents: str = "documents"
    top_n: str | None = "top_n"
    instruct: str | None = None
    constants: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    nested: bool = False
    wrapped: bool = False
    takes_blank: bool = True
    max_documents: int | None = None
    max_tokens: int | None = None

    def body(
        self, query: str, documents: Sequence[str], *, top_n: int | None, instruct: str | None, model: str | None
    ) -> JSON:
        """A request. What is None is left out, for vLLM takes no null.

        An instruct is sent even where the API has none: rerankd reads `instruct` on every surface.
        """
        texts: JSON = {"query": query, self.documents: list(documents)}
        if self.wrapped:
            texts = {"query": {"text": query}, self.documents: [{"text": document} for document in documents]}
        options = dict(self.constants)
        if self.top_n and top_n is not None:
            options[self.top_n] = min(top_n, len(documents))  # some servers refuse more than there are
        if instruct is not None:
            options[self.instruct or "instruct"] = instruct
        name = {self.model: model} if self.model and model is not None else {}
        return {**name, "input": texts, "parameters": options} if self.nested else {**name, **texts, **options}


COMPATIBLE = ("/compatible-mode/v1", "/compatible-mode", "/compatible-api/v1", "/compatible-api")
"""The roots of DashScope's OpenAI-like APIs: chat is under the first, rerank under the third."""

# The text of the documents is never asked back: the caller has it.
NOT_ECHOED = MappingProxyType({"return_documents": False})

DIALECTS: Mapping[str, Dialect] = {
    "vllm": Dialect(instruct="instruction", constants=NOT_ECHOED),
    # https://help.aliyun.com/zh/model-studio/text-rerank-api
    "dashscope": Dialect(
        "/api/v1/services/rerank/text-rerank/text-rerank",
        {base: "/api/v1/services/rerank/text-rerank/text-rerank" for base in ("/v1", *COMPATIBLE)},
        instruct="instruct",
        constants=NOT_ECHOED,
        nested=True,
        max_documents=500,
        max_tokens=120_000,
    ),
    "dashscope-compatible": Dialect(
        "/compatible-api/v1/reranks",
        # Whoever resells it has it at /v1/reranks.
        {"/v1": "/v1/reranks"} | {base: "/compatible-api/v1/reranks" for base in COMPATIBLE},
        instruct="instruct",
        constants=NOT_ECHOED,
        max_documents=500,
        max_tokens=120_000,
    ),
    # https://docs.cohere.com/docs/reranking-best-practices recommends at most 1,000
    "cohere": Dialect(
        "/v2/rerank",
        {base: "/v2/rerank" for base in ("/v1", "/compatibility/v1")},
        takes_blank=False,
        max_documents=1000,
    ),
    "jina": Dialect(constants=NOT_ECHOED),
    # https://docs.voyageai.com/reference/reranker-api; 300,000 tokens for the older models, the newer take twice that
    "voyage": Dialect(
        top_n="top_k", constants={"truncation": True}, takes_blank=False, max_documents=1000, max_tokens=300_000
    ),
    # 32 is the default of --max-client-batch-size
    "tei": Dialect("/rerank", {"/v1": "/rerank"}, model=None, documents="texts", top_n=None, max_documents=32),
    # 2,048 is the default of INFINITY_MAX_CLIENT_BATCH_SIZE
    "infinity": Dialect("/rerank", max_documents=2048),
    "sglang": Dialect(instruct="instruct", constants=NOT_ECHOED, takes_blank=False),
    "llamacpp": Dialect("/v1/reranking"),
    "mixedbread": Dialect("/v1/reranking", documents="input", top_n="top_k"),
    "xinference": Dialect(),
    # https://docs.nvidia.com/nim/nemo-retriever/text-reranking/latest/reference.html
    "nim": Dialect(
        "/v1/ranking",
        documents="passages",
        top_n=None,
        constants={"truncate": "END"},
        wrapped=True,
        takes_blank=False,
        max_documents=512,
    ),
}

VENDORS: Mapping[str, tuple[str, ...]] = {
    "api.cohere.ai": ("cohere",),
    "api.cohere.com": ("cohere",),
    "api.jina.ai": ("jina",),
    "api.voyageai.com": ("voyage",),
    "ai.mongodb.com": ("voyage",),
    "api.mixedbread.com": ("mixedbread",),
}
"""The dialects of a hosted service, the usual one first. Each has one address there, whichever root is given."""

DASHSCOPE_HOST = re.compile(r"(.+\.)?dashscope[\w-]*(\.[\w-]+)*\.aliyuncs\.com|.+\.maas\.aliyuncs\.com")
"""DashScope's own hosts, regional and of workspaces; other services (PAI-EAS) are under aliyuncs.com, too."""

ROOTS = {"openrouter.ai": "/api/v1"}
"""Hosts whose API is not at the root."""


def spoken_at(url: httpx2.URL) -> str:
    """The name of the dialect that an address most likely speaks: by its host, by its path, else vLLM's."""
    folders = [folder.lower() for folder in folders_of(url)]
    last = folders[-1:]
    own = _vendor_dialects(url)
    if own and not (last == ["reranks"] or {"compatible-api", "compatible-mode"} & set(folders)):
        return own[0]
    if last == ["reranks"] or {"compatible-api", "compatible-mode"} & set(folders):
        return "dashscope-compatible"
    if "text-rerank" in folders or folders[-2:] == ["services", "rerank"]:
        return "dashscope"
    if last == ["ranking"] or (last == ["reranking"] and "retrieval" in folders):
        return "nim"
    if named := [folder for folder in folders if folder in DIALECTS]:  # as rerankd's own paths do
        return named[0]
    if last == ["v2"] or folders[-2:] == ["v2", "rerank"]:
        return "cohere"
    return "llamacpp" if last == ["reranking"] else "vllm"


def _vendor_dialects(url: httpx2.URL) -> tuple[str, ...]:
    if DASHSCOPE_HOST.fullmatch(url.host):
        return ("dashscope", "dashscope-compatible")
    return VENDORS.get(url.host, ())


def endpoint(base_url: str, dialect: DialectName) -> tuple[str, httpx2.URL]:
    """(the dialect's name, where its requests go).

    Args:
        base_url: the server's root, the API's root (`…/v1`), or the full address; each is completed as it needs.

    Raises:
        SettingsError: the address or the dialect cannot be understood.
    """
    url = read_address(base_url).url
    name = spoken_at(url) if dialect == "auto" else dialect
    if name not in DIALECTS:
        raise SettingsError(f"There is no dialect {name!r}. Known are: auto, {', '.join(DIALECTS)}.")
    return name, with_folders(url, _folders(url, name))


def _folders(url: httpx2.URL, name: str) -> list[str]:
    spoken = DIALECTS[name]
    folders = folders_of(url)
    if name in _vendor_dialects(url) and not is_complete(folders):
        return folders_of_path(spoken.path)
    if not folders and url.host in ROOTS:
        folders = folders_of_path(ROOTS[url.host])
    return completed(folders, spoken.path, spoken.bases)


def num_tokens_about(text: str) -> int:
    """Tokens of a text, estimated without a tokenizer: one for three letters of an ASCII word, and for any other sign.

    Qwen's count is 0.4 to 0.9 of it for most text, 1.0 for figures, 1.3 for Amharic, 1.6 for base64.
    """
    num_others = len(re.sub(" ?[A-Za-z]+", "", text))
    return num_others + -(-(len(text) - num_others) // 3)
