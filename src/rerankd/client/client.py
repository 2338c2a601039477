"""`Client`: it sends, and waits on threads. `call.py` decides what is sent and what a response means."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import httpx2

from rerankd.arguments import Documents
from rerankd.calibration.apply import Named
from rerankd.client.base import CONCURRENT_CHUNKS, BaseClient
from rerankd.client.bounded import read_bounded
from rerankd.client.call import MAX_REDIRECTS
from rerankd.client.requests import Answered, Call, Chunk, Divided, Progress
from rerankd.client.settings import ClientSettings, sendable_headers
from rerankd.deprecation import warn_renamed
from rerankd.types import Passages, Ranking


class Client(BaseClient):
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
        complete: raise `RemoteReplyInvalid` if the server sends fewer results than asked for. False: warn.

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
        passages: bool | Passages = False,
        deadline_s: float | None = None,
        return_documents: bool = True,
        model: str | None = None,
        min_score: float | Named | None = None,
        calibration: str | None = None,
        progress: Callable[[int], None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Ranking:
        """Scores every document for the query, best first.

        If a call is split, its first error is raised at once, and no further request is sent. A request that the server
        refuses as too many documents or too large is sent as two. A call without documents sends nothing.

        Args:
            documents: strings, or objects with their text as `text`, in a list, an array, a table's column, or a
                generator. An empty text is not sent if the API refuses it; it comes last.
            top_n: how many results, None for all.
            instruct: the sorting task; None: the server's default.
            passages: True has a rerankd split texts that do not fit at sentences, `Passages(512)` all that have more
                tokens. A document has the score of its best passage, and `Score.passages` says where it is.
            deadline_s: seconds that a rerankd has for the call; each request of it has what is left. Documents that are
                not scored by then come last, with `Score.scored` False.
            return_documents: whether the results have the texts. The client keeps them; the server does not send them.
            min_score: leaves out the results with a lower score, of any server.
            calibration: the name of a calibration of a rerankd: each score becomes the probability that the document
                is relevant, and `min_score` may be `keep` or `relevant`.
            progress: called with the number of documents scored so far, after each request of the call.
            headers: sent with every request of this call; they replace the client's of the same name.

        Raises:
            InvalidRequest: an argument has the wrong type or is out of range.
            SettingsError: a header cannot be sent.
            RemoteError: the server cannot be reached, refuses the call, or does not send a ranking.
            Closed: `close` was called.
        """
        self.refuse_if_closed()
        own = passages, min_score, calibration, deadline_s
        call = self._endpoint.call(query, documents, top_n, instruct, return_documents, model, *own)
        chunks = self._endpoint.chunks(call)
        done = Progress(call, progress)
        return self._endpoint.ranking(call, self._ask_all(call, chunks, sendable_headers(headers or {}), done))

    async def arank(
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
    ) -> Ranking:
        """`rank` on another thread, for code that takes any `AsyncRanker`. A cancelled call still runs to its end."""
        return await asyncio.to_thread(
            self.rank,
            query,
            documents,
            top_n=top_n,
            instruct=instruct,
            passages=passages,
            deadline_s=deadline_s,
            return_documents=return_documents,
            model=model,
            min_score=min_score,
            calibration=calibration,
            progress=progress,
            headers=headers,
        )

    def rerank(self, query: str, documents: Documents, **options: Any) -> Ranking:
        """Deprecated: use `rank`."""
        warn_renamed("Client.rerank", "rank")
        return self.rank(query, documents, **options)

    def _ask(self, call: Call, chunk: Chunk, headers: Mapping[str, str], stop: threading.Event) -> list[Answered]:
        attempt = 0
        while True:
            late = self._endpoint.late(call)
            verdict = late or self._endpoint.verdict(call, chunk, self._post(call, chunk, headers), attempt)
            if isinstance(verdict, Divided):
                return [one for part in verdict.chunks for one in self._ask(call, part, headers, stop)]
            if not isinstance(verdict, float):
                return [(chunk, verdict)]
            if stop.wait(verdict):
                raise CancelledError
            attempt += 1

    def _post(self, call: Call, chunk: Chunk, headers: Mapping[str, str]) -> httpx2.Response | httpx2.HTTPError:
        url, headers = self._endpoint.url, {**self._endpoint.headers_of(call), **headers}
        try:
            for _ in range(MAX_REDIRECTS + 1):
                with self._http.stream("POST", url, content=chunk.content, headers=headers) as opened:
                    response = read_bounded(opened, chunk.max_reply_bytes)
                if (target := self._endpoint.redirection(response)) is None:
                    break
                url = target
        except httpx2.HTTPError as error:
            return error
        except RuntimeError:  # raised by httpx2 after another thread has closed it
            self.refuse_if_closed()
            raise
        return response

    @property
    def _http(self) -> httpx2.Client:
        """The connections of this process. A forked process does not use its parent's."""
        self.refuse_if_closed()
        process = os.getpid()
        if process not in self._connections:
            made = self._endpoint.route.client(self._endpoint.headers, self._settings.waits)
            self._connections = {process: self._connections.get(process, made)}
        return self._connections[process]

    def _ask_all(
        self, call: Call, chunks: Sequence[Chunk], headers: Mapping[str, str], progress: Progress
    ) -> list[Answered]:
        """Uses daemon threads: a running request cannot be cancelled, but it delays neither an error nor the exit."""
        stop = threading.Event()
        if len(chunks) == 1:
            answers = self._ask(call, chunks[0], headers, stop)
            progress.add(chunks[0])
            return answers
        waiting = deque(enumerate(chunks))
        outcomes: SimpleQueue[tuple[int, list[Answered] | Exception]] = SimpleQueue()

        def work() -> None:
            while waiting and not stop.is_set():
                try:
                    index, chunk = waiting.popleft()
                except IndexError:  # another thread took the last one
                    return
                try:
                    outcomes.put((index, self._ask(call, chunk, headers, stop)))
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


def _collected(
    outcomes: SimpleQueue[tuple[int, list[Answered] | Exception]], chunks: Sequence[Chunk], progress: Progress
) -> list[Answered]:
    """The answers in the chunks' order, once all have arrived. Raises the first error at once."""
    answers: dict[int, list[Answered]] = {}
    while len(answers) < len(chunks):
        index, outcome = outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        answers[index] = outcome
        progress.add(chunks[index])
    return [one for index in range(len(chunks)) for one in answers[index]]
