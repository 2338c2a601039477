"""The name, the paths and the field names of each API. Standard library only.

The server, the client, the documentation and the tests read this table. To add an API, write its file in this folder
and add its entry to `ALL`. Knows no bodies' types, no errors and no server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from rerankd.types import Passages

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
    "rerankd",
]
"""For type checkers: the names that `Client(dialect=…)` takes, each `client` of `ALL`, and RERANKD."""

NOTHING: Mapping[str, Any] = MappingProxyType({})

DEADLINE_HEADER = "x-rerankd-deadline-ms"
"""Milliseconds that a call has; rerankd reads it on every path, and other servers ignore it."""


@dataclass(frozen=True, slots=True)
class ApiFacts:
    """One API.

    Attributes:
        name: In metrics, in the log, and before the names of its schemas in the API's description.
        title: For people.
        implementation: `module:Class`, below `rerankd.apis`.
        paths: Where rerankd answers it with POST. On a path of several APIs the body decides (`Api.claims`).
        put_paths: Where rerankd answers it with PUT.
        client: Its name in `Client(dialect=…)`; None if the client does not speak it.
        path: Where the API itself is asked, from its server's root.
        bases: The path by the root that the caller gives, where it is another one (see `client.address.completed`).
        hosts: Of the hosted service.
        model, query, documents, top_n, instruct, return_documents: Its names for these fields, None where it has none.
        constants: What the client sends with every request.
        nested: The texts are under `input`, the options under `parameters`.
        wrapped: Query and documents are objects with `text`.
        results: Where a reply has its results, with dots; empty: the reply is the list.
        score: A result's field with its score; `logit`, where it is that.
        passages: Our field for splitting documents, as rerankd reads it there.
        takes_blank: Whether it scores a text without a letter; otherwise it refuses the whole call.
        max_documents: Of one request, as the API documents it or its default is.
        max_tokens: query tokens × documents + Σ document tokens of one request that every model of it takes.
    """

    name: str
    title: str
    implementation: str
    paths: tuple[str, ...]
    put_paths: tuple[str, ...] = ()
    client: str | None = None
    path: str = "/v1/rerank"
    bases: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    hosts: tuple[str, ...] = ()
    model: str | None = "model"
    query: str = "query"
    documents: str = "documents"
    top_n: str | None = "top_n"
    instruct: str | None = None
    return_documents: str | None = "return_documents"
    constants: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    nested: bool = False
    wrapped: bool = False
    results: str = "results"
    score: str = "relevance_score"
    passages: str = "passages"
    takes_blank: bool = True
    max_documents: int | None = None
    max_tokens: int | None = None

    def body(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None,
        instruct: str | None,
        model: str | None,
        passages: Passages | None = None,
    ) -> dict[str, Any]:
        """A request of the client. It leaves out what is None, because vLLM refuses null.

        It sends an instruct also to an API that has none: rerankd reads `instruct` in every API, as it does `passages`.
        """
        texts: dict[str, Any] = {self.query: query, self.documents: list(documents)}
        if self.wrapped:
            texts = {self.query: {"text": query}, self.documents: [{"text": document} for document in documents]}
        options = dict(self.constants)
        if self.top_n and top_n is not None:
            options[self.top_n] = min(top_n, len(documents))  # some servers refuse more than there are
        if instruct is not None:
            options[self.instruct or "instruct"] = instruct
        if passages is not None:
            given = {
                name: value for name, value in asdict(passages).items() if value is not None and value is not False
            }
            options[self.passages] = {**given, "top_n": passages.max_per_doc}
        name = {self.model: model} if self.model and model is not None else {}
        return {**name, "input": texts, "parameters": options} if self.nested else {**name, **texts, **options}


SHARED = ("/v1/rerank", "/rerank", "/api/v1/rerank")
"""The paths of many APIs, also below the root `/api/v1` that some clients insist on."""

NATIVE = "/api/v1/services/rerank/text-rerank/text-rerank"
COMPATIBLE = ("/compatible-mode/v1", "/compatible-mode", "/compatible-api/v1", "/compatible-api")
"""The roots of DashScope's OpenAI-compatible APIs: chat is under the first, rerank under the third."""

NOT_ECHOED: Mapping[str, Any] = MappingProxyType({"return_documents": False})
"""The client never asks for the documents' text: the caller has it."""

