"""`rerankd health`: asks a running server whether it can answer; for images without curl."""

from __future__ import annotations

import os
import re
import sys
from typing import Annotated

import httpx2
from cyclopts import Parameter

from rerankd.cli.options import POSITIVE, command
from rerankd.client.address import Address, read_address
from rerankd.config import ServerSettings, read_settings

app = command("health")

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}
"""What a server listens on → where this machine reaches it."""


@app.default
def health(
    *,
    url: Annotated[str | None, Parameter(metavar="URL")] = None,
    timeout: Annotated[float, POSITIVE] = 5.0,
) -> int:
    """Ask a running server whether it can answer. Exits with 0 if it can, else with 1.

    Args:
        url: the server (default: the address that the RERANKD_ variables and the settings file give `rerankd serve`)
        timeout: seconds to wait for its reply
    """
    # The certificate of this machine's own server is not checked: it names another host.
    address, verify = (read_address(url), True) if url else (_own_address(), False)
    transport = httpx2.HTTPTransport(uds=address.socket, verify=verify)
    try:
        with httpx2.Client(transport=transport, timeout=timeout) as client:
            reply = client.get(address.url.join("/readyz"))
    except httpx2.HTTPError as error:
        why = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or "no reply"
        print(f"rerankd health: {address.socket or address.url} does not answer ({why})", file=sys.stderr)
        return 1
    print(reply.text)
    return 0 if reply.status_code == 200 else 1


def _own_address() -> Address:
    settings = read_settings(ServerSettings, {}, os.environ)
    scheme = "https" if settings.ssl_certfile else "http"
    if settings.uds is not None:
        return Address(httpx2.URL(f"{scheme}://localhost"), str(settings.uds))
    host = ANY_ADDRESS.get(settings.host, f"[{settings.host}]" if ":" in settings.host else settings.host)
    return Address(httpx2.URL(f"{scheme}://{host}:{settings.port}"))
