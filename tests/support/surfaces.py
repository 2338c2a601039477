"""The paths of the rerank APIs as a caller sees them: how to ask, what a reply says, how an error looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from rerankd.apis.facts import FACTS, ApiFacts
from support.error_shapes import CHECKS, JSON, STATUSES

QUERY = "What is the capital of China?"
DOCUMENTS = ("The capital of China is Beijing.", "Gravity is a force.", "Bread is baked.")


@dataclass(frozen=True)
class Surface:
    """One path and its API.

    Attributes:
        api: its name in `rerankd.apis.facts`, which has the names of its fields.
        top, echo: the API's names for `top_n` and `return_documents`.
        wrong: the status for a mistake in the body.
        unknown_model: the status for a model that is not served.
        decimals: of a score; None if it is not rounded.
    """

    path: str
    api: str
    top: str = "top_n"
    echo: str = "return_documents"
    wrong: int = 400
    unknown_model: int = 404
    decimals: int | None = None

    def __str__(self) -> str:
        return self.path

    @property
    def facts(self) -> ApiFacts:
        return FACTS[self.api]

    @property
    def documents(self) -> str:
        """The API's name for the documents."""
        return self.facts.documents

    @property
    def is_dashscope(self) -> bool:
        return self.api.startswith("dashscope")

    @property
    def is_vllm(self) -> bool:
        return self.api.startswith("vllm")

    @property
    def tells_names(self) -> bool:
        """Whether a model that is not served is refused; elsewhere every name is answered, with a warning."""
        return self.is_dashscope or self.is_vllm

    @property
    def tells_keys(self) -> bool:
        """Whether the error for a key says more than that it is not authorized."""
        return self.is_dashscope or self.api in ("vllm-rerank", "llamacpp", "sglang")

    @property
    def cuts(self) -> bool:
        """Whether a prompt over the served context is truncated without being asked to."""
        return not self.is_vllm and self.api != "llamacpp"

    def body(self, query: Any = QUERY, documents: Any = DOCUMENTS, **options: Any) -> JSON:
        """A request; `options` are fields beside query and documents, wherever the API has them."""
        documents = list(documents) if isinstance(documents, tuple) else documents
        names = {"top_n": self.top, "return_documents": self.echo}
        options = {names.get(name, name): value for name, value in options.items()}
        texts = {self.facts.query: query, self.documents: documents}
        model = {"model": options.pop("model", "qwen3-rerank")} if self.sends_model else {}
        if self.facts.nested:
            return {**model, "input": texts, "parameters": options}
        return {**model, **texts, **options}

    @property
    def sends_model(self) -> bool:
        """Whether a body names the model. The others leave it out, as their clients may."""
        return self.is_dashscope or self in FOLDERS

    def field(self, name: str) -> str:
        """Where a field of `body` is, as an error calls it."""
        known = {"query": self.facts.query, "documents": self.documents, "top_n": self.top}
        if self.facts.nested and name != "model":
            return f"input.{name}" if name in ("query", "documents") else f"parameters.{name}"
        return known.get(name, name)

    def with_field(self, name: str, *value: Any) -> JSON:
        """A good body with one field set to a value, or, without a value, left out."""
        body = self.body()
        *parents, key = self.field(name).split(".")
        holder = body
        for parent in parents:
            holder = holder[parent]
        holder.pop(key, None)
        if value:
            holder[key] = value[0]
        return body

    def rows(self, reply: Any) -> list[JSON]:
        """The results in a reply."""
        for name in filter(None, self.facts.results.split(".")):
            reply = reply[name]
        return list(reply)

    def scores(self, response: httpx2.Response) -> list[tuple[int, float]]:
        """(index, score) of each result in the reply's order."""
        assert response.status_code == 200, response.text[:1000]
        return [(row["index"], row[self.facts.score]) for row in self.rows(response.json())]

    def tokens(self, response: httpx2.Response) -> int:
        """The computed tokens by the reply; SGLang's has them only in its explanations."""
        if self.api == "tei":
            return int(response.headers["x-compute-tokens"])
        if self.api == "sglang":
            return sum(row["explain"]["prompt_tokens"] for row in response.json())
        return int(response.json()["usage"]["total_tokens"])

    def warnings(self, response: httpx2.Response) -> str:
        """The warnings of a reply: in a header, which every API has, and in the body where there is room."""
        header = response.headers.get("x-rerankd-warning", "")
        if self.api in ("dashscope-compatible", "vllm-rerank"):
            listed = response.json().get("meta", {}).get("warnings", [])
            assert "; ".join(listed)[:200] == header[:200]
        return str(header)

    def error(self, response: httpx2.Response, status: int) -> str:
        """The error's text, after checking that each kind of client finds it where it looks."""
        allowed = STATUSES.get((self.api, status), (status,))
        assert response.status_code in allowed, f"{response.status_code} instead of {allowed}: {response.text[:1000]}"
        assert "Traceback" not in response.text
        assert response.headers["x-request-id"]
        if status == 401:
            assert response.headers["www-authenticate"] == "Bearer"
        if status in (429, 503):
            assert int(response.headers["retry-after"]) >= 1
        if self.api == "tei" and status == 401:
            assert response.content == b""
            return ""
        assert response.headers["content-type"].startswith("application/json")
        return CHECKS[self.api](response.json(), response.status_code, response.headers["x-request-id"])


