"""Our own API: finds parts of files in the server's index, and ranks them. Knows no index: `Finds` looks in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, Protocol

from pydantic import BaseModel, Field

from rerankd.apis.base import Answer, Api, ApiSettings, Call, Show
from rerankd.apis.facts import SEARCH
from rerankd.apis.fields import JSON, InstructBody, OwnFields, Usage
from rerankd.apis.vllm import ERRORS, ErrorObject, error_object
from rerankd.errors import RerankdError
from rerankd.types import Score

DEPTH, MAX_DEPTH, MAX_PATTERNS = 50, 1000, 100


First = Literal["bm25", "dense", "hybrid"]

MISSING = "some parts have no vectors yet and are found by words only: rerankd index PATH --first hybrid"


class Found(Protocol):
    """A part of a file, as the index has it."""

    @property
    def path(self) -> str: ...

    @property
    def first(self) -> int: ...

    @property
    def last(self) -> int: ...

    @property
    def heading(self) -> str: ...

    @property
    def id(self) -> str: ...

    @property
    def text(self) -> str: ...

    @property
    def document(self) -> str:
        """The ranked text: the part below its heading."""
        ...


class Finds(Protocol):
    """The server's index. May be asked from any thread, and may take its time."""

    @property
    def has_all_vectors(self) -> bool:
        """Whether each part has its vector."""
        ...

    def search(
        self, query: str, depth: int, *, first: First, instruct: str | None = None, only: Sequence[str] = ()
    ) -> Sequence[Found]:
        """The parts that a first stage finds, best first, at most `depth`, in files that fit one of `only`, if any."""
        ...


PART = ("path", "first", "last", "heading", "id", "text")
"""The fields of a part that a result has."""

Order = Callable[[Sequence[int], Sequence[str], str], list[int]]
"""Places of parts by score, what each is part of, and the model → places as they are shown."""

CHOSEN_FROM = 3
"""The model ranks this many times as many parts as results are shown, so that each file shows its best part."""


# The bodies, as the API's description shows them.


class Body(InstructBody):
    query: str = Field(examples=["How are keys rotated?"])
    model: str | None = Field(None, description="A served name; any, when left out.")
    top_n: int = Field(10, ge=1, le=MAX_DEPTH, description="How many results to return.")
    depth: int = Field(
        DEPTH, ge=1, le=MAX_DEPTH, description="How many parts the first stage finds and the model ranks."
    )
    first: First = Field(
        "bm25",
        description="How parts are found: by words, by the vectors of the index, or by both. The last two need "
        "vectors: `rerankd index PATH --index DIR --first hybrid`.",
    )
    only: list[str] = Field(
        [],
        max_length=MAX_PATTERNS,
        description="Searches only such files of the index: patterns of a .gitignore, such as `docs/` or `*.md`.",
        examples=[["docs/**"]],
    )


class Result(OwnFields):
    path: str = Field(description="Of the file, below the folder that was indexed.")
    first: int = Field(description="Its first line; in a PDF file or a presentation the page; the line of a record.")
    last: int
    heading: str = Field(description="The headings above the part, outermost first, or its title; empty for none.")
    id: str = Field(description="Of the record that it is part of; empty in a file without records.")
    text: str = Field(description="The part; the offsets of `passages` count in it.")
    score: float = Field(ge=0, le=1, description="The model reads the text below its headings.")


class Reply(BaseModel):
    id: str
    model: str
    found: int = Field(description="The number of parts that the first stage found, at most `depth`.")
    results: list[Result] = Field(
        description="The best part of each file, best first; behind them further parts of these files."
    )
    usage: Usage
    warnings: list[str]


class Error(BaseModel):
    error: ErrorObject


class Search(Api[Body]):
    """`POST /v1/search`."""

    facts = SEARCH
    body = Body
    reply_body = Reply
    error_body = Error
    errors = ERRORS
    own_bytes = 100_000
    waits: ClassVar[bool] = True

    def __init__(self, settings: ApiSettings, finds: Finds, order: Order) -> None:
        super().__init__(settings)
        self._finds, self._order = finds, order

    def parse(self, body: Body) -> Call:
        task = body.instruct or body.instruction
        found = self._finds.search(body.query, body.depth, first=body.first, instruct=task, only=body.only)
        sent = [{name: getattr(one, name) for name in PART} for one in found]
        documents = [one.document for one in found]
        show = Show(True, sent, at_most=body.top_n)
        warnings = (MISSING,) if body.first != "bm25" and not self._finds.has_all_vectors else ()
        return self.call(
            body, body.query, documents, CHOSEN_FROM * body.top_n, model=body.model, warnings=warnings, show=show
        )

    def reply(self, answer: Answer) -> JSON:
        return {
            "id": f"search-{answer.id}",
            "model": answer.model,
            "found": len(answer.show.sent),
            "results": [_result(answer, score) for score in self._shown(answer)],
            "usage": answer.openai_usage,
            "warnings": list(answer.warnings),
        }

    def _shown(self, answer: Answer) -> list[Score]:
        scores = {score.index: score for score in answer.ranking.ranked}
        parts = [one for one in answer.show.sent if isinstance(one, dict)]
        wholes = [f"{one['path']}:{one['first'] if one['id'] else ''}" for one in parts]
        order = self._order(list(scores), wholes, answer.ranking.model or answer.info.name)
        return [scores[place] for place in order[: answer.show.at_most]]

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        return ERRORS.status(error), {"error": error_object(error)}


def _result(answer: Answer, score: Score) -> JSON:
    part = answer.show.sent[score.index]
    assert isinstance(part, dict)
    result = answer.result(score, **part, score=score.score)
    if "passages" in result:
        lead = len(score.document or "") - len(part["text"])
        result["passages"] = _moved(result["passages"], lead)
        for passage in result["passages"]:
            if "sentences" in passage:
                passage["sentences"] = _moved(passage["sentences"], lead)
    return result


def _moved(spans: Sequence[JSON], lead: int) -> list[JSON]:
    """Offsets in the text, from offsets in the document, which has the headings before it."""
    moved = ({**one, "start": max(0, one["start"] - lead), "end": one["end"] - lead} for one in spans)
    return [one for one in moved if one["end"] > 0]
