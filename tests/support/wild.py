"""Strategies of bodies: wild JSON, and good bodies with changed bytes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from support.surfaces import Surface

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
