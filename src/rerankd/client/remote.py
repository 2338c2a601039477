"""One rerank call to a rerankd or vLLM server, over `POST /v1/rerank`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from rerankd.errors import RemoteError
from rerankd.types import Score

TIMEOUT = httpx.Timeout(600, connect=5)


@dataclass(frozen=True, slots=True)
class RemoteRanking:
    """What a server answered. ranked: best first; model: what really scored, where the server tells."""

    ranked: tuple[Score, ...]
    warnings: tuple[str, ...]
    model: str


def rank_remotely(
    url: str, query: str, documents: Sequence[str], top_n: int | None, instruct: str, api_key: str | None
) -> RemoteRanking:
    """Args:
        url: of the server, with or without `/v1`.

    Raises:
        RemoteError: it cannot be reached, or answers with an error.
    """
    endpoint = url.rstrip("/").removesuffix("/v1") + "/v1/rerank"
    body = {
        "query": query,
        "documents": list(documents),
        "top_n": top_n or 0,
        "instruction": instruct,
        "use_activation": False,  # logits: the score is made from them
    }
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        response = httpx.post(endpoint, json=body, headers=headers, timeout=TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RemoteError(f"{endpoint} cannot be reached: {error}") from error
    if response.status_code != 200:
        raise RemoteError(f"{endpoint} answered {response.status_code}: {_message(response)}", response.status_code)
    return _ranking(response, documents)


def _ranking(response: httpx.Response, documents: Sequence[str]) -> RemoteRanking:
    try:
        reply = response.json()
        ranked = tuple(
            Score(int(result["index"]), float(result["relevance_score"]), documents[int(result["index"])])
            for result in reply["results"]
        )
        warnings = tuple(reply.get("meta", {}).get("warnings", ()))
        return RemoteRanking(ranked, warnings, response.headers.get("x-rerankd-model") or str(reply.get("model")))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RemoteError(f"{response.url} answered something else than a ranking: {response.text[:200]}") from error


def _message(response: httpx.Response) -> str:
    try:
        body = response.json()
        error = body.get("error", body)
        return str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError):
        return response.text[:200] or response.reason_phrase
