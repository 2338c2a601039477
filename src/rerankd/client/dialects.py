"""Finds the API of an address and the path of its requests. Knows no replies: `reply.py` reads them all."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx2

from rerankd.apis import facts
from rerankd.apis.facts import ApiFacts
from rerankd.apis.facts import DialectName as DialectName
from rerankd.client.address import completed, is_complete, path_segments, read_address, segments_of, with_path
from rerankd.errors import SettingsError

DIALECTS: Mapping[str, ApiFacts] = {one.client: one for one in (*facts.ALL, facts.RERANKD) if one.client}
"""By the name that `Client(dialect=…)` takes."""

HOSTS: Mapping[str, str] = {host: name for name, one in DIALECTS.items() for host in one.hosts}
"""The API of each hosted service. It has one address there, whatever root is given."""

DASHSCOPE_HOST = re.compile(r"(.+\.)?dashscope[\w-]*(\.[\w-]+)*\.aliyuncs\.com|.+\.maas\.aliyuncs\.com")
"""DashScope's hosts, regional ones and those of workspaces. Other services (PAI-EAS) are under aliyuncs.com too."""

ROOTS = {"openrouter.ai": "/api/v1"}
"""Hosts whose API is not at the root."""


def spoken_at(url: httpx2.URL) -> str:
    """The dialect that an address most likely speaks, by its host and its path; vLLM's if neither decides."""
    segments = [segment.lower() for segment in segments_of(url)]
    last = segments[-1:]
    own = _vendor_dialects(url)
    if own and not (last == ["reranks"] or {"compatible-api", "compatible-mode"} & set(segments)):
        return own[0]
    if last == ["reranks"] or {"compatible-api", "compatible-mode"} & set(segments):
        return "dashscope-compatible"
    if "text-rerank" in segments or segments[-2:] == ["services", "rerank"]:
        return "dashscope"
    if last == ["ranking"] or (last == ["reranking"] and "retrieval" in segments):
        return "nim"
    if named := [segment for segment in segments if segment in DIALECTS]:  # as rerankd's own paths do
        return named[0]
    if last == ["v2"] or segments[-2:] == ["v2", "rerank"]:
        return "cohere"
    return "llamacpp" if last == ["reranking"] else "vllm"


def _vendor_dialects(url: httpx2.URL) -> tuple[str, ...]:
    if DASHSCOPE_HOST.fullmatch(url.host):
        return ("dashscope", "dashscope-compatible")
    return (HOSTS[url.host],) if url.host in HOSTS else ()


def endpoint(base_url: str, dialect: DialectName) -> tuple[str, httpx2.URL]:
    """(the dialect's name, the address of its requests).

    Args:
        base_url: the server's root, the API's root (`…/v1`), or the full address.

    Raises:
        SettingsError: the address or the dialect is invalid.
    """
    url = read_address(base_url).url
    name = spoken_at(url) if dialect == "auto" else dialect
    if name not in DIALECTS:
        raise SettingsError(f"There is no dialect {name!r}. Known are: auto, {', '.join(DIALECTS)}.")
    return name, with_path(url, _segments(url, name))


def _segments(url: httpx2.URL, name: str) -> list[str]:
    spoken = DIALECTS[name]
    segments = segments_of(url)
    if name in _vendor_dialects(url) and not is_complete(segments):
        return path_segments(spoken.path)
    if not segments and url.host in ROOTS:
        segments = path_segments(ROOTS[url.host])
    return completed(segments, spoken.path, spoken.bases)


def num_tokens_about(text: str) -> int:
    """Estimates the tokens of a text, without a tokenizer: one for three ASCII letters or for any other character.

    Qwen's count is 0.4 to 0.9 of it for most text, 1.0 for digits, 1.3 for Amharic, 1.6 for base64.
    """
    num_others = len(re.sub(" ?[A-Za-z]+", "", text))
    return num_others + -(-(len(text) - num_others) // 3)
