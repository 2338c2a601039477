"""The tree of errors that the engine, the server and the client raise on purpose.

    RerankdError
    ├── RequestError                 the caller's mistake: what was wrong, the limit, the way out
    │   ├── InvalidRequest           a field is missing, empty, of the wrong type or out of range
    │   │   ├── TooManyDocuments
    │   │   ├── TooManyTokens        the call as a whole is over its token limit
    │   │   └── PromptTooLong        one prompt does not fit the served context
    │   ├── Unauthorized
    │   │   ├── MissingKey           no key was sent
    │   │   └── WrongKey             the key is invalid or has expired
    │   ├── Forbidden                the key may not use this model
    │   ├── OutOfCredit              the account cannot pay for the call
    │   │   └── OverBudget           the budget of the key in this month cannot
    │   └── ModelNotFound            the server does not answer to this model name
    ├── Unavailable                  try again later: carries `retry_after_s`
    │   ├── Busy                     the queue is full
    │   │   └── NothingInTime        the deadline came before the first score
    │   ├── RateLimited              the caller has reached a rate limit
    │   ├── Loading                  the model is still loading
    │   └── Stopping                 the engine is shutting down
    ├── InferenceError               the model failed on this request
    ├── UpstreamFailed               the servers behind this one did not answer the call
    │   ├── UpstreamTimeout          … in time
    │   └── UpstreamLoop             the call came back to a server that had passed it on
    ├── ModelError                   a model cannot be served
    │   ├── CheckpointNotFound
    │   ├── CheckpointInvalid
    │   ├── HubUnreachable
    │   └── SelfTestFailed
    ├── SettingsError                a setting is unknown, malformed or unsafe
    │   └── MissingExtra             a required package is not installed (also an ImportError)
    ├── Closed                       used after close()
    └── MadeBeforeFork               used in a child process after a fork

`apis/errors.py` adds the errors of HTTP requests, `client/errors.py` those of other servers. Knows no HTTP: each API
has a table of statuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Literal, NamedTuple

from rerankd.money import decimal


class RerankdError(Exception):
    """The root of the tree. `str(error)` is one sentence for a person."""


class RequestError(RerankdError):
    """The caller's mistake."""


class Problem(NamedTuple):
    """One mistake in a request.

    Attributes:
        path: of the field, dotted; empty for the body as a whole.
        kind: pydantic's name for such a mistake.
        input: the value that was sent, if it is short and plain.
    """

    path: str
    message: str
    kind: str = "value_error"
    input: Any = None


