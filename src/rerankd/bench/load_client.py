"""Sends the load of a benchmark: many concurrent rerank calls to one server, each sent once.

A failed call is an `Outcome` here, not an exception. Knows no workload and no clock but that of the server's loading.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import httpx2

from rerankd.client.address import read_address
from rerankd.client.connections import Route
from rerankd.client.errors import RemoteError
from rerankd.client.reply import error_message

CONNECT_TIMEOUT_S = 5
LOADING_TIMEOUT_S = 600
POLL_S = 0.5
IDLE_S = 2.0
"""Seconds that an idle connection is kept: fewer than uvicorn's 5, so that no call is sent on a closing connection."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one call.

    Attributes:
        error: the status ("503") or the exception's name ("ReadTimeout"); "" for an answered call.
        message: the error in words.
        tokens: prompt tokens, from the reply's usage.
        model: the model that scored.
        warning: the reply's `x-rerankd-warning`.
    """

    error: str = ""
    message: str = ""
    tokens: int = 0
    model: str = ""
    warning: str = ""


class LoadClient:
    """Asks one server, over as many connections as there are concurrent calls. A context manager.

    Args:
        url: the server's address, with or without `/v1`.
        timeout_s: how long a call waits for its answer.

    Raises:
        SettingsError: the address, or a proxy or certificate of the environment, cannot be used.
    """

    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        address = read_address(url)
        self._root = str(address.url).rstrip("/").removesuffix("/v1")
        self._client = Route(address).async_client(
            {"authorization": f"Bearer {api_key}"} if api_key else {},
            httpx2.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S, pool=None),
            httpx2.Limits(max_connections=None, keepalive_expiry=IDLE_S),
        )

    async def __aenter__(self) -> LoadClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def wait_until_ready(self, progress: Callable[[str, float], None]) -> None:
        """Waits while `/health` answers 503: the model is loading. A server without `/health` counts as ready.

        Args:
            progress: called with the stage of loading and the share that is done, in [0, 1].

        Raises:
            RemoteError: the server cannot be reached, or loads for longer than LOADING_TIMEOUT_S.
        """
        deadline = time.monotonic() + LOADING_TIMEOUT_S
        while (response := await self._health()).status_code == 503:
            if time.monotonic() > deadline:
                raise RemoteError(f"{self._root} is still loading after {LOADING_TIMEOUT_S} s.", 503)
            progress(*_stage(response))
            await asyncio.sleep(POLL_S)

    async def rank(self, query: str, documents: Sequence[str]) -> Outcome:
        """Sends one `POST /v1/rerank`."""
        try:
            response = await self._client.post(
                f"{self._root}/v1/rerank", json={"query": query, "documents": list(documents)}
            )
        except httpx2.HTTPError as error:
            return Outcome(error=type(error).__name__, message=str(error))
        if response.status_code != 200:
            return Outcome(error=str(response.status_code), message=error_message(response))
        return _answer(response, len(documents))

    async def _health(self) -> httpx2.Response:
        try:
            return await self._client.get(f"{self._root}/health")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise RemoteError(f"{self._root} cannot be reached: {error or type(error).__name__}") from error


def _stage(response: httpx2.Response) -> tuple[str, float]:
    """(stage of loading, share done); the share is 0 for servers other than rerankd."""
    try:
        body = response.json()
        return f"waiting for the server: {body['stage']}", float(body["progress"])
    except (ValueError, LookupError, TypeError):
        return "waiting for the server", 0.0


def _answer(response: httpx2.Response, num_documents: int) -> Outcome:
    try:
        reply = response.json()
        if len(reply["results"]) != num_documents:
            raise ValueError(f"{len(reply['results'])} results for {num_documents} documents")
        return Outcome(
            tokens=int(reply["usage"]["total_tokens"]),
            model=response.headers.get("x-rerankd-model") or str(reply.get("model")),
            warning=response.headers.get("x-rerankd-warning", ""),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return Outcome(error="not a ranking", message=f"{error}: {response.text[:200]}")
