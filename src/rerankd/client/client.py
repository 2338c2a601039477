"""`Client` and `AsyncClient`: they send and wait. `call.py` decides what is sent and what a response means."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import httpx2

from rerankd.arguments import Documents
from rerankd.client.call import MAX_REDIRECTS, Chunk, Endpoint, Progress
from rerankd.client.connections import Verify
from rerankd.client.dialects import DialectName
from rerankd.client.reply import Reply
from rerankd.client.settings import TIMEOUT_S, ClientSettings, from_environment
from rerankd.deprecation import warn_renamed
from rerankd.errors import Closed
from rerankd.types import Ranking

CONCURRENT_CHUNKS = 4
"""Concurrent requests of one call."""


class _BaseClient:
    """What both clients have in common: settings, copies and pickles.

    A copy, an unpickled client and a forked process have the same settings, including the key, and their own
    connections.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        dialect: DialectName = "auto",
        model: str | None = None,
        timeout: float | None = TIMEOUT_S,
        max_retries: int = 2,
        max_documents: int | None = None,
        headers: Mapping[str, str] | None = None,
        verify: Verify = True,
    ) -> None:
        url, key = from_environment(base_url, api_key)
        self.__setstate__(
            ClientSettings(
                url,
                key,
                dialect,
                model,
                timeout,
                max_retries,
                max_documents,
                {} if headers is None else headers,
                verify,
            )
        )

    def __getstate__(self) -> ClientSettings:
        return self._settings

    def __setstate__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._endpoint = Endpoint(settings)
        self._is_closed = False

    def __copy__(self) -> Self:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = type(self).__new__(type(self))
        copied.__setstate__(self._settings)
        return copied

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.shown!r}, dialect={self._endpoint.name!r})"

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise Closed(type(self).__name__)


