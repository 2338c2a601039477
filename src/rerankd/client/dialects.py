"""How each rerank API is asked, and which one an address speaks. Knows no replies: `reply.py` reads them all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import httpx

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
]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API.

    path: of the API, from the server's root. model, documents, top_n, instruct: what it calls these fields, None where
    it has none. constants: sent with every request. nested: the texts are under `input`, the options under
    `parameters`. max_documents, max_tokens (query tokens × documents + Σ document tokens): limits of one request.
    """

    path: str = "/v1/rerank"
    model: str | None = "model"
    documents: str = "documents"
    top_n: str | None = "top_n"
    instruct: str | None = None
    constants: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    nested: bool = False
    max_documents: int | None = None
    max_tokens: int | None = None

    def body(
        self, query: str, documents: Sequence[str], *, top_n: int | None, instruct: str | None, model: str | None
    ) -> JSON:
        """A request. What is None is left out, for vLLM takes no null.

        An instruct is sent even where the API has none: rerankd reads `instruct` on every surface.
        """
        texts = {"query": query, self.documents: list(documents)}
        options = dict(self.constants)
        if self.top_n and top_n is not None:
            options[self.top_n] = min(top_n, len(documents))  # some servers refuse more than there are
        if instruct is not None:
            options[self.instruct or "instruct"] = instruct
        name = {self.model: model} if self.model and model is not None else {}
        return {**name, "input": texts, "parameters": options} if self.nested else {**name, **texts, **options}


# The text of the documents is never asked back: the caller has it.
NOT_ECHOED = MappingProxyType({"return_documents": False})

DIALECTS: Mapping[str, Dialect] = {
    "vllm": Dialect(instruct="instruction", constants=NOT_ECHOED),
    # https://help.aliyun.com/zh/model-studio/text-rerank-api
    "dashscope": Dialect(
        "/api/v1/services/rerank/text-rerank/text-rerank",
        instruct="instruct",
        constants=NOT_ECHOED,
        nested=True,
        max_documents=500,
        max_tokens=120_000,
    ),
    "dashscope-compatible": Dialect(
        "/compatible-api/v1/reranks",
        instruct="instruct",
        constants=NOT_ECHOED,
        max_documents=500,
        max_tokens=120_000,
    ),
    # https://docs.cohere.com/docs/reranking-best-practices recommends at most 1,000
    "cohere": Dialect("/v2/rerank", max_documents=1000),
    "jina": Dialect(constants=NOT_ECHOED),
    # https://docs.voyageai.com/reference/reranker-api; 300,000 tokens for the older models, the newer take twice that
    "voyage": Dialect(top_n="top_k", constants={"truncation": True}, max_documents=1000, max_tokens=300_000),
    # 32 is the default of --max-client-batch-size
    "tei": Dialect("/rerank", model=None, documents="texts", top_n=None, max_documents=32),
    # 2,048 is the default of INFINITY_MAX_CLIENT_BATCH_SIZE
    "infinity": Dialect("/rerank", max_documents=2048),
    "sglang": Dialect(instruct="instruct", constants=NOT_ECHOED),
    "llamacpp": Dialect("/v1/reranking"),
    "mixedbread": Dialect("/v1/reranking", documents="input", top_n="top_k"),
    "xinference": Dialect(),
}

HOSTS = {
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.jina.ai": "jina",
    "api.voyageai.com": "voyage",
    "ai.mongodb.com": "voyage",
    "api.mixedbread.com": "mixedbread",
    "openrouter.ai": "vllm",
}

COMPLETE = frozenset({"rerank", "reranks", "reranking", "text-rerank"})
"""An address that ends in one of these is the full one."""


def spoken_at(url: httpx.URL) -> str:
    """The name of the dialect that an address most likely speaks: by its host, by its path, else vLLM's."""
    if url.host in HOSTS:
        return HOSTS[url.host]
    folders = _folders(url.path)
    if "compatible-api" in folders or folders[-1:] == ["reranks"]:
        return "dashscope-compatible"
    if url.host.endswith(".aliyuncs.com") or folders[-2:] == ["api", "v1"] or "text-rerank" in folders:
        return "dashscope"
    if named := [folder for folder in folders if folder in DIALECTS]:  # as rerankd's own paths do
        return named[0]
    if "v2" in folders:
        return "cohere"
    return "llamacpp" if folders[-1:] == ["reranking"] else "vllm"


def endpoint(base_url: str, dialect: DialectName) -> tuple[str, httpx.URL]:
    """(the dialect's name, where its requests go).

    Args:
        base_url: the server's root, the API's root (`…/v1`), or the full address; each is completed as it needs.

    Raises:
        SettingsError: the address or the dialect cannot be understood.
    """
    try:
        url = httpx.URL(base_url.strip())
    except httpx.InvalidURL as error:
        raise SettingsError(f"{base_url!r} is not an address: {error}.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(f"{base_url!r} is not an address: it should begin with http:// or https://.")
    name = spoken_at(url) if dialect == "auto" else dialect
    if name not in DIALECTS:
        raise SettingsError(f"There is no dialect {name!r}. Known are: auto, {', '.join(DIALECTS)}.")
    return name, url.copy_with(path=_completed(url.path, DIALECTS[name].path), fragment=None)


def _completed(base: str, path: str) -> str:
    """base, and of path what follows the longest run of folders that base ends with: `/v1` + `/v1/rerank` is
    `/v1/rerank`."""
    have, want = _folders(base), _folders(path)
    if have and have[-1] in COMPLETE:
        return "/" + "/".join(have)
    for length in range(min(len(have), len(want)), 0, -1):
        for start in range(len(want) - length + 1):
            if want[start : start + length] == have[-length:]:
                return "/" + "/".join(have + want[start + length :])
    return "/" + "/".join(have + want)


def _folders(path: str) -> list[str]:
    return [folder for folder in path.split("/") if folder]


def num_tokens_about(text: str) -> int:
    """Tokens of a text, estimated without a tokenizer: one for three letters of an ASCII word, and for any other sign.

    Qwen's count is 0.4 to 0.9 of it for most text, 1.0 for figures, 1.3 for Amharic, 1.6 for base64.
    """
    num_others = len(re.sub(" ?[A-Za-z]+", "", text))
    return num_others + -(-(len(text) - num_others) // 3)
