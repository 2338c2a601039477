"""The domain: what a call asks and what it gets. Standard library only; knows no API, no tensor, no key."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from typing import Any, Literal, TypeVar

from rerankd.errors import InvalidRequest
from rerankd.results import Results, short_repr

DEFAULT_INSTRUCT = "Given a web search query, retrieve relevant passages that answer the query"
"""The model card's instruct, without a full stop (https://huggingface.co/Qwen/Qwen3-Reranker-0.6B)."""

T = TypeVar("T")

LoadProgress = Callable[[str, float], None]
"""Called with what is being done and the share that is done, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one call. Tokens are counted by the served model's tokenizer; None = no limit.

    Attributes:
        max_documents: more are refused.
        max_query_tokens, max_document_tokens: a longer text is truncated, with a warning.
        max_total_tokens: query_tokens × documents + Σ document_tokens; more is refused.
        max_prompt_tokens: template included.
        max_instruct_tokens: a longer instruct is refused.
        on_overlong: what happens to a prompt over max_prompt_tokens. `truncate`: its document is truncated, then its
            query. `refuse`: the call is refused. `refuse_if_truncated`: so is a call in which any text is truncated.
        truncation_side: the end of a text that is removed.
    """

    max_documents: int | None = None
    max_query_tokens: int | None = None
    max_document_tokens: int | None = None
    max_total_tokens: int | None = None
    max_prompt_tokens: int | None = None
    max_instruct_tokens: int | None = None
    on_overlong: Literal["truncate", "refuse", "refuse_if_truncated"] = "truncate"
    truncation_side: Literal["left", "right"] = "right"


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How much one caller may ask, over any number of calls. Each >= 1; None = no limit.

    requests_per_minute, tokens_per_minute (billed ones): in any 60 seconds. concurrency: calls at the same time.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


OVERLAP_TOKENS = 64
"""Tokens that passages of a stated length share."""

MAX_PASSAGES = 64
"""The most passages of a document, unless the call says otherwise."""

MIN_PASSAGE_TOKENS = 16
"""Any character has fewer."""