NATIVE = Surface("/api/v1/services/rerank/text-rerank/text-rerank", "dashscope-native")
COMPATIBLE = Surface("/compatible-api/v1/reranks", "dashscope-compatible")
RESELLER = Surface("/v1/reranks", "dashscope-compatible")
RERANK = Surface("/v1/rerank", "vllm-rerank")
RERANK_BARE = Surface("/rerank", "vllm-rerank")
RERANK_V2 = Surface("/v2/rerank", "vllm-rerank")
SCORE = Surface("/v1/score", "vllm-score")
SCORE_BARE = Surface("/score", "vllm-score")
TEI = Surface("/tei/rerank", "tei")
INFINITY = Surface("/infinity/rerank", "infinity")
SGLANG = Surface("/sglang/v1/rerank", "sglang")
LLAMA_CPP = Surface("/llamacpp/rerank", "llamacpp")
COHERE_V1 = Surface("/cohere/v1/rerank", "cohere-v1")
COHERE_V2 = Surface("/cohere/v2/rerank", "cohere-v2")
JINA = Surface("/jina/v1/rerank", "jina", wrong=422, unknown_model=400, decimals=8)
VOYAGE = Surface("/voyage/v1/rerank", "voyage", top="top_k", unknown_model=400)
MIXEDBREAD = Surface("/mixedbread/v1/reranking", "mixedbread", top="top_k", echo="return_input", wrong=422)
XINFERENCE = Surface("/xinference/v1/rerank", "xinference", unknown_model=400)
NIM = Surface("/nim/v1/ranking", "nim", top="top_k")

DASHSCOPE = (NATIVE, COMPATIBLE, RESELLER)
VLLM = (RERANK, RERANK_BARE, RERANK_V2, SCORE, SCORE_BARE)
OTHERS = (TEI, INFINITY, SGLANG, LLAMA_CPP)
SHARED = DASHSCOPE + VLLM + OTHERS
"""The APIs on the paths of their own servers, and those that tests treat alike with them."""

FOLDERS = (COHERE_V1, COHERE_V2, JINA, VOYAGE, MIXEDBREAD, XINFERENCE, NIM)
"""The APIs under a folder of their own, where every body is read as theirs."""

ALL = SHARED + FOLDERS
ONE_EACH: Sequence[Surface] = (NATIVE, COMPATIBLE, RERANK, SCORE, *OTHERS)
"""One path of each API of `SHARED`, for cases that are the same on all its paths."""
