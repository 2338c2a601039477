"""Which API an address speaks, and where its requests go. Knows no replies: `reply.py` reads them all."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx2

from rerankd.apis import facts
from rerankd.apis.facts import ApiFacts
from rerankd.apis.facts import DialectName as DialectName
from rerankd.client.address import completed, folders_of, folders_of_path, is_complete, read_address, with_folders
from rerankd.errors import SettingsError

DIALECTS: Mapping[str, ApiFacts] = {one.client: one for one in facts.ALL if one.client}
"""By the name that `Client(dialect=…)` takes."""

HOSTS: Mapping[str, str] = {host: name for name, one in DIALECTS.items() for host in one.hosts}
"""The API of a hosted service. It has one address there, whichever root is given."""

DASHSCOPE_HOST = re.compile(r"(.+\.)?dashscope[\w-]*(\.[\w-]+)*\.aliyuncs\.com|.+\.maas\.aliyuncs\.com")
"""DashScope's own hosts, regional and of workspaces; other services (PAI-EAS) are under aliyuncs.com, too."""

ROOTS = {"openrouter.ai": "/api/v1"}
"""Hosts whose API is not at the root."""


def spoken_at(url: httpx2.URL) -> str:
    """The name of the dialect that an address most likely speaks: by its host, by its path, else vLLM's."""
    folders = [folder.lower() for folder in folders_of(url)]
    last = folders[-1:]
    own = _vendor_dialects(url)
    if own and not (last == ["reranks"] or {"compatible-api", "compatible-mode"} & set(folders)):
        return own[0]
    if last == ["reranks"] or {"compatible-api", "compatible-mode"} & set(folders):
        return "dashscope-compatible"
    if "text-rerank" in folders or folders[-2:] == ["services", "rerank"]:
        return "dashscope"
    if last == ["ranking"] or (last == ["reranking"] and "retrieval" in folders):
        return "nim"
    if named := [folder for folder in folders if folder in DIALECTS]:  # as rerankd's own paths do
        return named[0]
    if last == ["v2"] or folders[-2:] == ["v2", "rerank"]:
        return "cohere"
    return "llamacpp" if last == ["reranking"] else "vllm"


def _vendor_dialects(url: httpx2.URL) -> tuple[str, ...]:
    if DASHSCOPE_HOST.fullmatch(url.host):
        return ("dashscope", "dashscope-compatible")
    return (HOSTS[url.host],) if url.host in HOSTS else ()


def endpoint(base_url: str, dialect: DialectName) -> tuple[str, httpx2.URL]:
    """(the dialect's name, where its requests go).

    Args:
        base_url: the server's root, the API's root (`…/v1`), or the full address; each is completed as it needs.

    Raises:
        SettingsError: the address or the dialect cannot be understood.
    """
    url = read_address(base_url).url
    name = spoken_at(url) if dialect == "auto" else dialect
    if name not in DIALECTS:
        raise SettingsError(f"There is no dialect {name!r}. Known are: auto, {', '.join(DIALECTS)}.")
    return name, with_folders(url, _folders(url, name))


def _folders(url: httpx2.URL, name: str) -> list[str]:
    spoken = DIALECTS[name]
    folders = folders_of(url)
    if name in _vendor_dialects(url) and not is_complete(folders):
        return folders_of_path(spoken.path)
    if not folders and url.host in ROOTS:
        folders = folders_of_path(ROOTS[url.host])
    return completed(folders, spoken.path, spoken.bases)


def num_tokens_about(text: str) -> int:
    """Tokens of a text, estimated without a tokenizer: one for three letters of an ASCII word, and for any other sign.

    Qwen's count is 0.4 to 0.9 of it for most text, 1.0 for figures, 1.3 for Amharic, 1.6 for base64.
    """
    num_others = len(re.sub(" ?[A-Za-z]+", "", text))
    return num_others + -(-(len(text) - num_others) // 3)
