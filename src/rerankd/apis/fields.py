"""Fields that several APIs have: lists with bounds, documents as objects, the instruct, the priority. Knows no API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, WithJsonSchema
from pydantic_core import core_schema

from rerankd.errors import InvalidRequest, Problem
from rerankd.types import DEFAULT_INSTRUCT, MAX_PASSAGES, MIN_PASSAGE_TOKENS, OVERLAP_TOKENS

JSON = dict[str, Any]
Item = TypeVar("Item")

MAX_ITEMS = 100_000
"""Longest list in a body. A document takes a kilobyte while it is ranked, however short it is."""


@dataclass(frozen=True)
class Bounded:
    """A list in a body. Validation stops at its first mistake: all mistakes of a few megabytes would take gigabytes.

    Pydantic's own FailFast cannot be hashed, so it cannot be in a union.
    """

    max_items: int = MAX_ITEMS

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return {**handler(source), "fail_fast": True, "max_length": self.max_items}


ListOf = Annotated[list[Item], Bounded()]


class Explain(BaseModel):
    """The options of `explain`."""

    model_config = ConfigDict(extra="forbid")
    prompt: int | None = Field(None, ge=0, description="Index of the document whose exact prompt is returned too.")


MAX_DEADLINE_MS = 3_600_000


class PassageOptions(BaseModel):
    """The options of `passages`."""

    model_config = ConfigDict(extra="forbid")
    max_tokens: int | None = Field(
        None,
        ge=MIN_PASSAGE_TOKENS,
        description="Of a passage; by default as many as fit beside the query, and a document that fits is not split.",
    )
    overlap_tokens: int | None = Field(
        None,
        ge=0,
        description=f"At the end of a passage, repeated by the next one; {OVERLAP_TOKENS} with `max_tokens`, else 0.",
    )
    max_per_doc: int | None = Field(
        None,
        ge=1,
        description=f"The most passages of a document; the text after them is not read. {MAX_PASSAGES} by default and "
        "at most.",
    )
    top_n: int = Field(1, ge=0, description="How many passages of each result are returned.")
    highlight: bool = Field(False, description="Score the sentences of the best passage of each result, too; billed.")


def _no_bool(value: Any) -> Any:
    """pydantic takes true for 1."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number, 'keep' or 'relevant'")
    return value


Threshold = Annotated[float, BeforeValidator(_no_bool)]


class RequestBody(BaseModel):
    """A parsed request body. It keeps unknown fields, so that a warning can name them."""

    model_config = ConfigDict(extra="allow")

    explain: Explain | bool | None = Field(
        None,
        description="rerankd's own: true adds to each result its logit, tokens, cuts, and whether it was computed; "
        '`{"prompt": 0}` also the exact prompt of document 0.',
    )

    passages: PassageOptions | bool | None = Field(
        None,
        description="rerankd's own: true splits documents that do not fit into passages at sentences; a document has "
        "its best passage's score, and each result says where in the text that is.",
    )

    deadline_ms: int | None = Field(
        None,
        ge=1,
        le=MAX_DEADLINE_MS,
        description="rerankd's own: milliseconds after the first byte of the request. What is not scored by then comes "
        "last, with `scored` false, and is not charged.",
    )

    def passages_asked(self) -> PassageOptions | bool | None:
        """How documents are to be split; None: as the API documents it."""
        return self.passages

    min_score: Threshold | Literal["keep", "relevant"] | None = Field(
        None,
        description="rerankd's own: leaves out the results with a lower score. `keep` and `relevant` are the "
        "thresholds of the calibration.",
    )
    calibration: str | None = Field(
        None,
        description="rerankd's own: the name of a calibration of the server. Each score becomes the probability that "
        "the document is relevant.",
    )

    cascade: bool | Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="rerankd's own, where the server has a second model: false leaves it out, a number is how many of "
        "the best documents it scores.",
    )

    def own(self) -> RequestBody:
        """The fields of this class, where the API has them in several places."""
        return self

    def unknown_fields(self) -> list[Problem]:
        """The first unknown fields, as mistakes: a misspelt field explains a missing one."""
        return [Problem(name[:100], "Unknown field", "extra_forbidden") for name in list(self.model_extra or {})[:8]]


class InstructBody(RequestBody):
    """A body of an API without an instruct of its own."""

    instruct: str | None = Field(None, description=f"rerankd's own: the sorting task. Default: {DEFAULT_INSTRUCT}")
    instruction: str | None = Field(None, description="The same under vLLM's name.")

    def instruct_asked(self) -> tuple[str, tuple[str, ...]]:
        """The instruct, and a warning if the two fields differ."""
        instruct, warnings = first_given({"instruct": self.instruct, "instruction": self.instruction})
        return instruct or DEFAULT_INSTRUCT, warnings


def chunks_asked(
    passages: PassageOptions | bool | None, max_chunks: int | None, overlap: int | None = None
) -> PassageOptions | bool | None:
    """Our field, else what the vendors' names for the same ask. They say nothing about the documents that fit."""
    if passages is not None or not (max_chunks or overlap):
        return passages
    return PassageOptions(max_per_doc=max(max_chunks or 0, 0) or None, overlap_tokens=max(overlap or 0, 0), top_n=0)


