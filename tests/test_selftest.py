"""The known-answer check: which models it lets through, and what it says of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
import torch

from rerankd.bench.random_weights import config_json
from rerankd.engine.qwen3.model import Qwen3Config, Qwen3Reranker
from rerankd.errors import SelfTestFailed
from rerankd.selftest import IN_OTHER_LANGUAGES, PUBLISHED_0_6B, QUERY, SelfTest, run_self_test
from rerankd.types import DEFAULT_INSTRUCT, EncodedPair, Limits, ModelInfo, Pair


def qwen3(size: str) -> ModelInfo:
    """What would be loaded of that size, its parameters counted."""
    with torch.device("meta"):
        network = Qwen3Reranker(Qwen3Config.from_json(config_json(size)), head_rows=2)
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return ModelInfo(f"Qwen/Qwen3-Reranker-{size}", "qwen3", "card", 40960, "cpu", "float32", num_parameters, "")


QWEN_0_6B, QWEN_4B, QWEN_8B = map(qwen3, ("0.6B", "4B", "8B"))
VENUS, MARS, JUPITER, SATURN = PUBLISHED_0_6B


class FakeBackend:
    """Gives each of the four documents a logit made of the published one."""

    def __init__(self, logit: Callable[[float], float], info: ModelInfo) -> None:
        self.info = info
        self.logit = logit
        self.asked: list[tuple[str, str]] = []

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]:
        self.asked += [(instruct, pair.query) for pair in pairs]
        return [EncodedPair(pair, [1], 1, 1) for pair in pairs]

    def submit(
        self, pairs: Sequence[EncodedPair], progress: Callable[[int], None] | None = None
    ) -> Future[list[float]]:
        future: Future[list[float]] = Future()
        future.set_result([self.logit(PUBLISHED_0_6B.get(pair.pair.document, 0.0)) for pair in pairs])
        return future


def check(logit: Callable[[float], float], **info: Any) -> SelfTest:
    return run_self_test(FakeBackend(logit, replace(QWEN_0_6B, **info)))


def test_the_check_asks_as_a_user_does() -> None:
    backend = FakeBackend(lambda logit: logit, QWEN_0_6B)
    run_self_test(backend)
    assert backend.asked == [(DEFAULT_INSTRUCT, QUERY)] * 4


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
    result = run_self_test(FakeBackend(logit, info))
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
    class Backend(FakeBackend):
        def submit(
            self, pairs: Sequence[EncodedPair], progress: Callable[[int], None] | None = None
        ) -> Future[list[float]]:
            if pairs[0].pair.query == QUERY:
                return super().submit(pairs)
            future: Future[list[float]] = Future()
            future.set_result([0.0, 1.0, 0.0] if pairs[0].pair.query == misread else [1.0, 0.0, 0.0])
            return future

    result = run_self_test(Backend(lambda logit: logit, replace(QWEN_0_6B, kind="bi-encoder")))
    if misread is None:
        assert result.status == "sane" and "also right in German, Chinese and Arabic" in result.verdict
    else:
        assert result.status == "failed" and misread in result.verdict


def test_other_models_can_only_be_sane() -> None:
    for info in (QWEN_4B, QWEN_8B, replace(QWEN_0_6B, kind="cross-encoder")):
        result = run_self_test(FakeBackend(lambda logit: logit, info))
        assert result.status == "sane"
        assert "right document is first" in result.verdict and "spread over 10.2" in result.verdict
        result.raise_if_failed()
