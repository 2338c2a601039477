"""The known-answer check: which models it lets through, and what it says of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
import torch

from rerankd.bench.random_weights import config_json
from rerankd.engine.qwen3.model import Qwen3Config, Qwen3Reranker
from rerankd.errors import SelfTestFailed
from rerankd.ranking import Prepared
from rerankd.selftest import IN_OTHER_LANGUAGES, OTHER_QUESTIONS, PUBLISHED_0_6B, QUERY, SelfTest, run_self_test
from rerankd.types import DEFAULT_INSTRUCT, Logits, ModelInfo, RerankRequest, TokenCounts


def qwen3(size: str) -> ModelInfo:
    """What would be loaded of that size, its parameters counted."""
    with torch.device("meta"):
        network = Qwen3Reranker(Qwen3Config.from_json(config_json(size)), head_rows=2)
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return ModelInfo(f"Qwen/Qwen3-Reranker-{size}", "qwen3", "card", 40960, "cpu", "float32", num_parameters, "")


QWEN_0_6B, QWEN_4B, QWEN_8B = map(qwen3, ("0.6B", "4B", "8B"))
VENUS, MARS, JUPITER, SATURN = PUBLISHED_0_6B


class FakeScorer:
    """Gives each of the four documents a logit made of the published one; knows the answers to other questions."""

    def __init__(self, logit: Callable[[float], float], info: ModelInfo) -> None:
        self.info = info
        self.logit = logit
        self.requests: list[RerankRequest] = []

    def prepare(self, request: RerankRequest) -> Prepared:
        self.requests.append(request)
        return Prepared(request, (), TokenCounts(0, 0), self.info)

    def submit(self, prepared: Prepared) -> Future[Logits]:
        future: Future[Logits] = Future()
        future.set_result(Logits(self.logits(prepared.request)))
        return future

    def logits(self, request: RerankRequest) -> list[float]:
        [query] = request.queries
        published = PUBLISHED_0_6B if query == QUERY else {OTHER_QUESTIONS[query][0]: 5.0}
        return [self.logit(published.get(document, 0.0)) for document in request.documents]


def check(logit: Callable[[float], float], **info: Any) -> SelfTest:
    return run_self_test(FakeScorer(logit, replace(QWEN_0_6B, **info)))


def test_the_check_asks_as_a_user_does() -> None:
    scorer = FakeScorer(lambda logit: logit, QWEN_0_6B)
    run_self_test(scorer)
    assert scorer.requests == [RerankRequest((QUERY,), tuple(PUBLISHED_0_6B), DEFAULT_INSTRUCT)]


@pytest.mark.parametrize(
    ("logit", "reason"),
    [
        (lambda logit: 0.0, "nearly equal"),
        (lambda logit: 3 + logit / 100, "nearly equal"),
        (lambda logit: math.nan, "not a number"),
        (lambda logit: math.nan if logit < -3 else logit, "not a number"),
        (lambda logit: math.inf if logit > 7 else logit, "not a number"),
        (lambda logit: -logit, "not ranked first"),
        (lambda logit: -logit if logit > 7 else logit, "not ranked first"),
    ],
    ids=["constant", "nearly constant", "all NaN", "one NaN", "infinite", "inverted", "right one last"],
)
@pytest.mark.parametrize("info", [QWEN_0_6B, QWEN_4B], ids=["0.6B", "4B"])
def test_a_broken_model_fails(logit: Callable[[float], float], reason: str, info: ModelInfo) -> None:
    result = run_self_test(FakeScorer(logit, info))
    assert result.status == "failed" and reason in result.verdict
    with pytest.raises(SelfTestFailed, match=f"{reason}.*not served.*--skip-self-test"):
        result.raise_if_failed()


@pytest.mark.parametrize(("dtype", "drift"), [("float32", 0.0), ("float32", 0.009), ("bfloat16", 0.5)])
def test_the_published_logits_are_recognised(dtype: str, drift: float) -> None:
    result = check(lambda logit: logit + drift, dtype=dtype)
    assert (result.status, set(result.logits)) == ("published", {VENUS, MARS, JUPITER, SATURN})
    assert result.logits[MARS] == pytest.approx(7.12039 + drift, abs=1e-5)
    assert "published logits of Qwen3-Reranker-0.6B" in result.verdict
    result.raise_if_failed()


@pytest.mark.parametrize(("dtype", "drift"), [("float32", 0.02), ("bfloat16", 0.8)])
def test_other_logits_in_the_right_order_are_sane_and_called_other(dtype: str, drift: float) -> None:
    result = check(lambda logit: logit + drift, dtype=dtype)
    assert result.status == "sane"
    assert "the order is right" in result.verdict and f"{drift} away from those published" in result.verdict
    result.raise_if_failed()


@pytest.mark.parametrize("misread", [None, *IN_OTHER_LANGUAGES])
def test_the_embedded_model_is_asked_in_other_languages(misread: str | None) -> None:
    class Scorer(FakeScorer):
        def logits(self, request: RerankRequest) -> list[float]:
            [query] = request.queries
            if query == QUERY:
                return super().logits(request)
            return [0.0, 1.0, 0.0] if query == misread else [1.0, 0.0, 0.0]

    result = run_self_test(Scorer(lambda logit: logit, replace(QWEN_0_6B, kind="bi-encoder")))
    if misread is None:
        assert result.status == "sane" and "also right in German, Chinese and Arabic" in result.verdict
    else:
        assert result.status == "failed" and misread in result.verdict


@pytest.mark.parametrize("wrong", OTHER_QUESTIONS)
@pytest.mark.parametrize("info", [QWEN_0_6B, QWEN_4B, replace(QWEN_0_6B, kind="cross-encoder")], ids=lambda i: i.kind)
def test_one_right_answer_is_not_enough_without_published_logits(wrong: str, info: ModelInfo) -> None:
    class Scorer(FakeScorer):
        def logits(self, request: RerankRequest) -> list[float]:
            logits = super().logits(request)
            return logits[::-1] if request.queries == (wrong,) else logits

    result = run_self_test(Scorer(lambda logit: logit + 0.02, info))
    assert result.status == "failed" and wrong in result.verdict
    assert set(result.logits) == set(PUBLISHED_0_6B)


def test_other_models_can_only_be_sane() -> None:
    for info in (QWEN_4B, QWEN_8B, replace(QWEN_0_6B, kind="cross-encoder")):
        result = run_self_test(FakeScorer(lambda logit: logit, info))
        assert result.status == "sane"
        assert "right document is first" in result.verdict and "spread over 10.2" in result.verdict
        result.raise_if_failed()
