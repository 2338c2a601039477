"""Every error that rerankd raises on purpose, in one tree, shared by the engine, the server and the client.

    RerankdError
    ├── RequestError                 the caller's mistake: what was wrong, the limit, the way out
    │   ├── InvalidRequest           a field is missing, empty, of the wrong type or out of range
    │   │   ├── NotJSON              the body cannot be read as JSON
    │   │   ├── UnsupportedMedia     the body is not declared as JSON where the protocol demands it
    │   │   ├── BodyTooLarge         more bytes than the server reads
    │   │   ├── BodyTimeout          the body did not arrive in time
    │   │   ├── MethodNotAllowed
    │   │   ├── TooManyDocuments
    │   │   ├── TooManyTokens        the call as a whole is over its token limit
    │   │   └── PromptTooLong        one prompt does not fit the served context
    │   ├── Unauthorized             no key, or a wrong one
    │   └── ModelNotFound            a model name that this server does not answer to
    ├── Unavailable                  try again later: carries `retry_after_s`
    │   ├── Busy                     the queue is full
    │   ├── Loading                  the model is still loading
    │   └── Stopping                 the engine is shutting down
    ├── InferenceError               the model failed on this request
    ├── ModelError                   a model cannot be served
    │   ├── CheckpointNotFound
    │   ├── CheckpointInvalid
    │   ├── HubUnreachable
    │   └── SelfTestFailed
    ├── SettingsError                a setting is unknown, malformed or unsafe
    └── RemoteError                  another server answered with an error (client)

Knows nothing of HTTP statuses: each dialect has its own table.
"""

from __future__ import annotations


class RerankdError(Exception):
    """The root of the tree. `str(error)` is one sentence for a person."""


class RequestError(RerankdError):
    """The caller's mistake."""


class InvalidRequest(RequestError):
    """A field is missing, empty, of the wrong type or out of range.

    `problems` lists (path of the field, what is wrong with it); the path is empty for the body as a whole.
    """

    def __init__(self, message: str, problems: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class NotJSON(InvalidRequest):
    """The body cannot be read as JSON."""


class UnsupportedMedia(InvalidRequest):
    """The body is not declared as JSON where the protocol demands it."""


class BodyTooLarge(InvalidRequest):
    """The body has more bytes than the server reads."""


class BodyTimeout(InvalidRequest):
    """The body did not arrive in time."""


class MethodNotAllowed(InvalidRequest):
    """A rerank path was asked with another method than POST."""

    def __init__(self, method: str) -> None:
        super().__init__(f"{method} is not answered here: send the request with POST.")
        self.method = method


class TooManyDocuments(InvalidRequest):
    """More documents than the surface allows in one call, or none."""

    def __init__(self, count: int, limit: int) -> None:
        advice = "send at least one" if count == 0 else "send them in several requests, the scores will be the same"
        super().__init__(f"There are {count} documents; from 1 to {limit} are allowed: {advice}.")
        self.limit = limit


class TooManyTokens(InvalidRequest):
    """query_tokens × documents + Σ document_tokens is over the limit of the surface."""


class PromptTooLong(InvalidRequest):
    """One prompt is longer than the served context, and what is too long may not, or cannot, be cut."""

    @classmethod
    def of_document(cls, index: int, tokens: int, limit: int) -> PromptTooLong:
        """The prompt of a document, of at least so many tokens."""
        return cls(
            f"This model's maximum context length is {limit} tokens. However, your prompt for document {index} "
            f"contains at least {tokens} input tokens. Please reduce the length of the input prompt, or set "
            "truncate_prompt_tokens to -1 to have the document cut."
        )


class Unauthorized(RequestError):
    """No key was given (`missing`), or a wrong one."""

    def __init__(self, *, missing: bool) -> None:
        super().__init__(
            "No API key was given: send the header 'Authorization: Bearer <key>'."
            if missing
            else "The API key is not valid."
        )
        self.missing = missing


class ModelNotFound(RequestError):
    """A model name that this server does not answer to."""

    def __init__(self, name: str, served: tuple[str, ...]) -> None:
        super().__init__(f"The model `{name[:200]}` does not exist. Served here: {', '.join(served)}.")
        self.name = name[:200]


class Unavailable(RerankdError):
    """The server cannot answer now. `retry_after_s`: seconds after which another try makes sense, >= 1."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, retry_after_s)


class Busy(Unavailable):
    """The queue is full."""


class Loading(Unavailable):
    """The model is still loading."""


class Stopping(Unavailable):
    """The engine is shutting down."""


class InferenceError(RerankdError):
    """The model failed on this request; the cause is chained and logged, never sent to a client."""


class ModelError(RerankdError):
    """A model cannot be served."""


class CheckpointNotFound(ModelError):
    """No such folder, repository or revision."""


class CheckpointInvalid(ModelError):
    """The files are there, but they are not a checkpoint that this program can run."""


class HubUnreachable(ModelError):
    """The model hub cannot be reached, and the checkpoint is not on this machine."""


class SelfTestFailed(ModelError):
    """The model's scores for the known-answer check are constant, NaN or in the wrong order."""


class SettingsError(RerankdError):
    """A setting is unknown, malformed or unsafe."""


class RemoteError(RerankdError):
    """Another server answered with an error. `status` is the HTTP status, None where there was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