def first_given(values: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """The first text that is not empty, and a warning for each field that differs from it. `values`: by field."""
    given = {name: text for name, text in values.items() if isinstance(text, str) and text}
    first = next(iter(given), None)
    if first is None:
        return None, ()
    differing = [name for name, text in given.items() if text != given[first]]
    return given[first], tuple(f"{name} ignored: {first} says something else" for name in differing)


def bare_text(value: Any) -> Any:
    """The text of an object with `text`; any other value as it is."""
    return value["text"] if isinstance(value, dict) and "text" in value else value


Document = Annotated[
    str,
    BeforeValidator(bare_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
            ]
        }
    ),
]
"""A document: its text, or an object with the key `text`."""


class ShownPassage(BaseModel):
    """A part of a document as it was sent: characters `start` to `end`, counted in code points."""

    start: int
    end: int
    logit: float | None
    score: float
    tokens: int | None
    sentences: list[JSON] | None = Field(
        None, description="Only with `highlight`: start, end, score and logit of each."
    )


class OwnFields(BaseModel):
    """The fields that rerankd adds to a result of any API if the caller asks for them."""

    scored: bool | None = Field(None, description="false: the deadline came first.")
    explain: JSON | None = None
    passages: list[ShownPassage] | None = None
    num_passages: int | None = None


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EchoedDocument(BaseModel):
    """It has all keys of the document that was sent."""

    model_config = ConfigDict(extra="allow")

    text: str


MAX_NAMES = 8
MAX_NAME_CHARS = 100
"""Bounds of the caller's field names in a message."""

ObjectDocument = str | dict[str, Any]
"""A text, or an object with `text`, with `content` (vLLM's list of parts), or with the rank fields."""


def document_texts(
    documents: Sequence[ObjectDocument], path: str, rank_fields: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The text of each document.

    Args:
        path: of the list in the body, for messages.
        rank_fields: the keys whose values are scored, one per line as `key: value`, as Cohere's v1 does; `text` alone
            is scored as it is.

    Raises:
        InvalidRequest: an object has none of them, or they are not texts.
    """
    names = list(dict.fromkeys(rank_fields or ()))  # a name that occurs twice would score its text twice
    return tuple(document_text(document, f"{path}.{index}", names) for index, document in enumerate(documents))


def echo(document: ObjectDocument, text: str | None) -> JSON:
    """A document in a reply: an object with its text and all its other keys."""
    if isinstance(document, str):
        return {"text": text}
    return document if isinstance(document.get("text"), str) else {**document, "text": text}


def document_text(document: ObjectDocument, path: str, rank_fields: Sequence[str] | None = None) -> str:
    """The text of one document, or of a query that may be an object, too."""
    if isinstance(document, str):
        return document
    if rank_fields and list(rank_fields) != ["text"]:
        return _ranked_text(document, path, rank_fields)
    text = document.get("text", document.get("content"))
    if isinstance(text, list):
        text = _parts(text, path)
    return text if isinstance(text, str) else _refuse(path, "a document object needs the key 'text', a string")


def _ranked_text(document: dict[str, Any], path: str, rank_fields: Sequence[str]) -> str:
    try:
        lines = [f"{name}: {document[name]}" for name in rank_fields if name in document]
    except RecursionError:
        _refuse(path, "a value is nested too deeply to be scored")
    names = ", ".join(name[:MAX_NAME_CHARS] for name in rank_fields[:MAX_NAMES])
    return "\n".join(lines) or _refuse(path, f"the document has none of the rank_fields ({names})")


def _parts(parts: list[Any], path: str) -> str:
    """vLLM's content. Only text parts: the model reads no images."""
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            _refuse(path, "only parts of the type 'text' can be scored")
        texts.append(part["text"])
    return "\n".join(texts)


def _refuse(path: str, problem: str) -> NoReturn:
    raise InvalidRequest(f"{path}: {problem}.", ((path, problem),))


MAX_RANK_FIELDS = 100

RankFields = Annotated[list[str], Bounded(MAX_RANK_FIELDS)]

MAX_PRIORITY = 999
"""As Cohere's; the lowest one is its negative."""

MAX_NAMED = 5


def allowed_priority(asked: int | None, *, trusted: bool) -> tuple[int, tuple[str, ...]]:
    """The priority of a call, and a warning if the caller asked for another one.

    Every caller may lower its priority. Only trusted callers may raise it.
    """
    lowest = -MAX_PRIORITY if trusted else 0
    priority = min(max(asked or 0, lowest), MAX_PRIORITY)
    if asked is None or asked == priority:
        return priority, ()
    return priority, (f"priority set to {priority}: this server accepts {lowest} to {MAX_PRIORITY}",)


def ignored_keys(field: str, keys: Iterable[str]) -> tuple[str, ...]:
    """A warning for each of the first keys that have no effect, and one with the number of the others."""
    listed = list(keys)
    named = tuple(f"{field}.{key[:100]} ignored" for key in listed[:MAX_NAMED])
    rest = len(listed) - MAX_NAMED
    return (*named, f"{rest} more keys of {field} ignored") if rest > 0 else named