class Client(_BaseClient):
    """Asks a rerank server: rerankd, or any other that speaks one of the dialects. Thread-safe.

        with Client("http://127.0.0.1:8000") as client:
            for result in client.rank("capital of China?", documents, top_n=3):
                print(result.index, result.score, result.document)

    The environment sets proxies and certificates (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE,
    SSL_CERT_DIR). A server on this machine is asked without a proxy.

    Args:
        base_url: the server's root, the API's root (`https://api.jina.ai/v1`), or the full address of its rerank
            endpoint; `unix:/run/rerankd.sock` for a server on a socket. None: the variable RERANKD_URL, with the key
            in RERANKD_API_KEY.
        dialect: the API that the server speaks. `auto` reads it from the address; the default is vLLM's `/v1/rerank`.
        model: the model of calls that name none.
        timeout: seconds the server may be silent, None for no limit. Connecting has 5 s.
        max_retries: how often a request is retried after a 408, 409, 429 or 5xx, or a broken connection. The client
            waits as `Retry-After` says; if that is more than 60 s, it raises the error at once.
        max_documents: per request. A longer call is split, and its replies are merged. None: the dialect's documented
            limit. Correct for models that score each document by itself, as nearly all do.
        headers: sent with every request; they replace ours of the same name.
        verify: True, False, an `ssl.SSLContext`, or the file or folder of the authorities that may sign the server's
            certificate.

    Raises:
        SettingsError: an argument or an environment variable is invalid.
    """

    def __setstate__(self, settings: ClientSettings) -> None:
        super().__setstate__(settings)
        self._connections: dict[int, httpx2.Client] = {}

    def rank(
        self,
        query: str,
        documents: Documents,
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        return_documents: bool = True,
        model: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """Scores every document for the query, best first.

        If a call is split, its first error is raised at once, and no further request is sent. A call without documents
        sends nothing.

        Args:
            documents: strings, or objects with their text as `text`, in a list, an array, a table's column, or a
                generator. An empty text is not sent if the API refuses it; it comes last.
            top_n: how many results, None for all.
            instruct: the sorting task; None: the server's default.
            return_documents: whether the results have the texts. The client keeps them; the server does not send them.
            progress: called with the number of documents scored so far, after each request of the call.

        Raises:
            InvalidRequest: an argument has the wrong type or is out of range.
            RemoteError: the server cannot be reached, refuses the call, or sends something else than a ranking.
            Closed: `close` was called.
        """
        self._refuse_if_closed()
        call = self._endpoint.call(query, documents, top_n, instruct, return_documents, model)
        chunks = self._endpoint.chunks(call)
        done = Progress(call, progress)
        return self._endpoint.ranking(call, chunks, self._ask_all(chunks, done))

    async def arank(
        self,
        query: str,
        documents: Documents,
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        return_documents: bool = True,
        model: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """`rank` on another thread, for code that takes any `AsyncRanker`. A cancelled call still runs to its end."""
        return await asyncio.to_thread(
            self.rank,
            query,
            documents,
            top_n=top_n,
            instruct=instruct,
            return_documents=return_documents,
            model=model,
            progress=progress,
        )

    def rerank(self, query: str, documents: Documents, **options: Any) -> Ranking:
        """Deprecated: use `rank`."""
        warn_renamed("Client.rerank", "rank")
        return self.rank(query, documents, **options)

    def _ask(self, chunk: Chunk, stop: threading.Event) -> Reply:
        attempt = 0
        while not isinstance(verdict := self._endpoint.verdict(chunk, self._post(chunk), attempt), Reply):
            if stop.wait(verdict):
                raise CancelledError
            attempt += 1
        return verdict

    def _post(self, chunk: Chunk) -> httpx2.Response | httpx2.HTTPError:
        url = self._endpoint.url
        try:
            for _ in range(MAX_REDIRECTS + 1):
                response = self._http.post(url, content=chunk.content)
                if (target := self._endpoint.redirection(response)) is None:
                    break
                url = target
        except httpx2.HTTPError as error:
            return error
        except RuntimeError:  # raised by httpx2 after another thread has closed it
            self._refuse_if_closed()
            raise
        return response

    @property
    def _http(self) -> httpx2.Client:
        """The connections of this process. A forked process does not use its parent's."""
        self._refuse_if_closed()
        process = os.getpid()
        if process not in self._connections:
            made = self._endpoint.route.client(self._endpoint.headers, self._settings.waits)
            self._connections = {process: self._connections.get(process, made)}
        return self._connections[process]

    def _ask_all(self, chunks: Sequence[Chunk], progress: Progress) -> list[Reply]:
        """Uses daemon threads: a running request cannot be cancelled, but it delays neither an error nor the exit."""
        stop = threading.Event()
        if len(chunks) == 1:
            replies = [self._ask(chunks[0], stop)]
            progress.add(chunks[0])
            return replies
        waiting = deque(enumerate(chunks))
        outcomes: SimpleQueue[tuple[int, Reply | Exception]] = SimpleQueue()

        def work() -> None:
            while waiting and not stop.is_set():
                try:
                    index, chunk = waiting.popleft()
                except IndexError:  # another thread took the last one
                    return
                try:
                    outcomes.put((index, self._ask(chunk, stop)))
                except Exception as error:
                    outcomes.put((index, error))  # before `stop` ends the others: this is the first error
                    stop.set()

        for _ in range(min(CONCURRENT_CHUNKS, len(chunks))):
            threading.Thread(target=work, daemon=True).start()
        try:
            return _collected(outcomes, chunks, progress)
        finally:
            stop.set()

    def close(self) -> None:
        """Closes the connections."""
        self._is_closed = True
        if http := self._connections.pop(os.getpid(), None):
            http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(_BaseClient):
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
        return_documents: bool = True,
        model: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """See `Client.rank`. If a call is split, its first error cancels the other requests."""
        self._refuse_if_closed()
        call = self._endpoint.call(query, documents, top_n, instruct, return_documents, model)
        chunks = self._endpoint.chunks(call)
        done = Progress(call, progress)
        return self._endpoint.ranking(call, chunks, await self._ask_all(chunks, done))

    arank = rank
    """The name that `AsyncRanker` has for it."""

    def rerank(self, query: str, documents: Documents, **options: Any) -> Coroutine[Any, Any, Ranking]:
        """Deprecated: use `rank`."""
        warn_renamed("AsyncClient.rerank", "rank")
        return self.rank(query, documents, **options)

    async def _ask(self, chunk: Chunk, slots: asyncio.Semaphore) -> Reply:
        async with slots:
            attempt = 0
            while not isinstance(verdict := self._endpoint.verdict(chunk, await self._post(chunk), attempt), Reply):
                await asyncio.sleep(verdict)
                attempt += 1
            return verdict

    async def _post(self, chunk: Chunk) -> httpx2.Response | httpx2.HTTPError:
        url = self._endpoint.url
        try:
            for _ in range(MAX_REDIRECTS + 1):
                response = await self._http.post(url, content=chunk.content)
                if (target := self._endpoint.redirection(response)) is None:
                    break
                url = target
        except httpx2.HTTPError as error:
            return error
        except RuntimeError:  # raised by httpx2 after another task has closed it
            self._refuse_if_closed()
            raise
        return response

    @property
    def _http(self) -> httpx2.AsyncClient:
        """The connections of the running loop and of this process. A forked process does not use its parent's."""
        self._refuse_if_closed()
        loop, process = asyncio.get_running_loop(), os.getpid()
        if self._process != process:
            self._connections, self._process = {}, process
        if loop not in self._connections:
            made = self._endpoint.route.async_client(self._endpoint.headers, self._settings.waits)
            alive = {other: http for other, http in self._connections.items() if not other.is_closed()}
            self._connections = alive | {loop: made}
        return self._connections[loop]

    async def _ask_all(self, chunks: Sequence[Chunk], progress: Progress) -> list[Reply]:
        slots = asyncio.Semaphore(CONCURRENT_CHUNKS)

        async def ask(chunk: Chunk) -> Reply:
            reply = await self._ask(chunk, slots)
            progress.add(chunk)
            return reply

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(chunk)) for chunk in chunks]
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__
        return [task.result() for task in tasks]

    async def close(self) -> None:
        """Closes the connections."""
        self._is_closed = True
        if http := self._connections.pop(asyncio.get_running_loop(), None):
            await http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _collected(
    outcomes: SimpleQueue[tuple[int, Reply | Exception]], chunks: Sequence[Chunk], progress: Progress
) -> list[Reply]:
    """The replies in the chunks' order, once all have arrived. Raises the first error at once."""
    replies: dict[int, Reply] = {}
    while len(replies) < len(chunks):
        index, outcome = outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        replies[index] = outcome
        progress.add(chunks[index])
    return [replies[index] for index in range(len(chunks))]
