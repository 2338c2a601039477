"""`rerankd health`: asks a running server whether it can answer; for images without curl."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from rerankd.cli.options import POSITIVE, command
from rerankd.client.address import Address, read_address
from rerankd.client.health import address_at, ask_readiness
from rerankd.config import ServerSettings, read_settings

app = command("health")


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
    address = read_address(url) if url else _own_address()
    is_ready, state = ask_readiness(address, timeout, verify=url is not None)
    print(state)
    return 0 if is_ready else 1


def _own_address() -> Address:
    settings = read_settings(ServerSettings, {}, os.environ)
    socket = str(settings.uds) if settings.uds else None
    return address_at(settings.host, settings.port, secure=settings.ssl_certfile is not None, socket=socket)