class InvalidRequest(RequestError):
    """A field is missing, empty, of the wrong type or out of range. `problems`: every mistake with its place."""

    def __init__(self, message: str, problems: Iterable[tuple[str, str] | Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(Problem(*problem) for problem in problems)

    @property
    def details(self) -> str:
        """Every mistake with its path, in one line; the message if none is listed."""
        return "; ".join(f"{one.path}: {one.message}".removeprefix(": ") for one in self.problems) or str(self)


class TooManyDocuments(InvalidRequest):
    """More documents than the API allows in one call, or none."""

    def __init__(self, count: int, limit: int) -> None:
        advice = "send at least one" if count == 0 else "send them in several requests, the scores will be the same"
        super().__init__(f"There are {count} documents; from 1 to {limit} are allowed: {advice}.")
        self.count = count
        self.limit = limit


class TooManyTokens(InvalidRequest):
    """query_tokens × documents + Σ document_tokens is over the limit of the API."""

    def __init__(self, total: int, limit: int) -> None:
        super().__init__(
            f"The request has {total} tokens (query_tokens × documents + the tokens of all documents); the limit "
            f"is {limit}. Send fewer or shorter documents, or several requests."
        )
        self.total = total
        self.limit = limit


class PromptTooLong(InvalidRequest):
    """One prompt is longer than the served context, and the part that is too long is not to be truncated.

    Attributes:
        part: the part of the prompt that is too long.
        index: of the document.
        limit: in tokens.
        tokens: a lower bound for the whole prompt; None if only a part of it was counted.
    """

    def __init__(
        self,
        message: str,
        part: Literal["instruct", "query", "document"] = "instruct",
        index: int = 0,
        limit: int | None = None,
        tokens: int | None = None,
    ) -> None:
        super().__init__(message)
        self.part = part
        self.index = index
        self.limit = limit
        self.tokens = tokens

    @classmethod
    def of_text(cls, part: Literal["query", "document"], index: int, tokens: int, limit: int) -> PromptTooLong:
        """A text that is too long. tokens: at least."""
        name = "query" if part == "query" else f"document {index}"
        message = (
            f"The {name} has at least {tokens} tokens and would have to be truncated: the limit is {limit} tokens."
        )
        return cls(f"{message} Shorten it, or allow truncation.", part, index, limit)

    @classmethod
    def of_document(cls, index: int, tokens: int, limit: int) -> PromptTooLong:
        """A prompt that is too long because of its document. tokens: at least."""
        message = f"The prompt for document {index} has at least {tokens} tokens: the model reads {limit} tokens."
        return cls(f"{message} Shorten the document, or allow truncation.", "document", index, limit, tokens)


class Unauthorized(RequestError):
    """The caller is not authenticated."""


class MissingKey(Unauthorized):
    """No key was sent.

    Args:
        way_out: how to send one.
    """

    def __init__(self, way_out: str) -> None:
        super().__init__(f"No API key was given: {way_out}.")


class WrongKey(Unauthorized):
    """The key is not valid."""

    def __init__(self) -> None:
        super().__init__("The API key is not valid.")


class Forbidden(RequestError):
    """The key may not use the model `name`, only the `allowed` ones."""

    def __init__(self, name: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"This API key may not use the model `{name[:200]}`. It may use: {', '.join(allowed)}.")
        self.name = name[:200]
        self.allowed = allowed


class OutOfCredit(RequestError):
    """The account cannot pay for the call, which was not computed.

    Args:
        available: the balance less the cost of running calls, in millionths of `currency`.
        cost: of this call, in the same unit; None if it was not computed, since nothing is left.
        currency: a code of three letters.
    """

    def __init__(self, available: int, cost: int | None, currency: str) -> None:
        needed = "" if cost is None else f"this call costs {decimal(cost)} {currency}, and "
        super().__init__(
            f"Insufficient balance: {needed}{decimal(available)} {currency} are left. Nothing was charged. "
            "Add credit to the account, or ask the operator of this server to add it."
        )
        self.available = available
        self.cost = cost
        self.currency = currency


class OverBudget(OutOfCredit):
    """The budget of the key in this month cannot pay for the call, which was not computed.

    Args:
        budget: of a calendar month (UTC); in millionths of `currency`, as all amounts here.
        spent: in this month.
        reserved: by running calls.
        cost: of this call; None if it was not computed, since nothing is left.
        starts_again: the first day of the next month.
    """

    def __init__(
        self, budget: int, spent: int, reserved: int, cost: int | None, currency: str, starts_again: date
    ) -> None:
        running = f", {decimal(reserved)} {currency} are reserved by running calls" if reserved else ""
        needed = "" if cost is None else f", and this call costs {decimal(cost)} {currency}"
        RequestError.__init__(
            self,
            f"Budget exceeded: this API key may spend {decimal(budget)} {currency} a month. "
            f"{decimal(spent)} {currency} are spent{running}{needed}. Nothing was charged. "
            f"The budget starts again on {starts_again} at 00:00 UTC. To call before, raise it on the page Keys, or "
            "with `rerankd keys budget`.",
        )
        self.available = max(0, budget - spent - reserved)
        self.cost = cost
        self.currency = currency
        self.budget = budget
        self.spent = spent
        self.starts_again = starts_again


class ModelNotFound(RequestError):
    """The server does not answer to this model name."""

    def __init__(self, name: str, served: tuple[str, ...]) -> None:
        super().__init__(f"The model `{name[:200]}` does not exist. Served here: {', '.join(served)}.")
        self.name = name[:200]


class Unavailable(RerankdError):
    """The server cannot answer now. `retry_after_s`: seconds until the next try, >= 1."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, retry_after_s)


class Busy(Unavailable):
    """The queue is full."""


class NothingInTime(Busy):
    """No document was scored before the deadline of the call."""

    MESSAGE = "No document was scored before the deadline; allow more time, or send fewer documents."

    def __init__(self) -> None:
        super().__init__(self.MESSAGE, 1)


class RateLimitStatus(NamedTuple):
    """The state of a rate limit. `reset_s`: seconds until all of it is available again."""

    limit: int
    remaining: int
    reset_s: int


class RateLimited(Unavailable):
    """The caller has reached a limit; the message names it.

    Attributes:
        kind: the limit.
        limits: all of the caller's limits per minute, by kind.
    """

    def __init__(
        self,
        message: str,
        retry_after_s: int,
        kind: Literal["requests", "tokens", "concurrency"] = "requests",
        limits: Mapping[str, RateLimitStatus] | None = None,
    ) -> None:
        super().__init__(message, retry_after_s)
        self.kind = kind
        self.limits = dict(limits or {})


class Loading(Unavailable):
    """The model is still loading."""


class Stopping(Unavailable):
    """The engine is shutting down."""


class InferenceError(RerankdError):
    """The model failed on this request. The cause is chained and logged, never sent to a caller."""


class UpstreamFailed(RerankdError):
    """The servers behind this one did not answer the call. The message has no address and no words of theirs."""


class UpstreamTimeout(UpstreamFailed):
    """The servers behind this one did not answer in time."""


class UpstreamLoop(UpstreamFailed):
    """Servers pass the call to each other in a circle."""

    def __init__(self) -> None:
        super().__init__("Upstreams pass this call to each other in a circle: check their addresses.")


class ModelError(RerankdError):
    """A model cannot be served."""


class CheckpointNotFound(ModelError):
    """No such folder, repository or revision."""


class CheckpointInvalid(ModelError):
    """The files exist, but this program cannot run them."""


class HubUnreachable(ModelError):
    """The model hub cannot be reached, and the checkpoint is not on this machine."""


class SelfTestFailed(ModelError):
    """The model's scores for the known-answer check are constant, NaN or in the wrong order."""


class SettingsError(RerankdError):
    """A setting is unknown, malformed or unsafe."""


class MissingExtra(SettingsError, ImportError):
    """A package that this needs is not installed; the message has the line for pip."""

    def __init__(self, what: str, cause: ImportError, otherwise: str, extra: str = "server") -> None:
        missing = isinstance(cause, ModuleNotFoundError)
        problem = f"needs {cause.name}, which is not installed" if missing else f"cannot run: {cause}"
        super().__init__(f"{what} {problem}: pip install 'rerankd[{extra}]', or {otherwise}.")
        self.name = cause.name


class Closed(RerankdError):
    """A Reranker or a client was used after it was closed."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"This {kind} is closed: make a new one.")


class MadeBeforeFork(RerankdError):
    """A model was loaded before this process was forked: its thread and its memory on a GPU are not in the child."""

    def __init__(self) -> None:
        super().__init__(
            "The model was loaded before this process was forked and cannot run here: load it in the child (after the "
            "fork, in the worker's initializer), or use multiprocessing's start method 'spawn'."
        )
