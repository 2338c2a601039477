"""What becomes of calls, as their account's page lists it: answered and refused ones, through a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerankd.accounts.calls import CallFilter, ListedCall
from rerankd.accounts.store import Store
from rerankd.errors import Busy, InvalidRequest, PromptTooLong
from rerankd.server.call_log import reason_of
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.types import CallLimits
from support.fakes import NumberedModel, scorer_of
from support.payers import Payer, new_payer
from support.serving import serving_model

PATH = "/v1/rerank"


@pytest.fixture
def payer(store: Store) -> Payer:
    return new_payer(store, credit=100)


def listed(store: Store) -> list[ListedCall]:
    """The oldest first."""
    return store.calls.find(CallFilter(), 100)[::-1]


def models() -> Models:
    return Models(ServedModel(lambda _: scorer_of(NumberedModel())))


def test_each_call_is_listed_with_its_outcome(store: Store, payer: Payer, tmp_path: Path) -> None:
    prices = tmp_path / "rerankd.toml"
    prices.write_text(f'[rates."{NumberedModel().info.name}"]\ninput_price = 1\n')
    limited = store.keys.create(payer.account_id, "limited", limits=CallLimits(requests_per_minute=1))[1]
    with serving_model(models(), store=store, accounts=True, config=prices) as client:

        def call(secret: str, number: int, **changes: object) -> int:
            body = {"model": "qwen3-rerank", "query": "q", "documents": ["1", "2"], **changes}
            headers = {"authorization": f"Bearer {secret}", "x-request-id": f"request-{number}"}
            return client.post(PATH, json=body, headers=headers).status_code

        statuses = [call(payer.secret, 1), call(payer.secret, 2, documents="secret text", query=7)]
        statuses += [call(limited, 3, model="no-such-model"), call(payer.secret, 4, documents=["3"] * 400)]
        statuses += [call(limited, 5), call(limited, 6), call("rk-unknown", 7)]
    calls = [one.call for one in listed(store)]  # written when the server ended, at the latest
    assert [one.status for one in calls] == statuses[:-1], "a caller without a key has no list"
    assert [one.request_id for one in calls] == [f"request-{number}" for number in range(1, 7)]
    assert all(one.account_id == payer.account_id and one.milliseconds >= 0 for one in calls)
    answered = calls[0]
    assert (answered.dialect, answered.documents, answered.error, answered.reason) == ("vllm-rerank", 2, None, None)
    assert (answered.tokens, answered.cost) == (4, 4)
    assert calls[1].error == "InvalidRequest" and calls[1].reason and "secret" not in calls[1].reason
    assert calls[2].error == "ModelNotFound" and "no-such-model" in str(calls[2].reason)
    assert calls[3].error == "OutOfCredit" and "Insufficient balance" in str(calls[3].reason)
    assert calls[5].error == "RateLimited" and [one.key for one in listed(store)][5].startswith("limited (")
    assert not any(one.cost for one in calls if one.error)


def test_no_list_where_none_is_wanted(store: Store, payer: Payer) -> None:
    with serving_model(models(), store=store, accounts=True, call_log_days=0) as client:
        headers = {"authorization": f"Bearer {payer.secret}"}
        assert client.post(PATH, json={"model": "m", "query": "q", "documents": []}, headers=headers).status_code >= 400
    assert listed(store) == []


def test_a_reason_holds_no_text_of_the_caller() -> None:
    invalid = InvalidRequest("“my secret” is no number", [("documents.3", "“my secret” is no number"), ("query", "?")])
    assert reason_of(invalid) == "Not valid: documents.3, query."
    assert reason_of(InvalidRequest("my secret")) == "The request is not valid."
    assert "at least 9 tokens" in reason_of(PromptTooLong.of_text("query", 0, 9, 8))
    assert reason_of(Busy("The queue is full.", 1)) == "The queue is full."
    assert "closed the connection" in reason_of(ConnectionError("secret"))
