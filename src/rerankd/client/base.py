"""The common base of `Client` and `AsyncClient`. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from rerankd.client.call import Endpoint
from rerankd.client.connections import Verify
from rerankd.client.dialects import DialectName
from rerankd.client.settings import TIMEOUT_S, ClientSettings, from_environment
from rerankd.errors import Closed

CONCURRENT_CHUNKS = 4
"""Concurrent requests of one call."""


class BaseClient:
    """The settings of a client, its copies and pickles.

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
        complete: bool = False,
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
                complete,
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

    def refuse_if_closed(self) -> None:
        if self._is_closed:
            raise Closed(type(self).__name__)
