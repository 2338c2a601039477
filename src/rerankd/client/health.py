"""Asks a server whether it is ready. Knows no API and no key."""

from __future__ import annotations

import re

import httpx2

from rerankd.client.address import Address
from rerankd.client.errors import RemoteUnreachable


def ask_readiness(address: Address, timeout_s: float, *, verify: bool) -> tuple[bool, str]:
    """(whether the server can answer, what it says about itself).

    Args:
        verify: check the server's certificate.

    Raises:
        RemoteUnreachable: there was no reply in time.
    """
    transport = httpx2.HTTPTransport(uds=address.socket, verify=verify)
    try:
        with httpx2.Client(transport=transport, timeout=timeout_s) as client:
            reply = client.get(address.url.join("/readyz"))
    except httpx2.HTTPError as error:
        why = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or "no reply"
        raise RemoteUnreachable(f"{address.socket or address.url} does not answer ({why}).") from error
    return reply.status_code == httpx2.codes.OK, reply.text


def address_at(host: str, port: int, *, secure: bool = False, socket: str | None = None) -> Address:
    """The address of a server by what it listens on; `0.0.0.0` and `::` are reached on this machine."""
    scheme = "https" if secure else "http"
    if socket is not None:
        return Address(httpx2.URL(f"{scheme}://localhost"), socket)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return Address(httpx2.URL(scheme=scheme, host=host, port=port))
