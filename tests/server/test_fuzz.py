"""Any JSON and any bytes: a documented status, a JSON body, and a ranking that adds up where there is one."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.server import Server
from support.surfaces import LLAMA_CPP, NATIVE, ONE_EACH, SCORE, SGLANG, SHARED, Surface
from support.wild import EXAMPLES, JSON_TYPE, bodies, mutations

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("make", [bodies, mutations], ids=["wild bodies", "changed bytes"])
@pytest.mark.parametrize("surface", ONE_EACH, ids=str)
def test_every_answer_is_a_documented_one(
    surface: Surface, make: Callable[[Surface], st.SearchStrategy[bytes]], qwen_server: Server
) -> None:
    paths = [other.path for other in SHARED if other.api == surface.api]
    seen: Counter[int] = Counter()
    headers = {"authorization": f"Bearer {qwen_server.key}", **JSON_TYPE}
    with httpx2.Client(base_url=qwen_server.url, headers=headers, timeout=60) as client:

        @EXAMPLES
        @given(st.sampled_from(paths), make(surface))
        def check(path: str, content: bytes) -> None:
            response = client.post(path, content=content)
            seen[response.status_code == 200] += 1
            assert response.headers["x-request-id"]
            if response.status_code == 200:
                _check_ranking(surface, response, json.loads(content))
            else:
                surface.error(response, 404 if response.status_code == 404 else 400)
            assert qwen_server.process.poll() is None

        check()
    # The bodies reached both sides of the checks.
    assert seen[True] > 30 and seen[False] > 30, seen


@pytest.mark.parametrize("surface", ONE_EACH, ids=str)
def test_any_header(surface: Surface, qwen_server: Server) -> None:
    """A key or a content type of any bytes: still an answer."""
    values = st.one_of(
        st.binary(max_size=20), st.text(max_size=8).map(str.encode), st.just(b"Bearer test-key"), st.just(b"Bearer x")
    ).filter(lambda value: not set(value) & set(b"\0\r\n") and value == value.strip())
    with httpx2.Client(base_url=qwen_server.url, timeout=60) as client:

        @settings(EXAMPLES, max_examples=100)
        @given(values, values)
        def check(authorization: bytes, media: bytes) -> None:
            headers = {b"authorization": authorization, b"content-type": media}
            try:
                response = client.post(surface.path, json=surface.body(documents=["a"]), headers=headers)
            except httpx2.LocalProtocolError:
                return  # not even the client sends these
            assert response.status_code in (200, 400, 401)
            if response.status_code != 200 and response.headers.get("x-request-id"):
                surface.error(response, response.status_code)

        check()


def _check_ranking(surface: Surface, response: httpx2.Response, body: Any) -> None:
    """`body`: what was sent, as the server read it."""
    inner, chosen = (body["input"], body.get("parameters") or {}) if surface is NATIVE else (body, body)
    sent = inner[surface.field("documents").removeprefix("input.")]
    num_documents = len(sent) if isinstance(sent, list) else 1
    results = surface.scores(response)
    assert len(results) == min(_number(chosen.get("top_n"), num_documents, surface), num_documents)
    indexes = [index for index, _ in results]
    scores = [score for _, score in results]
    assert len(set(indexes)) == len(indexes) and set(indexes) <= set(range(num_documents))
    assert all(math.isfinite(score) for score in scores)
    if not surface.is_vllm or chosen.get("use_activation") is None or chosen["use_activation"] is True:
        assert all(0 <= score <= 1 for score in scores)
    if surface is SCORE:
        assert indexes == list(range(num_documents))
    else:
        assert scores == sorted(scores, reverse=True)
    assert surface is SGLANG or surface.tokens(response) >= 0


def _number(top_n: Any, num_documents: int, surface: Surface) -> int:
    """How many results a value of top_n asks for."""
    if surface is SCORE or top_n is None:
        return num_documents
    number = top_n if isinstance(top_n, int) else int(float(top_n))
    return number if surface is LLAMA_CPP else number or num_documents
