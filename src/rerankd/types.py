"""The domain: what a call asks and what it gets. Standard library only; knows no dialect, no tensor, no key."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rerankd.results import Results, short_repr

DEFAULT_INSTRUCT = "Given a web search query, retrieve relevant passages that answer the query"
"""The model card's instruct, without a full stop (https://huggingface.co/Qwen/Qwen3-Reranker-0.6B)."""

LoadProgress = Callable[[str, float], None]
"""Called with what is being done and the share that is done, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One query with one candidate document: the unit that is scored."""

    query: str
    document: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may hold. Tokens are counted by the served model's tokenizer; None = no limit."""

    max_documents: int | None = None
    max_query_tokens: int | None = None  # a longer query is cut, with a warning
    max_document_tokens: int | None = None  # a longer document is cut, with a warning
    max_total_tokens: int | None = None  # query_tokens × documents + Σ document_tokens; more is refused
    max_prompt_tokens: int | None = None  # template included
    max_instruct_tokens: int | None = None  # a longer instruct is refused
    overlong_prompt: Literal["cut", "refuse"] = "cut"  # cut: the document, then the query
    cut_side: Literal["left", "right"] = "right"  # the end of a text that is cut off
    refuse_cuts: bool = False  # a call in which any text would be cut is refused


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How much one caller may ask, over any number of calls. Each >= 1; None = no limit.

    requests_per_minute, tokens_per_minute (billed ones): in any 60 seconds. concurrency: calls at the same time.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """Pairs to score under one instruct.

    top_n: >= 1, None = all; only shortens the ranking. priority: a lower one is computed before a higher one.
    """

    pairs: tuple[Pair, ...]
    instruct: str = DEFAULT_INSTRUCT
    top_n: int | None = None
    limits: Limits = Limits()
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """A text that was shortened: `tokens` before and after, `at_least` when the text was not counted whole."""

    part: Literal["query", "document"]
    tokens: int
    kept: int
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A pair as its model reads it.

    token_ids: the whole prompt, template included; the first shared_len of them are those of (nearly) every document of
    this query and instruct. query_tokens, document_tokens: of the bare texts, after any cut. pair: the texts after
    any cut of the text itself.
    """

    pair: Pair
    token_ids: Sequence[int]
    query_tokens: int
    document_tokens: int
    cuts: tuple[Cut, ...] = ()
    shared_len: int = 0

    def shared_with(self, previous: EncodedPair | None) -> int:
        """How many of the first tokens need no computing where the previous prompt was computed: the prefix or none."""
        if previous is None or self.shared_len != previous.shared_len:
            return 0
        shared = self.shared_len
        return shared if self.token_ids[:shared] == previous.token_ids[:shared] else 0


class Logits(list[float]):
    """One logit a pair, float32. cached: the indices of those that were known from an earlier call."""

    def __init__(self, values: Iterable[float] = (), cached: Collection[int] = ()) -> None:
        super().__init__(values)
        self.cached = cached


def sigmoid(logit: float) -> float:
    """1 / (1 + e^-logit), without an overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1 + odds)


@dataclass(frozen=True, slots=True, repr=False)
class Score:
    """One pair's result. `index`: its place in the call; `logit` = yes − no, the log-odds, float32.

    document: the text as it was sent. encoded: the prompt that was scored, None if by another server. cached: known
    from an earlier call.
    """

    index: int
    logit: float
    document: str
    encoded: EncodedPair | None = None
    cached: bool = False

    @property
    def score(self) -> float:
        """sigmoid(logit), in [0, 1]."""
        return sigmoid(self.logit)

    def __repr__(self) -> str:
        return short_repr(self)


@dataclass(frozen=True, slots=True)
class Usage:
    """prompt_tokens: all prompts with template, as the engine ran them.

    text_tokens: query_tokens × documents + Σ document_tokens, the template not counted: what is billed.
    """

    prompt_tokens: int
    text_tokens: int


@dataclass(frozen=True, slots=True, repr=False)
class Ranking(Results[Score]):
    """The answer to a RerankRequest; as a sequence it is `ranked`.

    scores: one per pair, in the call's order. ranked: sorted by logit, ties by index, cut at top_n.
    warnings: one sentence for each thing that was not done as asked.
    """

    scores: tuple[Score, ...]
    ranked: tuple[Score, ...]
    usage: Usage
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a served model is. `max_tokens`: the longest prompt it can read, template included."""

    name: str
    kind: Literal["qwen3", "cross-encoder", "bi-encoder"]
    prompt_id: str
    max_tokens: int
    device: str
    dtype: str
    num_parameters: int
    folder: str
    notice: str | None = None  # said to every caller, e.g. that this is a fallback
    is_fallback: bool = False  # it answers in place of a model that could not be had
    languages: tuple[str, ...] = ()  # all that it reads, where its maker names them

    @property
    def reads_instruct(self) -> bool:
        """Whether an instruct changes its scores."""
        return self.kind == "qwen3"


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache has done since it was made. tokens: that did not have to be computed. bytes: it holds now."""

    hits: int = 0
    misses: int = 0
    tokens: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Histogram:
    """How values are spread. counts: of those <= bounds[i] and over the bound before; the last bound is infinite.

    total: the sum of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine has done since it started, its known-answer check included.

    running: requests of which at least one prompt is, or was, in a batch; waiting: the others in the queue.
    tokens_computed, seconds_computing: of the batches that are done. batch_fill: of each of them, its tokens over the
    most that a batch may have; more than 1 where a single prompt is longer. queue_s: of each request, from its arrival
    to its first batch; those whose every logit was known are not in it.
    """

    running: int
    waiting: int
    tokens_computed: int
    seconds_computing: float
    batch_fill: Histogram
    queue_s: Histogram
    prefix_cache: CacheStats
    score_cache: CacheStats
