"""Whatever a server sends is a ranking or an error, and never something else."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerankd.client.reply import error_message, read_reply, request_id
from rerankd.client.retry import retry_after_s

NUM_DOCUMENTS = 3

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
names = st.sampled_from(
    "results data rankings output index relevance_score score logit usage meta tokens warnings error message "
    "detail msg loc model id request_id total_tokens search_units billed_units passages start end sentences".split()
)
passages = st.fixed_dictionaries(
    {"start": st.integers(0, 3), "end": st.integers(3, 5), "score": st.floats(0, 1)},
    optional={"sentences": st.lists(st.dictionaries(names, scalars, max_size=4), max_size=2) | scalars},
)
results = st.fixed_dictionaries(
    {"index": st.integers(0, 3) | scalars, "relevance_score": st.floats() | scalars},
    optional={"passages": st.lists(passages, max_size=2) | scalars},
)
bodies = st.recursive(
    scalars | st.lists(results, max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=15,
)

rankings = st.fixed_dictionaries(
    {"results": st.lists(results, max_size=4, unique_by=lambda result: repr(result["index"]))},
    optional={"usage": bodies, "meta": bodies, "model": bodies, "id": bodies},
)


@given(bodies | rankings, st.booleans())
@example({"results": [{"index": 0, "relevance_score": 10**400}]}, False)
@example({"results": [], "usage": {"total_tokens": 10**400, "prompt_tokens": -1}}, False)
@example(
    {"results": [{"index": 0, "score": 1, "passages": [{"start": 0, "end": 1, "score": 1, "sentences": [{}]}]}]}, True
)
def test_a_reply_is_a_ranking_or_an_error(body: Any, by_rerankd: bool) -> None:
    headers = {"x-rerankd-model": "m"} if by_rerankd else {}
    response = httpx2.Response(200, content=json.dumps(body), headers=headers)
    try:
        reply = read_reply(response, NUM_DOCUMENTS)
    except ValueError:
        return
    indices = {scored.index for scored in reply.scores}
    assert indices <= set(range(NUM_DOCUMENTS)) and len(indices) == len(reply.scores)
    assert all(abs(scored.score) < float("inf") for scored in reply.scores)
    assert all(isinstance(warning, str) for warning in reply.warnings)
    assert all(
        0 <= count < 2**63 for count in (reply.usage.total_tokens, reply.usage.search_units) if count is not None
    )


@given(st.builds(lambda body: json.dumps(body).encode(), bodies) | st.binary(max_size=50))
@example(b'{"error":' * 400 + b"{}" + b"}" * 400)
def test_an_error_always_has_a_message(content: bytes) -> None:
    response = httpx2.Response(503, content=content)
    assert 0 < len(error_message(response)) < 1000
    assert request_id(response) is None or json.loads(content)


@given(st.text(st.characters(codec="ascii"), max_size=40))
@example("Wed, 21 Oct 99999 07:28:00 GMT")
@example("Wed, 21 Oct 2015 07:28:00 -9999")
@example("9" * 400)
def test_a_pause_is_a_number_of_seconds_or_not_asked_for(text: str) -> None:
    asked_s = retry_after_s(httpx2.Headers({"retry-after": text}))
    assert asked_s is None or 0 <= asked_s < float("inf")


@pytest.mark.parametrize("text", ["Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00", "0", "-3"])
def test_a_pause_that_is_over_is_none(text: str) -> None:
    assert retry_after_s(httpx2.Headers({"retry-after": text})) == 0
