"""`Client` and `AsyncClient`: they send and wait. What is sent, and what an answer means, is `call.py`'s."""

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
from rerankd.client.call import MAX_REDIRECTS, Endpoint, Part, Progress
from rerankd.client.connections import Verify
from rerankd.client.dialects import DialectName
from rerankd.client.ranking import RemoteRanking
from rerankd.client.reply import Reply
from rerankd.client.settings import TIMEOUT_S, ClientSettings, from_environment
from rerankd.deprecation import warn_renamed
from rerankd.errors import Closed

CONCURRENT_PARTS = 4
"""Requests of one call that are under way at a time."""


class _BaseClient:
    """What both clients have in common.

    A copy, or what is read from a pickle, has the same settings, the key among them, and connections of its own; so has
    a forked process.
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
    """Asks a rerank server: rerankd, or any other that speaks one of the dialects. Safe to use from several threads.

        with Client("http://127.0.0.1:8000") as client:
            for result in client.rank("capital of China?", documents, top_n=3):
                print(result.index, result.score, result.document)

    Proxies and certificates are those of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE,
    SSL_CERT_DIR); a server on this machine is asked without a proxy.

    Args:
        base_url: the server's root, the API's root (`https://api.jina.ai/v1`), or the full address of its rerank; of a
            server on a socket `unix:/run/rerankd.sock`. None: that of the variable RERANKD_URL, with the key of
            RERANKD_API_KEY.
        dialect: what it speaks; `auto` tells by the address, and takes what it does not know for vLLM's `/v1/rerank`.
        model: the name that calls without one ask for.
        timeout: seconds that the server may be silent, None for no limit; 5 while it is being connected to.
        max_retries: how often a request is sent again after a 408, 409, 429 or 5xx, or a broken connection.
            `Retry-After` is kept to; if it asks for more than 60 s, the error is raised at once.
        max_documents: of one request; a longer call is split, and its replies are merged. None: what the dialect
            documents. Right for models that score each document by itself, as nearly all do.
        headers: sent with every request, in place of ours where they have the same name.
        verify: True, False, an `ssl.SSLContext`, or the file or folder of the authorities that may sign the server's
            certificate.

    Raises:
        SettingsError: one of these, or a variable of the environment, makes no sense.
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
    ) -> RemoteRanking:
        """Scores every document for the query, best first.

        Where a call is split, the first error of a part is raised at once, and no further part is sent. Nothing is sent
        where there are no documents.

        Args:
            documents: strings, or objects with their text as `text`, in a list, an array, a column of a table, a
                generator. An empty text is not sent where the API refuses it, and comes last.
            top_n: how many results, None for all.
            instruct: the sorting task; None: the server's default.
            return_documents: whether the results carry the texts (of `documents`; they are not sent back).
            progress: called with the number of documents scored so far, after each request that the call takes.

        Raises:
            InvalidRequest: an argument is of the wrong kind or out of range.
            RemoteError: the server cannot be reached, refuses, or answers something else than a ranking.
            Closed: `close` was called.
        """
        self._refuse_if_closed()
        call = self._endpoint.call(query, documents, top_n, instruct, return_documents, model)
        parts = self._endpoint.parts(call)
        done = Progress(call, progress)
        return self._endpoint.ranking(call, parts, self._ask_all(parts, done))

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
    ) -> RemoteRanking:
        """`rank` on another thread, for code that takes any `AsyncRanker`. A cancelled call still ends by itself."""
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

    def rerank(self, query: str, documents: Documents, **options: Any) -> RemoteRanking:
        """Deprecated: use `rank`."""
        warn_renamed("Client.rerank", "rank")
        return self.rank(query, documents, **options)

    def _ask(self, part: Part, stop: threading.Event) -> Reply:
        attempt = 0
        while not isinstance(verdict := self._endpoint.verdict(part, self._post(part), attempt), Reply):
            if stop.wait(verdict):
                raise CancelledError
            attempt += 1
        return verdict

    def _post(self, part: Part) -> httpx2.Response | httpx2.HTTPError:
        url = self._endpoint.url
        try:
            for _ in range(MAX_REDIRECTS + 1):
                response = self._http.post(url, content=part.content)
                if (target := self._endpoint.redirection(response)) is None:
                    break
                url = target
        except httpx2.HTTPError as error:
            return error
        except RuntimeError:  # httpx2's own, where another thread closed it meanwhile
            self._refuse_if_closed()
            raise
        return response

    @property
    def _http(self) -> httpx2.Client:
        """This process's connections: those of a parent that forked are the parent's."""
        self._refuse_if_closed()
        process = os.getpid()
        if process not in self._connections:
            made = self._endpoint.route.client(self._endpoint.headers, self._settings.waits)
            self._connections = {process: self._connections.get(process, made)}
        return self._connections[process]

    def _ask_all(self, parts: Sequence[Part], progress: Progress) -> list[Reply]:
        """On daemon threads: a request under way cannot be called back, but holds up neither an error nor an exit."""
        stop = threading.Event()
        if len(parts) == 1:
            replies = [self._ask(parts[0], stop)]
            progress.add(parts[0])
            return replies
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
        try:
            return _collected(outcomes, parts, progress)
        finally:
            stop.set()

    def close(self) -> None:
        """Ends the connections."""
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
    """The same for asyncio: same arguments, same results, same errors. A cancelled call ends its requests.

    Each event loop has connections of its own, so that a client may outlive `asyncio.run`; `close` ends those of the
    loop that runs.
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
    ) -> RemoteRanking:
        """See `Client.rank`. Where a call is split, the first error of a part ends the others."""
        self._refuse_if_closed()
        call = self._endpoint.call(query, documents, top_n, instruct, return_documents, model)
        parts = self._endpoint.parts(call)
        done = Progress(call, progress)
        return self._endpoint.ranking(call, parts, await self._ask_all(parts, done))

    arank = rank
    """The name that `AsyncRanker` has for it."""

    def rerank(self, query: str, documents: Documents, **options: Any) -> Coroutine[Any, Any, RemoteRanking]:
        """Deprecated: use `rank`."""
        warn_renamed("AsyncClient.rerank", "rank")
        return self.rank(query, documents, **options)

    async def _ask(self, part: Part, turn: asyncio.Semaphore) -> Reply:
        async with turn:
            attempt = 0
            while not isinstance(verdict := self._endpoint.verdict(part, await self._post(part), attempt), Reply):
                await asyncio.sleep(verdict)
                attempt += 1
            return verdict

    async def _post(self, part: Part) -> httpx2.Response | httpx2.HTTPError:
        url = self._endpoint.url
        try:
            for _ in range(MAX_REDIRECTS + 1):
                response = await self._http.post(url, content=part.content)
                if (target := self._endpoint.redirection(response)) is None:
                    break
                url = target
        except httpx2.HTTPError as error:
            return error
        except RuntimeError:  # httpx2's own, where another task closed it meanwhile
            self._refuse_if_closed()
            raise
        return response

    @property
    def _http(self) -> httpx2.AsyncClient:
        """The running loop's connections, and this process's: those of a parent that forked are the parent's."""
        self._refuse_if_closed()
        loop, process = asyncio.get_running_loop(), os.getpid()
        if self._process != process:
            self._connections, self._process = {}, process
        if loop not in self._connections:
            made = self._endpoint.route.async_client(self._endpoint.headers, self._settings.waits)
            alive = {other: http for other, http in self._connections.items() if not other.is_closed()}
            self._connections = alive | {loop: made}
        return self._connections[loop]

    async def _ask_all(self, parts: Sequence[Part], progress: Progress) -> list[Reply]:
        turn = asyncio.Semaphore(CONCURRENT_PARTS)

        async def ask(part: Part) -> Reply:
            reply = await self._ask(part, turn)
            progress.add(part)
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
    outcomes: SimpleQueue[tuple[int, Reply | Exception]], parts: Sequence[Part], progress: Progress
) -> list[Reply]:
    """The replies in the parts' order, as soon as all are there; the first error is raised at once."""
    replies: dict[int, Reply] = {}
    while len(replies) < len(parts):
        index, outcome = outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        replies[index] = outcome
        progress.add(parts[index])
    return [replies[index] for index in range(len(parts))]
