"""The settings of a client, checked before anything is sent. Knows no API."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx2

from rerankd.client.connections import Verify
from rerankd.client.dialects import DialectName
from rerankd.errors import SettingsError
from rerankd.version import __version__

TIMEOUT_S = 600.0
"""Long: many long documents take minutes on a small machine."""

CONNECT_TIMEOUT_S = 5.0


HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """See `Client`. base_url and api_key come from the caller or from the environment.

    Raises:
        SettingsError: a setting is invalid.
    """

    base_url: str
    api_key: str | None = field(repr=False)
    dialect: DialectName
    model: str | None
    timeout: float | None
    max_retries: int
    max_documents: int | None
    headers: Mapping[str, str] = field(repr=False)
    verify: Verify
    complete: bool = False

    def __post_init__(self) -> None:
        _check_kind("base_url", self.base_url, str)
        _check_kind("api_key", self.api_key, str, type(None))
        _check_kind("dialect", self.dialect, str)
        _check_kind("model", self.model, str, type(None))
        _check_kind("timeout", self.timeout, int, float, type(None))
        _check_kind("complete", self.complete, bool)
        sendable_headers(self.headers)
        for name, least in (("max_retries", 0), ("max_documents", 1)):
            value = getattr(self, name)
            _check_kind(name, value, int, *((type(None),) if least else ()))
            if value is not None and value < least:
                raise SettingsError(f"{name} must be at least {least}; it is {value}.")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise SettingsError(f"timeout must be more than 0 seconds, or None for no limit; it is {self.timeout}.")

    @property
    def sent_headers(self) -> dict[str, str]:
        """The headers of every request; the caller's replace ours."""
        headers = {"content-type": "application/json", "user-agent": f"rerankd/{__version__}"}
        if self.api_key:
            headers["authorization"] = f"Bearer {_sendable('API key', self.api_key)}"
        return headers | sendable_headers(self.headers)

    @property
    def waits(self) -> httpx2.Timeout:
        """How long to wait for the server to accept and to answer. A free place in the pool: no limit."""
        connect = CONNECT_TIMEOUT_S if self.timeout is None else min(self.timeout, CONNECT_TIMEOUT_S)
        return httpx2.Timeout(self.timeout, connect=connect, pool=None)


def sendable_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers as they are sent, with names in lower case.

    Raises:
        SettingsError: a name or a value cannot be sent. The message does not contain the value.
    """
    _check_kind("headers", headers, Mapping)
    if odd := [name for name in headers if not (isinstance(name, str) and HEADER_NAME.fullmatch(name))]:
        raise SettingsError(f"{odd[0]!r} is not the name of a header.")
    return {name.lower(): _sendable(f"header {name!r}", value) for name, value in headers.items()}


def from_environment(base_url: str | None, api_key: str | None) -> tuple[str, str | None]:
    """(address, key). Without an address: RERANKD_URL, and RERANKD_API_KEY, which is sent to no other address.

    Raises:
        SettingsError: there is no address.
    """
    if base_url is not None:
        return base_url, api_key
    if not (url := os.environ.get("RERANKD_URL", "").strip()):
        raise SettingsError("There is no address: give the server's, or set RERANKD_URL.")
    return url, api_key if api_key is not None else os.environ.get("RERANKD_API_KEY") or None


def _check_kind(name: str, value: object, *kinds: type) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise SettingsError(f"{name} is of type {type(value).__name__}; it should be {wanted}.")


def _sendable(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"The {name} is of type {type(value).__name__}; it should be str.")
    text = value.strip()  # one from a file ends in a line feed
    if not text.isascii() or not text.isprintable():
        raise SettingsError(f"The {name} holds characters that a header cannot carry.")
    return text
