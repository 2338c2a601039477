"""Connections to a server: the environment's proxies, certificates, and Unix sockets. Knows no API.

httpx2 reads the same variables, but all of them for any address: it fails on a variable that does not apply to the
address, and does not name it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2

from rerankd.client.address import Address
from rerankd.errors import SettingsError

Verify = bool | str | os.PathLike[str] | ssl.SSLContext
"""How a server's certificate is checked: True: by the authorities of SSL_CERT_FILE or SSL_CERT_DIR, else by the
system's; a file or folder of authorities; an SSLContext; False: not at all."""

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=2.0)
"""Callers bound their requests, so the pool never makes one wait. An idle connection is closed before the server closes
it (uvicorn: after 5 s); otherwise a request may be sent on a connection that the server is closing."""

Transport = TypeVar("Transport")


@dataclass(frozen=True)
class Proxy:
    """A proxy from the environment.

    Attributes:
        shown: its address without the password, for messages.
        variable: the environment variable that names it.
    """

    httpx2: httpx2.Proxy
    shown: str
    variable: str


class Route:
    """Makes connections to one server. A Unix socket and an address of this machine need no proxy.

    Raises:
        SettingsError: an environment variable or `verify` is invalid; the message names it.
    """

    def __init__(self, address: Address, verify: Verify = True) -> None:
        self._socket = address.socket
        self.proxy = None if address.socket else _proxy_for(address.url)
        self._verify = _certificates(verify) if address.url.scheme == "https" else False  # http has no certificates
        self.client().close()  # reports now what cannot be opened

    def client(self, headers: Mapping[str, str] | None = None, timeout: httpx2.Timeout | None = None) -> httpx2.Client:
        """A new client for threads."""
        return httpx2.Client(
            transport=self._opened(
                lambda proxy: httpx2.HTTPTransport(verify=self._verify, proxy=proxy, uds=self._socket, limits=LIMITS)
            ),
            headers=headers,
            timeout=timeout,
            trust_env=False,
        )

    def async_client(
        self,
        headers: Mapping[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        limits: httpx2.Limits = LIMITS,
    ) -> httpx2.AsyncClient:
        """A new client for asyncio."""
        return httpx2.AsyncClient(
            transport=self._opened(
                lambda proxy: httpx2.AsyncHTTPTransport(
                    verify=self._verify, proxy=proxy, uds=self._socket, limits=limits
                )
            ),
            headers=headers,
            timeout=timeout,
            trust_env=False,
        )

    def _opened(self, transport: Callable[[httpx2.Proxy | None], Transport]) -> Transport:
        try:
            return transport(self.proxy.httpx2 if self.proxy else None)
        except ImportError:  # socksio is missing
            assert self.proxy
            raise SettingsError(
                f"{self.proxy.variable} names the proxy {self.proxy.shown}, and SOCKS needs one more package: "
                "pip install 'httpx2[socks]', or name the server in NO_PROXY."
            ) from None


def _proxy_for(url: httpx2.URL) -> Proxy | None:
    if _is_on_this_machine(url.host):
        return None
    proxies = urllib.request.getproxies()  # from the environment, else from macOS or Windows
    for kind in (url.scheme, "all"):
        if value := proxies.get(kind, "").strip():
            return None if _is_excluded(url) else _proxy(_variable(kind, value), value, url.host)
    return None


def _proxy(variable: str, value: str, host: str) -> Proxy:
    shown = _masked(value)
    way_out = f"Correct it, unset it, or name {host} in NO_PROXY."
    address = value if "://" in value else f"http://{value}"
    scheme = address.partition("://")[0].lower()
    if scheme not in PROXY_SCHEMES:
        instead = "write socks5://" if scheme.startswith("socks") else f"use one of {', '.join(PROXY_SCHEMES)}"
        raise SettingsError(f"{variable}={shown}: {scheme}:// is not a kind of proxy; {instead}. {way_out}")
    proxy: httpx2.Proxy | None
    try:
        proxy = httpx2.Proxy(address)
    except (httpx2.InvalidURL, ValueError):  # its message may contain the password
        proxy = None
    if proxy is None or not proxy.url.host:
        raise SettingsError(f"{variable}={shown} is not the address of a proxy. {way_out}")
    return Proxy(proxy, shown, variable)


def _masked(value: str) -> str:
    """A proxy's address without user and password."""
    return re.sub(r"^([\w+.-]*://)?.*@", r"\1***@", value)


def _variable(kind: str, value: str) -> str:
    names = (f"{kind}_proxy", f"{kind}_proxy".upper())
    return next((name for name in names if os.environ.get(name, "").strip() == value), "The system's setting")


def _is_on_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    ip = _ip(host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip is not None and (ip.is_loopback or ip.is_unspecified)


def _is_excluded(url: httpx2.URL) -> bool:
    """Whether NO_PROXY names the server: `*`, a domain with its subdomains, an address, or a network, with or without a
    port. Unreadable entries exclude nothing."""
    text = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    if text is None:
        return bool(urllib.request.proxy_bypass(url.host))  # the system's settings
    port = url.port or (443 if url.scheme == "https" else 80)
    return any(_excludes(entry, url.host, port) for entry in re.split(r"[\s,]+", text) if entry)


def _excludes(entry: str, host: str, port: int) -> bool:
    entry = entry.lower().partition("://")[2] or entry.lower()
    if entry == "*":
        return True
    if found := re.fullmatch(r"(\[.+\]|[^:]+):(\d+)", entry):
        if int(found[2]) != port:
            return False
        entry = found[1]
    entry = entry.strip("[]")
    if (ip := _ip(host)) and (network := _network(entry)):
        return ip in network
    domain = entry.removeprefix("*").lstrip(".").rstrip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _certificates(verify: object) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        return verify
    if isinstance(verify, str | os.PathLike):
        return _context_of("verify", os.fspath(verify))
    if not isinstance(verify, bool):
        raise SettingsError(f"verify is of type {type(verify).__name__}: give True, False, a file or an SSLContext.")
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR") if verify else ():
        if path := os.environ.get(variable, "").strip():
            return _context_of(variable, path)
    return _tried(lambda: _system_context(verify))


def _system_context(verify: bool) -> ssl.SSLContext:
    """Trusts the system's authorities, or everybody. Sets SSLKEYLOGFILE, which httpx2 does not."""
    context = httpx2.create_ssl_context(verify=verify, trust_env=False)
    if log := os.environ.get("SSLKEYLOGFILE"):
        context.keylog_filename = log
    return context


def _context_of(name: str, path: str) -> ssl.SSLContext:
    """Trusts only the authorities of a file or a folder."""
    way_out = "Correct it" if name == "verify" else "Correct it or unset it"
    try:
        Path(path).stat()
        options = {"capath" if os.path.isdir(path) else "cafile": path}
        return _tried(lambda: ssl.create_default_context(**options))  # type: ignore[arg-type]  # both are paths
    except OSError as error:
        reason = error.strerror if not isinstance(error, ssl.SSLError) else "it holds no certificates"
        raise SettingsError(f"{name}={path} cannot be used: {reason}. {way_out}.") from None


def _tried(make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Makes a context; explains the error if SSLKEYLOGFILE cannot be written."""
    try:
        return make()
    except ssl.SSLError:
        raise
    except OSError as error:
        if log := os.environ.get("SSLKEYLOGFILE"):
            raise SettingsError(
                f"SSLKEYLOGFILE={log} cannot be written: {error.strerror}. Correct it or unset it."
            ) from None
        raise SettingsError(f"TLS cannot be set up: {error}.") from None
