"""Servers in this process on which rerank calls go wrong in one way each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import httpx2

from rerankd.engine.scorer import EngineScorer
from rerankd.types import LoadProgress
from support.fakes import NumberedModel, scorer_of
from support.serving import serving
from support.surfaces import RERANK


@contextmanager
def loading() -> Iterator[httpx2.Client]:
    """The model is not there yet."""
    loaded = threading.Event()

    def start(progress: LoadProgress) -> EngineScorer:
        progress("loading the weights", 0.5)
        assert loaded.wait(60)
        return scorer_of(NumberedModel())

    with serving(start, wait=False) as client:
        try:
            yield client
        finally:
            loaded.set()


@contextmanager
def busy() -> Iterator[httpx2.Client]:
    """The queue is full."""
    model = NumberedModel()
    model.gate.clear()
    with serving(lambda progress: scorer_of(model, max_queue=1)) as client, ThreadPoolExecutor() as pool:
        accepted = pool.submit(client.post, RERANK.path, json=RERANK.body(documents=["1"]))
        assert model.entered.wait(60)
        try:
            yield client
        finally:
            model.gate.set()
            assert accepted.result(60).status_code == 200


@contextmanager
def limited() -> Iterator[httpx2.Client]:
    """The caller's minute is full."""
    with serving(lambda progress: scorer_of(NumberedModel()), requests_per_minute=1) as client:
        client.post(RERANK.path, json=RERANK.body(documents=["1"]))
        yield client


@contextmanager
def failing() -> Iterator[httpx2.Client]:
    """The model breaks on every document."""

    def fault(document: str) -> None:
        raise RuntimeError("CUDA error at /secret/path")

    with serving(lambda progress: scorer_of(NumberedModel(fault))) as client:
        yield client


@contextmanager
def small() -> Iterator[httpx2.Client]:
    """Reads at most 1 MB."""
    with serving(lambda progress: scorer_of(NumberedModel()), max_body_mb=1) as client:
        yield client


FAULTS: dict[str, Callable[[], AbstractContextManager[httpx2.Client]]] = {
    "loading": loading,
    "busy": busy,
    "rate limit": limited,
    "internal": failing,
}
