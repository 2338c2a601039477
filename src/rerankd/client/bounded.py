"""Reads replies of a bounded size: a server that sends without end cannot fill the memory. Knows no API."""

from __future__ import annotations

import httpx2

MAX_REPLY_BYTES = 8_000_000
BYTES_PER_DOCUMENT = 200
"""An unpacked reply has at most MAX_REPLY_BYTES, and this many more for each document of its request."""

MAX_STATUS_BYTES = 1_000_000
"""The largest reply about the server itself."""


def max_reply_bytes(num_documents: int) -> int:
    """The size of the largest reply to a request."""
    return MAX_REPLY_BYTES + BYTES_PER_DOCUMENT * num_documents


def read_bounded(response: httpx2.Response, max_bytes: int) -> httpx2.Response:
    """The response with its content. Raises `httpx2.DecodingError` if it is larger, `httpx2.HTTPError` if it breaks."""
    content = bytearray()
    for part in response.iter_bytes():
        _add(content, part, max_bytes, response)
    return _with_content(response, content)


async def aread_bounded(response: httpx2.Response, max_bytes: int) -> httpx2.Response:
    """`read_bounded` for asyncio."""
    content = bytearray()
    async for part in response.aiter_bytes():
        _add(content, part, max_bytes, response)
    return _with_content(response, content)


def _add(content: bytearray, part: bytes, max_bytes: int, response: httpx2.Response) -> None:
    content += part
    if len(content) > max_bytes:
        raise httpx2.DecodingError(f"it has more than {max_bytes} bytes", request=response.request)


def _with_content(response: httpx2.Response, content: bytearray) -> httpx2.Response:
    """The content is unpacked: without its encoding, httpx2 does not unpack it a second time."""
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
    return httpx2.Response(
        response.status_code,
        headers=headers,
        content=bytes(content),
        request=response.request,
        extensions=response.extensions,
    )
