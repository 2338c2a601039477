"""`AsyncClient`: it sends, and waits in an event loop. `call.py` decides what is sent and what a response means."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

import httpx2

from rerankd.arguments import Documents
from rerankd.calibration.apply import Named
from rerankd.client.base import CONCURRENT_CHUNKS, BaseClient
from rerankd.client.bounded import MAX_STATUS_BYTES, aread_bounded
from rerankd.client.call import MAX_REDIRECTS
from rerankd.client.failures import as_http_error, connection_error
from rerankd.client.requests import Answered, Call, Chunk, Divided, Progress
from rerankd.client.settings import ClientSettings, sendable_headers
from rerankd.deprecation import warn_renamed
from rerankd.types import Passages, Ranking

CLOSING_ROUNDS = 5
"""Rounds of the event loop after connections close: uvloop closes sockets late, and warns if the loop ends before."""


class AsyncClient(BaseClient):
    """A `Client` for asyncio: same arguments, same results, same errors. A cancelled call cancels its requests.

    Each event loop has its own connections, so a client may outlive `asyncio.run`. `close` closes those of the running
    loop.
    """

    def __setstate__(self, settings: ClientSettings) -> None:
        super().__setstate__(settings)
        self._connections: dict[asyncio.AbstractEventLoop, httpx2.AsyncClient] = {}
        self._process = os.getpid()

    async def rank(
        self,
        query: str,
        documents: Documents,
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        passages: bool | Passages = False,
        deadline_s: float | None = None,
        return_documents: bool = True,
        model: str | None = None,
        min_score: float | Named | None = None,
        calibration: str | None = None,
        progress: Callable[[int], None] | None = None,
        headers: Mapping[str, str] | None = None,
        slots: AbstractAsyncContextManager[object] | None = None,
    ) -> Ranking:
        """See `Client.rank`. If a call is split, its first error cancels the other requests.

        Args:
            slots: entered around every request of the call, and shared between calls: an `asyncio.Semaphore` bounds
                the concurrent requests of all of them. None: 4 concurrent requests of this call.
        """
        self.refuse_if_closed()
        own = passages, min_score, calibration, deadline_s
        call = self._endpoint.call(query, documents, top_n, instruct, return_documents, model, *own)
        chunks = self._endpoint.chunks(call)
        done = Progress(call, progress)
        bounds = asyncio.Semaphore(CONCURRENT_CHUNKS) if slots is None else slots
        answers = await self._ask_all(call, chunks, sendable_headers(headers or {}), bounds, done)
        return self._endpoint.ranking(call, answers)

    arank = rank
    """The name that `AsyncRanker` has for it."""

    def rerank(self, query: str, documents: Documents, **options: Any) -> Coroutine[Any, Any, Ranking]:
        """Deprecated: use `rank`."""
        warn_renamed("AsyncClient.rerank", "rank")
        return self.rank(query, documents, **options)

    async def get(self, path: str, *, timeout_s: float, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """(status, content) of a path from the server's root, such as `/health`. Follows no redirect, never retries.

        Args:
            path: begins with `/`.
            timeout_s: for the whole reply.
            headers: see `rank`.

        Raises:
            RemoteUnreachable: the server cannot be reached, or (`RemoteTimeout`) does not answer in time.
            RemoteReplyInvalid: the reply has more than 1 MB, or cannot be unpacked.
        """
        url = self._endpoint.url.copy_with(raw_path=path.encode("ascii"), fragment=None)
        try:
            async with asyncio.timeout(timeout_s):
                async with self._http.stream("GET", url, headers=sendable_headers(headers or {})) as opened:
                    response = await aread_bounded(opened, MAX_STATUS_BYTES)
        except TimeoutError:
            late = httpx2.ReadTimeout(f"no answer to GET {path} after {timeout_s} s")
            raise connection_error(self._endpoint.shown, late) from None
        except (httpx2.HTTPError, AttributeError) as error:
            raise connection_error(self._endpoint.shown, as_http_error(error)) from error
        return response.status_code, response.content

    async def _ask(
        self, call: Call, chunk: Chunk, headers: Mapping[str, str], slots: AbstractAsyncContextManager[object]
    ) -> list[Answered]:
        async with slots:
            return await self._ask_in_slot(call, chunk, headers)

    async def _ask_in_slot(self, call: Call, chunk: Chunk, headers: Mapping[str, str]) -> list[Answered]:
        attempt = 0
        while True:
            late = self._endpoint.late(call)
            verdict = late or self._endpoint.verdict(call, chunk, await self._post(call, chunk, headers), attempt)
            if isinstance(verdict, Divided):
                return [one for part in verdict.chunks for one in await self._ask_in_slot(call, part, headers)]
            if not isinstance(verdict, float):
                return [(chunk, verdict)]
            await asyncio.sleep(verdict)
            attempt += 1

    async def _post(self, call: Call, chunk: Chunk, headers: Mapping[str, str]) -> httpx2.Response | httpx2.HTTPError:
        url, headers = self._endpoint.url, {**self._endpoint.headers_of(call), **headers}
        try:
            for _ in range(MAX_REDIRECTS + 1):
                async with self._http.stream("POST", url, content=chunk.content, headers=headers) as opened:
                    response = await aread_bounded(opened, chunk.max_reply_bytes)
                if (target := self._endpoint.redirection(response)) is None:
                    break
                url = target
        except (httpx2.HTTPError, AttributeError) as error:
            return as_http_error(error)
        except RuntimeError:  # raised by httpx2 after another task has closed it
            self.refuse_if_closed()
            raise
        return response

    @property
    def _http(self) -> httpx2.AsyncClient:
        """The connections of the running loop and of this process. A forked process does not use its parent's."""
        self.refuse_if_closed()
        loop, process = asyncio.get_running_loop(), os.getpid()
        if self._process != process:
            self._connections, self._process = {}, process
        if loop not in self._connections:
            made = self._endpoint.route.async_client(self._endpoint.headers, self._settings.waits)
            alive = {other: http for other, http in self._connections.items() if not other.is_closed()}
            self._connections = alive | {loop: made}
        return self._connections[loop]

    async def _ask_all(
        self,
        call: Call,
        chunks: Sequence[Chunk],
        headers: Mapping[str, str],
        slots: AbstractAsyncContextManager[object],
        progress: Progress,
    ) -> list[Answered]:
        async def ask(chunk: Chunk) -> list[Answered]:
            answers = await self._ask(call, chunk, headers, slots)
            progress.add(chunk)
            return answers

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(chunk)) for chunk in chunks]
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__
        return [one for task in tasks for one in task.result()]

    async def close(self) -> None:
        """Closes the connections."""
        self._is_closed = True
        if http := self._connections.pop(asyncio.get_running_loop(), None):
            await http.aclose()
            for _ in range(CLOSING_ROUNDS):
                await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
