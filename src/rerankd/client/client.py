"""`Client` and `AsyncClient`: they send and wait. What is sent, and what an answer means, is `call.py`'s."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import httpx

from rerankd.client.call import Call, Endpoint, Part
from rerankd.client.dialects import DialectName
from rerankd.client.ranking import RemoteRanking
from rerankd.client.reply import Reply

TIMEOUT_S = 600.0
"""Many long documents on a small machine take minutes."""

CONNECT_TIMEOUT_S = 5.0

CONCURRENT_PARTS = 4
"""Requests of one call that are under way at a time."""


class Client:
    """Asks a rerank server: rerankd, or any other that speaks one of the dialects. Safe to use from several threads.

        with Client("http://127.0.0.1:8000") as client:
            for result in client.rerank("capital of China?", documents, top_n=3).ranked:
                print(result.index, result.score, result.document)

    Args:
        base_url: the server's root, the API's root (`https://api.jina.ai/v1`), or the full address of its rerank.
        dialect: what it speaks; `auto` tells by the address, and takes what it does not know for vLLM's `/v1/rerank`.
        model: the name that calls without one ask for.
        timeout: seconds that the server may be silent; 5 while it is being connected to.
        max_retries: how often a request is sent again after a 408, 409, 429 or 5xx, or a broken connection.
            `Retry-After` is kept to; if it asks for more than 60 s, the error is raised at once.
        max_documents: of one request; a longer call is split, and its replies are merged. None: what the dialect
            documents. Right for models that score each document by itself, as nearly all do.

    Raises:
        SettingsError: one of these makes no sense.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        dialect: DialectName = "auto",
        model: str | None = None,
        timeout: float = TIMEOUT_S,
        max_retries: int = 2,
        max_documents: int | None = None,
    ) -> None:
        self._endpoint = Endpoint(base_url, api_key, dialect, model, max_retries, max_documents)
        self._http = httpx.Client(headers=self._endpoint.headers, timeout=_timeout(timeout))

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        return_documents: bool = True,
        model: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> RemoteRanking:
        """Scores every document for the query, best first.

        Where a call is split, the first error of a part is raised at once, and no further part is sent.

        Args:
            top_n: how many results, None for all.
            instruct: the sorting task; None: the server's default.
            return_documents: whether the results carry the texts (of `documents`; they are not sent back).
            progress: called with the number of documents scored so far, after each part of a call that is split.

        Raises:
            InvalidRequest: no documents, or top_n below 1.
            RemoteError: the server cannot be reached, refuses, or answers something else than a ranking.
        """
        call = Call(query, documents, top_n, instruct, return_documents, model)
        parts = self._endpoint.parts(call)
        if len(parts) == 1:
            replies = [self._ask(parts[0], threading.Event())]
        else:
            replies = self._ask_all(parts, progress or _unheard)
        return self._endpoint.ranking(call, parts, replies)

    def _ask(self, part: Part, stop: threading.Event) -> Reply:
        attempt = 0
        while not isinstance(verdict := self._endpoint.verdict(part, self._post(part), attempt), Reply):
            if stop.wait(verdict):
                raise CancelledError
            attempt += 1
        return verdict

    def _post(self, part: Part) -> httpx.Response | httpx.HTTPError:
        try:
            return self._http.post(self._endpoint.url, content=part.content)
        except httpx.HTTPError as error:
            return error

    def _ask_all(self, parts: Sequence[Part], progress: Callable[[int], None]) -> list[Reply]:
        """On daemon threads: a request under way cannot be called back, but holds up neither an error nor an exit."""
        stop = threading.Event()
        waiting = deque(enumerate(parts))
        outcomes: SimpleQueue[tuple[int, Reply | Exception]] = SimpleQueue()

        def work() -> None:
            while waiting and not stop.is_set():
                try:
                    index, part = waiting.popleft()
                except IndexError:  # another thread took the last one
                    return
                try:
                    outcomes.put((index, self._ask(part, stop)))
                except Exception as error:
                    outcomes.put((index, error))  # before the others break off, so that it is told
                    stop.set()

        for _ in range(min(CONCURRENT_PARTS, len(parts))):
            threading.Thread(target=work, daemon=True).start()
        replies: dict[int, Reply] = {}
        try:
            while len(replies) < len(parts):
                index, outcome = outcomes.get()
                if isinstance(outcome, Exception):
                    raise outcome
                replies[index] = outcome
                progress(sum(parts[index].num_documents for index in replies))
        finally:
            stop.set()
        return [replies[index] for index in range(len(parts))]

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """The same for asyncio: same arguments, same results, same errors. A cancelled call ends its requests."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        dialect: DialectName = "auto",
        model: str | None = None,
        timeout: float = TIMEOUT_S,
        max_retries: int = 2,
        max_documents: int | None = None,
    ) -> None:
        self._endpoint = Endpoint(base_url, api_key, dialect, model, max_retries, max_documents)
        self._http = httpx.AsyncClient(headers=self._endpoint.headers, timeout=_timeout(timeout))

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        return_documents: bool = True,
        model: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> RemoteRanking:
        """See `Client.rerank`. Where a call is split, the first error of a part ends the others."""
        call = Call(query, documents, top_n, instruct, return_documents, model)
        parts = self._endpoint.parts(call)
        return self._endpoint.ranking(call, parts, await self._ask_all(parts, progress or _unheard))

    async def _ask(self, part: Part, turn: asyncio.Semaphore) -> Reply:
        async with turn:
            attempt = 0
            while not isinstance(verdict := self._endpoint.verdict(part, await self._post(part), attempt), Reply):
                await asyncio.sleep(verdict)
                attempt += 1
            return verdict

    async def _post(self, part: Part) -> httpx.Response | httpx.HTTPError:
        try:
            return await self._http.post(self._endpoint.url, content=part.content)
        except httpx.HTTPError as error:
            return error

    async def _ask_all(self, parts: Sequence[Part], progress: Callable[[int], None]) -> list[Reply]:
        turn = asyncio.Semaphore(CONCURRENT_PARTS)
        done = 0

        async def ask(part: Part) -> Reply:
            nonlocal done
            reply = await self._ask(part, turn)
            done += part.num_documents
            progress(done)
            return reply

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(part)) for part in parts]
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__
        return [task.result() for task in tasks]

    async def close(self) -> None:
        """Ends the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _unheard(num_documents: int) -> None:
    """Where nobody asked for progress."""


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_TIMEOUT_S), pool=None)
