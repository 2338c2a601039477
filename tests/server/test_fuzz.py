"""Any JSON and any bytes: a documented status, a JSON body, and a ranking that adds up where there is one."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from surfaces import ALL, LLAMA_CPP, ONE_EACH, SGLANG, Surface

from conftest import Server

pytestmark = pytest.mark.slow

JSON_TYPE = {"content-type": "application/json"}
EXAMPLES = settings(
    max_examples=1000,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# Texts of all planes, lone surrogates among them; short, so that scoring is quick.
texts = st.one_of(st.text(max_size=12), st.text(st.characters(categories=["Cs", "Cc", "Co"]), max_size=4))
numbers = st.one_of(
    st.integers(-3, 12), st.integers(), st.integers(10**18, 10**400), st.floats(), st.sampled_from([1e308, -0.0, 0.5])
)
wild = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
documents = st.lists(st.one_of(texts, st.fixed_dictionaries({"text": texts})), min_size=1, max_size=4)

# Nesting that is too deep to be built by value; JSON text.
depths = st.sampled_from([10, 400, 900, 990, 1100, 20_000])
nested = st.builds(
    lambda depth, pair: pair[0] * depth + pair[1] * depth, depths, st.sampled_from(["[]", ('{"a":', "}")])
)


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Good eight times out of nine, so that bodies with one fault, or none, are as common as hopeless ones."""
    return st.integers(0, 8).flatmap(lambda draw: good if draw else wild)


options = st.fixed_dictionaries(
    {},
    optional={
        "top_n": mostly(st.one_of(st.integers(0, 6), st.none(), st.sampled_from(["2", 2.0, True]))),
        "model": mostly(st.sampled_from(["qwen3-rerank", "gte-rerank", "gte-rerank-v2"])),
        "instruct": mostly(texts),
        "return_documents": mostly(st.booleans()),
        "use_activation": mostly(st.booleans()),
        "truncate_prompt_tokens": mostly(st.integers(-1, 300)),
    },
)
some = st.integers(0, 9).map(lambda draw: draw == 9)


@st.composite
def bodies(draw: st.DrawFn, surface: Surface) -> bytes:
    """A body with wild values, keys that come twice, unknown keys and deep nesting, as bytes."""
    body: Any = surface.body(draw(mostly(texts)), draw(mostly(documents)), **draw(options))
    if draw(some):
        body.pop(draw(st.sampled_from(sorted(body))))
    if draw(some):
        body[draw(st.sampled_from(sorted(body)))] = draw(wild)
    if draw(some):
        body[draw(texts)] = draw(wild)
    if draw(some):
        body = draw(wild)
    escaped = not draw(some)
    text = json.dumps(body, ensure_ascii=escaped)
    if text.endswith("}") and draw(some):
        key = draw(st.sampled_from(["query", "queries", "documents", "input", "parameters", "top_n", "unknown"]))
        value = draw(st.one_of(nested, wild.map(json.dumps)))
        pair = f'"{key}": {value}'
        twice = f"{text[:-1]}, {pair}}}" if draw(st.booleans()) else f"{{{pair}, {text[1:]}"
        text = twice if len(text) > 2 else f"{{{pair}}}"
    encoding = draw(st.sampled_from(["utf-8"] * 8 + ["utf-16", "utf-32"]))
    return text.encode(encoding, "surrogatepass")


@st.composite
def mutations(draw: st.DrawFn, surface: Surface) -> bytes:
    """A good body with a few bytes changed, dropped, put in, or written twice."""
    body = bytearray(json.dumps(surface.body(documents=["one 😀", "two\ud800"])).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 6)))
        new = draw(st.one_of(st.binary(max_size=6), st.sampled_from([b'"', b"\\", b"{", b"]", b",", b"\0", b"1e9999"])))
        body[start:end] = draw(st.sampled_from([new, b"", bytes(body[start:end]) * 2]))
    return bytes(body)


@pytest.mark.parametrize("make", [bodies, mutations], ids=["wild bodies", "changed bytes"])
@pytest.mark.parametrize("surface", ONE_EACH, ids=str)
def test_every_answer_is_a_documented_one(
    surface: Surface, make: Callable[[Surface], st.SearchStrategy[bytes]], qwen_server: Server
) -> None:
    paths = [other.path for other in ALL if other.dialect == surface.dialect]
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
    inner, chosen = (body["input"], body.get("parameters") or {}) if surface.dialect == "native" else (body, body)
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
    if surface.dialect == "score":
        assert indexes == list(range(num_documents))
    else:
        assert scores == sorted(scores, reverse=True)
    assert surface is SGLANG or surface.tokens(response) >= 0


def _number(top_n: Any, num_documents: int, surface: Surface) -> int:
    """How many results a value of top_n asks for."""
    if surface.dialect == "score" or top_n is None:
        return num_documents
    number = top_n if isinstance(top_n, int) else int(float(top_n))
    return number if surface is LLAMA_CPP else number or num_documents