@dataclass(frozen=True, slots=True)
class Passages:
    """How documents are split: at sentences, each passage scored for itself; a document has its best passage's score.

    Attributes:
        max_tokens: of a passage, >= 16. None: as many as fit beside the query; a document that fits is not split.
        overlap_tokens: >= 0; the most tokens at the end of a passage that the next one repeats, in whole sentences, and
            at most half a passage. None: 64 with `max_tokens`, else 0.
        max_per_doc: >= 1; the text after these passages is not read, with a warning.
        highlight: score the sentences of the best passage of each result, too.

    Raises:
        InvalidRequest: a number is out of range.
    """

    max_tokens: int | None = None
    overlap_tokens: int | None = None
    max_per_doc: int = MAX_PASSAGES
    highlight: bool = False

    def __post_init__(self) -> None:
        least = {"max_tokens": MIN_PASSAGE_TOKENS, "overlap_tokens": 0, "max_per_doc": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is None and name != "max_per_doc":
                continue
            if type(value) is not int or value < bound:
                raise InvalidRequest(f"{name} of passages must be a whole number of at least {bound}; it is {value!r}.")

    @property
    def overlap(self) -> int:
        """The tokens that passages may share."""
        default = 0 if self.max_tokens is None else OVERLAP_TOKENS
        return default if self.overlap_tokens is None else self.overlap_tokens


@dataclass(frozen=True, slots=True)
class Sentence:
    """The score of a sentence alone: `document[start:end]`. logit: None if a server does not send it."""

    start: int
    end: int
    score: float
    logit: float | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """The score of a part of a document: `document[start:end]`, in code points of the text as it was sent.

    Attributes:
        score: sigmoid(logit).
        logit: None if a server does not send it.
        tokens: of its text; None from a server that does not send them.
        sentences: in order, of a result's best passage, if the call wanted them.
    """

    start: int
    end: int
    score: float
    logit: float | None = None
    tokens: int | None = None
    sentences: tuple[Sentence, ...] = ()

    def moved(self, by: int) -> Passage:
        """The same part, of a text with `by` more characters at its start."""
        if not by:
            return self
        sentences = tuple(replace(one, start=one.start + by, end=one.end + by) for one in self.sentences)
        return replace(self, start=self.start + by, end=self.end + by, sentences=sentences)

    def to_dict(self) -> dict[str, Any]:
        """Its fields, ready for `json.dumps`; without sentences where there are none."""
        return {name: value for name, value in asdict(self).items() if name != "sentences" or value}


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """Documents to score for one query, or each for a query of its own, under one instruct.

    Attributes:
        queries: one, or one for each document.
        top_n: >= 1, None = all; only shortens the ranking.
        priority: lower values are computed first.
        owner: the account on whose behalf it is scored. Results kept from one owner never answer another.
        hops: the number of servers that passed it on.
        passages: how documents are split; None: they are not.
        deadline: by time.monotonic(); what cannot be scored before it is left unscored. None: everything is scored.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    instruct: str = DEFAULT_INSTRUCT
    top_n: int | None = None
    limits: Limits = Limits()
    priority: int = 0
    owner: str = ""
    hops: int = 0
    passages: Passages | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        if len(self.queries) not in (1, len(self.documents)):
            raise ValueError(f"This is a bug: {len(self.queries)} queries for {len(self.documents)} documents.")

    @property
    def wants_sentences(self) -> bool:
        """Whether the sentences of each result's best passage are scored, too."""
        return self.passages is not None and self.passages.highlight

    def per_document(self, values: Sequence[T]) -> Iterable[T]:
        """One value for each document, from one value for each query."""
        return repeat(values[0], len(self.documents)) if len(self.queries) == 1 else values


@dataclass(frozen=True, slots=True)
class Truncation:
    """A text that was truncated: `tokens` before, `kept` after, `at_least` when the text was not counted whole."""

    part: Literal["query", "document"]
    tokens: int
    kept: int
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """A query with one document as its model reads them.

    Attributes:
        query, document: the texts after truncation.
        token_ids: the whole prompt, template included.
        query_tokens, document_tokens: of the bare texts, after truncation.
        prefix: the first token ids, which the prompts of (nearly) every document of this query have in common.
    """

    query: str
    document: str
    token_ids: Sequence[int]
    query_tokens: int
    document_tokens: int
    truncations: tuple[Truncation, ...] = ()
    prefix: tuple[int, ...] = ()

    @property
    def shared_len(self) -> int:
        """Tokens of the prefix."""
        return len(self.prefix)

    def shared_with(self, previous: Prompt | None) -> int:
        """Tokens that need no computing where the previous prompt was computed: the prefix, or none."""
        return 0 if previous is None or previous.prefix != self.prefix else self.shared_len


@dataclass(frozen=True, slots=True)
class Logits:
    """One logit for each prompt, float32.

    Attributes:
        cached: the indices of those known from an earlier call.
        queue_s: from the arrival of the request to its first batch.
        unscored: the indices of those that the deadline left; their values mean nothing.
    """

    values: Sequence[float]
    cached: Collection[int] = ()
    queue_s: float = 0.0
    unscored: Collection[int] = ()


def sigmoid(logit: float) -> float:
    """1 / (1 + e^-logit), without an overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1 + odds)


@dataclass(frozen=True, slots=True, repr=False)
class Score:
    """The result of one document, from a model in this process or from a server.

    Attributes:
        index: its place in the call.
        score: sigmoid(logit); from a server, as sent, which most have in [0, 1].
        logit: the log-odds, float32; None if the server does not send it.
        document: the text as it was sent; None if the call did not want it.
        prompt: what was scored; None if another server scored it.
        cached: known from an earlier call.
        passages: of the document, the best first, if the call wanted them; the first one gave score, logit and prompt.
            From a server, those that it sent.
        num_passages: how many were scored; 0 if the call did not want them.
        explanation: of another rerankd that was asked for it; None otherwise.
        scored: False if the deadline came first; score and logit are then just below the lowest of the scored ones.
        stage, model: the stage of a cascade, 1 or 2, and its model; 0 without a cascade. bound: of its raw score.
    """

    index: int
    score: float
    logit: float | None = None
    document: str | None = None
    prompt: Prompt | None = None
    cached: bool = False
    passages: tuple[Passage, ...] = ()
    num_passages: int = 0
    explanation: Explanation | None = None
    scored: bool = True
    stage: int = 0
    model: ModelInfo | None = None
    bound: float | None = None

    @property
    def raw_score(self) -> float:
        """The score before the sigmoid: the logit, or the score if the logit is not known; at most the bound."""
        own = self.score if self.logit is None else self.logit
        return own if self.bound is None else min(own, self.bound)

    @property
    def best_text(self) -> str | None:
        """The text of the best passage, or the document where it was not split; None if the document is not known."""
        if self.document is None or not self.passages:
            return self.document
        return self.document[self.passages[0].start : self.passages[0].end]

    def __repr__(self) -> str:
        return short_repr(self)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that a caller needs to check the score of an engine, here or in another rerankd, by hand.

    Attributes:
        prompt_tokens: of the whole prompt, template included.
        shared_tokens: those of them that the prompts of the query have in common.
        cached: known from an earlier call.
    """

    logit: float
    prompt_id: str
    dtype: str
    prompt_tokens: int
    query_tokens: int
    document_tokens: int
    shared_tokens: int
    truncations: tuple[Truncation, ...]
    cached: bool
    stage: int | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The tokens of a call, as the model's tokenizer counts them.

    Attributes:
        prompt_tokens: of all prompts, template included.
        text_tokens: query_tokens × documents + Σ document_tokens, the template not counted: what is billed.
    """

    prompt_tokens: int
    text_tokens: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of a call. None: the server does not send it.

    Attributes:
        total_tokens: as the server counts them; in this process the tokens of all prompts, template included.
        text_tokens: see `TokenCounts`; None from a server.
        search_units: the unit in which some hosted services bill.
    """

    total_tokens: int | None = None
    text_tokens: int | None = None
    search_units: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Ranking(Results[Score]):
    """The answer to a call. As a sequence it is `ranked`.

    Attributes:
        ranked: by score, descending, ties by index; at most `top_n`.
        usage: summed over the requests of the call.
        warnings: one sentence for each deviation from the request.
        model: the model that scored, else the name that the server echoes.
        scores: of every document, in the call's order; from a server, of those that it sent.
        request_ids: the server's ids of the call's requests, for its log; usually one.
        upstream: the name of the server that scored, where this one passed the call on.
        attempts: the number of those that were asked.
        queue_s: see `Logits`; None from a server.
        left_out: the number of results under the call's `min_score`. nothing_relevant: see calibration/apply.py.
    """

    ranked: tuple[Score, ...]
    usage: Usage
    warnings: tuple[str, ...] = ()
    model: str | None = None
    scores: tuple[Score, ...] = ()
    request_ids: tuple[str, ...] = ()
    upstream: str | None = None
    attempts: int = 1
    queue_s: float | None = None
    left_out: int = 0
    nothing_relevant: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The description of a served model. `max_tokens`: the longest prompt it can read, template included."""

    name: str
    kind: Literal["qwen3", "qwen2", "cross-encoder", "bi-encoder"]
    prompt_id: str
    max_tokens: int
    device: str
    dtype: str
    num_parameters: int
    folder: str
    notice: str | None = None  # said to every caller, e.g. that this is a fallback
    is_fallback: bool = False  # it replaces a model that is not available
    languages: tuple[str, ...] = ()  # all that it reads, where its maker names them
    kernels: str = ""  # the kind of C++ kernels that run, "varlen", or "plain"; empty for models that never have any
    reads_instruct: bool = True  # whether an instruct changes its scores