# On a path of several APIs, a later one is asked first whether it claims a body; the first takes the rest.
ALL: tuple[ApiFacts, ...] = (
    ApiFacts(
        "vllm-score",
        "Score pairs (vLLM)",
        "vllm_score:VLLMScore",
        ("/v1/score", "/score", "/invocations"),
        path="/v1/score",
        query="queries",
        top_n=None,
        instruct="instruction",
        return_documents=None,
        results="data",
        score="score",
    ),
    ApiFacts(
        "vllm-rerank",
        "Rerank (vLLM)",
        "vllm:VLLMRerank",
        (*SHARED, "/v2/rerank", "/invocations"),
        client="vllm",
        instruct="instruction",
        constants=NOT_ECHOED,
    ),
    # https://help.aliyun.com/zh/model-studio/text-rerank-api
    ApiFacts(
        "dashscope-native",
        "DashScope text rerank, native",
        "dashscope:DashScopeNative",
        (NATIVE,),
        client="dashscope",
        path=NATIVE,
        bases={base: NATIVE for base in ("/v1", *COMPATIBLE)},
        instruct="instruct",
        constants=NOT_ECHOED,
        nested=True,
        results="output.results",
        max_documents=500,
        max_tokens=120_000,
    ),
    ApiFacts(
        "dashscope-compatible",
        "DashScope rerank, OpenAI-compatible",
        "dashscope:DashScopeCompatible",
        ("/compatible-api/v1/reranks", "/v1/reranks"),
        client="dashscope-compatible",
        path="/compatible-api/v1/reranks",
        # Resellers have it at /v1/reranks.
        bases={"/v1": "/v1/reranks"} | {base: "/compatible-api/v1/reranks" for base in COMPATIBLE},
        instruct="instruct",
        constants=NOT_ECHOED,
        max_documents=500,
        max_tokens=120_000,
    ),
    ApiFacts("cohere-v1", "Rerank (Cohere, version 1)", "cohere:CohereV1", ("/cohere/v1/rerank",), takes_blank=False),
    # https://docs.cohere.com/docs/reranking-best-practices recommends at most 1,000
    ApiFacts(
        "cohere-v2",
        "Rerank (Cohere, version 2)",
        "cohere:CohereV2",
        ("/cohere/v2/rerank",),
        client="cohere",
        path="/v2/rerank",
        bases={base: "/v2/rerank" for base in ("/v1", "/compatibility/v1")},
        hosts=("api.cohere.ai", "api.cohere.com"),
        takes_blank=False,
        max_documents=1000,
    ),
    ApiFacts(
        "jina",
        "Rerank (Jina)",
        "jina:Jina",
        ("/jina/v1/rerank",),
        client="jina",
        hosts=("api.jina.ai",),
        constants=NOT_ECHOED,
    ),
    ApiFacts("voyage-shared", "Rerank (Voyage)", "voyage:VoyageShared", SHARED, top_n="top_k", results="data"),
    # https://docs.voyageai.com/reference/reranker-api; 300,000 tokens for the older models, the newer take twice that
    ApiFacts(
        "voyage",
        "Rerank (Voyage)",
        "voyage:Voyage",
        ("/voyage/v1/rerank",),
        client="voyage",
        hosts=("api.voyageai.com", "ai.mongodb.com"),
        top_n="top_k",
        constants={"truncation": True},
        results="data",
        takes_blank=False,
        max_documents=1000,
        max_tokens=300_000,
    ),
    # 32 is the default of --max-client-batch-size
    ApiFacts(
        "tei",
        "Rerank (text-embeddings-inference)",
        "tei:TEIRerank",
        (*SHARED, "/", "/invocations", "/tei", "/tei/rerank"),
        client="tei",
        path="/rerank",
        bases={"/v1": "/rerank"},
        model=None,
        documents="texts",
        top_n=None,
        return_documents="return_text",
        results="",
        score="score",
        max_documents=32,
    ),
    ApiFacts(
        "tei-predict",
        "Predict (text-embeddings-inference)",
        "tei:TEIPredict",
        ("/predict", "/", "/tei", "/tei/predict"),
        path="/predict",
        model=None,
        documents="inputs",
        top_n=None,
        return_documents=None,
        results="",
        score="score",
    ),
    # 2,048 is the default of INFINITY_MAX_CLIENT_BATCH_SIZE
    ApiFacts(
        "infinity",
        "Rerank (Infinity)",
        "infinity:Infinity",
        ("/infinity/rerank",),
        client="infinity",
        path="/rerank",
        max_documents=2048,
    ),
    ApiFacts(
        "sglang",
        "Rerank (SGLang)",
        "sglang:SGLang",
        ("/sglang/v1/rerank",),
        ("/v1/rerank", "/sglang/v1/rerank"),
        client="sglang",
        instruct="instruct",
        constants=NOT_ECHOED,
        results="",
        score="score",
        takes_blank=False,
    ),
    ApiFacts(
        "llamacpp",
        "Rerank (llama.cpp)",
        "llamacpp:LlamaCpp",
        (
            *("/v1/reranking", "/reranking"),
            *("/llamacpp/rerank", "/llamacpp/v1/rerank", "/llamacpp/reranking", "/llamacpp/v1/reranking"),
        ),
        client="llamacpp",
        path="/v1/reranking",
        return_documents=None,
    ),
    ApiFacts(
        "mixedbread",
        "Rerank (Mixedbread)",
        "mixedbread:Mixedbread",
        ("/v1/reranking", "/reranking", "/mixedbread/v1/reranking"),
        client="mixedbread",
        path="/v1/reranking",
        hosts=("api.mixedbread.com",),
        documents="input",
        top_n="top_k",
        return_documents="return_input",
        results="data",
        score="score",
    ),
    ApiFacts(
        "xinference", "Rerank (Xinference)", "xinference:Xinference", ("/xinference/v1/rerank",), client="xinference"
    ),
    # https://docs.nvidia.com/nim/nemo-retriever/text-reranking/latest/reference.html
    ApiFacts(
        "nim",
        "Ranking (NVIDIA NIM)",
        "nim:NIM",
        ("/v1/ranking", "/v1/retrieval/{path:path}/reranking", "/nim/v1/ranking"),
        client="nim",
        path="/v1/ranking",
        documents="passages",
        passages="passage_options",
        top_n=None,
        return_documents=None,
        constants={"truncate": "END"},
        wrapped=True,
        results="rankings",
        score="logit",
        takes_blank=False,
        max_documents=512,
    ),
)

FACTS: Mapping[str, ApiFacts] = {one.name: one for one in ALL}

RERANKD = replace(
    FACTS["vllm-rerank"],
    name="rerankd",
    title="Rerank (rerankd)",
    client="rerankd",
    instruct="instruct",
    constants={**NOT_ECHOED, "explain": True},
)
"""As the client asks another rerankd: vLLM's API, with each result's exact logit."""

SEARCH = ApiFacts(
    "search", "Search (rerankd)", "search:Search", ("/v1/search",), path="/v1/search", documents="", score="score"
)
"""Our own API. It takes no documents, so it is none of `ALL`; a server with an index has it."""
