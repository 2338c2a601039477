"""Fakes for tests: a ranker without a model or a server, and a model without weights. Standard library only."""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rerankd.arguments import Documents, checked
from rerankd.types import ModelInfo, Passages, Prompt, Ranking, RerankRequest, Score, Usage

INFO = ModelInfo("fake", "qwen3", "none", 32_768, "cpu", "float32", 0, "")
TEMPLATE_TOKENS = 10
VOCABULARY = 1_000_000
GATE_TIMEOUT_S = 30


def shared_words(query: str, document: str) -> float:
    """The share of the query's words that the document has, in [0, 1]."""
    words = _words(query)
    return len(words & _words(document)) / len(words) if words else 0.0


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one call of a `FakeRanker`."""

    query: str
    documents: tuple[str, ...]
    top_n: int | None
    instruct: str | None


class FakeRanker:
    """A `Ranker` and an `AsyncRanker` in place of a `Reranker`, a `Client` or an `AsyncClient`.

        ranker = FakeRanker()
        assert ranker.rank("capital of China?", ["Gravity.", "Beijing is the capital of China."])[0].index == 1
        assert ranker.calls[0].query == "capital of China?"

    Args:
        score: of a query and a document; raise an error in it to make the call fail.
    """

    def __init__(self, score: Callable[[str, str], float] = shared_words) -> None:
        self._score = score
        self.calls: list[Call] = []

    def rank(
        self,
        query: str,
        documents: Documents,
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        passages: bool | Passages = False,
        deadline_s: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """See `Reranker.rank`: the same arguments, checks and order. It splits no document and is always in time.

        Raises:
            InvalidRequest: an argument has the wrong type or is out of range.
        """
        given = checked(query, documents, top_n, instruct, passages, deadline_s)
        self.calls.append(Call(given.query, given.documents, given.top_n, given.instruct))
        scores = tuple(
            Score(index, self._score(given.query, text), None, text) for index, text in enumerate(given.documents)
        )
        if progress and scores:
            progress(len(scores))
        ranked = sorted(scores, key=lambda score: -score.score)
        num_words = sum(len(given.query.split()) + len(text.split()) for text in given.documents)
        usage = Usage(total_tokens=num_words, text_tokens=num_words)
        return Ranking(tuple(ranked[: given.top_n]), usage, given.warnings, INFO.name, scores)

    async def arank(
        self,
        query: str,
        documents: Documents,
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        passages: bool | Passages = False,
        deadline_s: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """`rank` for asyncio."""
        return self.rank(
            query,
            documents,
            top_n=top_n,
            instruct=instruct,
            passages=passages,
            deadline_s=deadline_s,
            progress=progress,
        )


def word_tokens(query: str, document: str) -> Sequence[int]:
    """One token for each word, after those of a template."""
    words = f"{query} {document}".split()
    return [*range(TEMPLATE_TOKENS), *(zlib.crc32(word.encode()) % VOCABULARY for word in words)]


class FakeModel:
    """A model without weights for the engine and the server: `EngineScorer(Engine(model), model)`.

    Args:
        logit: of a prompt; raise an error in it to make the batch fail.
        token_ids: of a query and a document.
        info: what it calls itself.

    Attributes:
        requests: those that it made prompts for.
        batches: the prompts of each batch that it was given.
        gate: while it is cleared, the model waits.
        entered: set when the model gets a batch.
    """

    def __init__(
        self,
        logit: Callable[[Prompt], float] = lambda prompt: shared_words(prompt.query, prompt.document),
        token_ids: Callable[[str, str], Sequence[int]] = word_tokens,
        info: ModelInfo = INFO,
    ) -> None:
        self.info = info
        self.requests: list[RerankRequest] = []
        self.batches: list[list[Prompt]] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self._logit = logit
        self._token_ids = token_ids

    def encode(self, request: RerankRequest) -> list[Prompt]:
        """See `engine.protocols.Prompts`. Truncates nothing."""
        self.requests.append(request)
        return [
            Prompt(query, document, self._token_ids(query, document), len(query.split()), len(document.split()))
            for query, document in zip(request.per_document(request.queries), request.documents, strict=True)
        ]

    def room(self, request: RerankRequest) -> int:
        """The tokens that a document may have beside the longest query."""
        longest = min(request.limits.max_prompt_tokens or self.info.max_tokens, self.info.max_tokens)
        return longest - max(len(self._token_ids(query, "")) for query in request.queries)

    def lens(self, texts: Sequence[str]) -> list[int]:
        """One token for each word."""
        return [len(text.split()) for text in texts]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The numbers of the tokens."""
        return " ".join(map(str, token_ids))

    def tokenize(self, text: str) -> list[int]:
        """One token for each byte."""
        return [*text.encode()]

    def logits(self, batch: Sequence[Prompt]) -> list[float]:
        """See `engine.protocols.Model`."""
        self.batches.append(list(batch))
        self.wait_at_gate()
        return self.answer(batch)

    def answer(self, batch: Sequence[Prompt]) -> list[float]:
        """The logits of a batch, once the gate is open."""
        return [self._logit(prompt) for prompt in batch]

    def wait_at_gate(self) -> None:
        """Returns when the gate is open; fails after GATE_TIMEOUT_S."""
        self.entered.set()
        if not self.gate.wait(GATE_TIMEOUT_S):
            raise TimeoutError(f"FakeModel.gate was closed for {GATE_TIMEOUT_S} s.")
