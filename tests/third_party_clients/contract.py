"""What every client must show: a subclass says how one of its calls is made, the tests are the same for all.

Runs in the client's own environment, where there is pytest and nothing of rerankd.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import pytest

QUERY = "What is the capital of China?"
DOCUMENTS = ("Paris is the capital of France.", "The capital of China is Beijing.", "Gravity is a force.")
ORDER = [1, 0, 2]

WRONG_KEY = "The API key is not valid."
UNKNOWN_MODEL = "The model `nobody/nothing` does not exist."
RATE_LIMIT = "Rate limit exceeded"
"""What the server says where an API has no words of its own."""


@dataclass(frozen=True)
class Server:
    """A running rerankd and a key for it."""

    url: str
    key: str


@dataclass(frozen=True)
class Request:
    """What a test asks. None: left to the client."""

    documents: list[str] = field(default_factory=lambda: list(DOCUMENTS))
    query: str = QUERY
    model: str = "qwen3-rerank"
    top_n: int | None = None
    return_documents: bool | None = None


class Ranked(NamedTuple):
    """One result as the client shows it: the index in the request, a score, and the text where the client has it."""

    index: int  # type: ignore[assignment]  # a tuple has a method of this name
    score: float
    document: str | None = None


class Refusal(NamedTuple):
    """How a client tells a refusal: the class of its exception, and a text in its message."""

    error: type[Exception]
    text: str = ""


class Refusals(NamedTuple):
    """By what is wrong. None: nothing is, and the documents are ranked. too_many: documents."""

    wrong_key: Refusal
    unknown_model: Refusal | None
    too_many: Refusal | None
    rate_limit: Refusal

    @classmethod
    def all(cls, refusal: Refusal) -> Refusals:
        """The same for all."""
        return cls(*[refusal] * len(cls._fields))


class NotRaised(Exception):
    """A refusal that the client tells without an exception; raised by the test in its place.

    kind: what the client's user looks at.
    """

    def __init__(self, kind: str, message: str = "") -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class ClientContract(ABC):
    """The tests of one call of one client. Subclasses are named Test….

    distribution: on PyPI. call: as its users write it. reached: how it is pointed to a server, `URL` for the address.
    base: what is added to that address. refusals: by condition; None where nothing is refused, but ranked.
    too_many: documents that are one too many. cuts: the client has an option for the best few only. keyed: it can send
    a key.
    """

    distribution: ClassVar[str]
    call: ClassVar[str]
    reached: ClassVar[str]
    base: ClassVar[str] = ""
    refusals: ClassVar[Refusals]
    too_many: ClassVar[int] = 501
    cuts: ClassVar[bool] = True
    keyed: ClassVar[bool] = True

    @abstractmethod
    def rank(self, server: Server, request: Request) -> list[Ranked]:
        """Makes the call, in the client's order; raises what the client raises."""

    def at(self, server: Server) -> str:
        """The address for the client."""
        return server.url + self.base

    def wrong_request(self, condition: str) -> Request:
        """One to be refused; a good one where the server refuses all."""
        if condition == "unknown_model":
            return Request(model="nobody/nothing")
        if condition == "too_many":
            return Request([*DOCUMENTS, *["Bread is baked."] * (self.too_many - len(DOCUMENTS))])
        return Request()

    def test_ranks(self, server: Server, told: Callable[[str], None]) -> None:
        results = self.rank(server, Request())
        assert [result.index for result in results] == ORDER
        scores = [result.score for result in results]
        assert scores == sorted(scores, reverse=True) and len(set(scores)) == len(scores)
        assert all(0 <= score <= 1 for score in scores)
        assert all(result.document in (None, DOCUMENTS[result.index]) for result in results)
        told("yes")

    def test_returns_the_best(self, server: Server, told: Callable[[str], None]) -> None:
        if not self.cuts:
            told("–")
            pytest.skip("the client has no such option")
        results = self.rank(server, Request(top_n=2))
        assert [result.index for result in results] == ORDER[:2]
        told("yes")

    @pytest.mark.parametrize("condition", Refusals._fields)
    def test_refusal(
        self,
        condition: str,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
        told: Callable[[str], None],
    ) -> None:
        expected: Refusal | None = getattr(self.refusals, condition)
        server: Server = request.getfixturevalue(SERVERS.get(condition, "server"))
        do_not_wait(monkeypatch)
        if expected is None:
            assert self.rank(server, self.wrong_request(condition))[0].index == ORDER[0]
            told("–")
            return
        with pytest.raises(expected.error) as raised:
            self.rank(server, self.wrong_request(condition))
        assert type(raised.value) is expected.error
        assert expected.text in str(raised.value)
        told(raised.value.kind if isinstance(raised.value, NotRaised) else expected.error.__name__)


SERVERS = {"wrong_key": "locked", "rate_limit": "limited"}
"""The fixtures of those that refuse whatever is asked."""


def do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a client try again at once, however long it was told to wait."""
    sleep = asyncio.sleep

    async def go_on(_: float, result: Any = None) -> Any:
        return await sleep(0, result)

    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(asyncio, "sleep", go_on)
