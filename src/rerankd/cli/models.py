"""`rerankd models`: the models that a running server answers for, of this machine or of another one."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Annotated, Any

from cyclopts import Parameter

from rerankd.cli.options import FLAG, POSITIVE, command
from rerankd.cli.table import show_table
from rerankd.client.async_client import AsyncClient
from rerankd.client.errors import RemoteError, RemoteReplyInvalid, RemoteUnauthorized
from rerankd.client.health import address_at
from rerankd.config import CLIENT_KEY, ServerSettings, read_settings

PATH = "/v1/models"

app = command("models")


@app.default
def models(
    *,
    as_json: Annotated[bool, FLAG, Parameter("--json")] = False,
    url: Annotated[str | None, Parameter(metavar="URL")] = None,
    api_key: Annotated[str | None, Parameter(metavar="KEY", env_var=CLIENT_KEY)] = None,
    timeout: Annotated[float, POSITIVE] = 5.0,
) -> int:
    """List the names that a running server answers to, with the model, its context and its price.

    Args:
        as_json: print JSON, as the server sent it
        url: the server (default: the address that the RERANKD_ variables and the settings file give `rerankd serve`)
        api_key: key for the server
        timeout: seconds to wait for its reply
    """
    cards = asyncio.run(_cards(url or _own_url(), api_key, timeout))
    if as_json:
        print(json.dumps(cards, ensure_ascii=False, indent=2))
    else:
        columns = ("name", "model", "context", "price of 1M tokens", "warning")
        show_table(columns, map(_row, cards), numbers=("context", "price of 1M tokens"))
    return 0


async def _cards(url: str, api_key: str | None, timeout_s: float) -> list[dict[str, Any]]:
    """The list of the server.

    Raises:
        RemoteError: it lists nothing.
    """
    async with AsyncClient(url, api_key) as client:
        status, content = await client.get(PATH, timeout_s=timeout_s)
    if status in (401, 403):
        raise RemoteUnauthorized(f"{url} answered {status}: pass --api-key, or set {CLIENT_KEY}.", status)
    if status != 200:
        raise RemoteError(f"{url} answered {status} to {PATH}; rerankd health --url {url} says more.", status)
    try:
        cards = json.loads(content)["data"]
        return [card for card in cards if isinstance(card["id"], str)]
    except (ValueError, LookupError, TypeError):
        raise RemoteReplyInvalid(f"{url} did not answer with a list of models.", status) from None


def _row(card: dict[str, Any]) -> tuple[object, ...]:
    price = card.get("rerankd") or {}
    cost = f"{price['input_price']} {price['currency']}" if price else None
    return card["id"], card.get("root"), card.get("max_model_len"), cost, card.get("warning")


def _own_url() -> str:
    settings = read_settings(ServerSettings, {}, os.environ)
    if settings.uds:
        return f"unix:{settings.uds}"
    return str(address_at(settings.host, settings.port, secure=settings.ssl_certfile is not None).url)
