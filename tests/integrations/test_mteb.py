"""The cross-encoder for MTEB, against the protocol that MTEB documents; benchmarks/mteb_run.py runs MTEB itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rerankd.integrations.mteb import RerankdCrossEncoder
from rerankd.testing import FakeRanker, shared_words

QUERIES = [{"text": ["hot sun", "cold ice"]}, {"text": ["hot sun"]}]
DOCUMENTS = [{"text": ["the sun", "the ice"]}, {"text": ["a hot sun"]}]
ABOUT = {"hf_split": "test", "hf_subset": "default"}


def test_each_pair_has_its_logit_and_each_query_is_asked_once() -> None:
    ranker = FakeRanker(lambda query, document: shared_words(query, document) / 2)
    metadata = SimpleNamespace(prompt={"query": "Find it", "document": "-"})
    found = RerankdCrossEncoder(ranker, "o/m").predict(QUERIES, DOCUMENTS, task_metadata=metadata, **ABOUT)
    assert found.shape == (3,)
    [sun] = [call for call in ranker.calls if call.query == "hot sun"]
    assert sun.documents == ("the sun", "a hot sun") and sun.instruct == "Find it" and len(ranker.calls) == 2
    expected = ranker.rank("hot sun", ["the sun", "a hot sun"]).scores
    assert [found[0], found[2]] == [score.raw_score for score in expected]


@pytest.mark.parametrize(
    ("own", "prompt", "asked"),
    [(None, None, None), (None, "Task", "Task"), ("Mine", "Task", "Mine"), (None, {"document": "D"}, None)],
)
def test_the_instruct_is_the_caller_s_or_the_task_s(own: str | None, prompt: object, asked: str | None) -> None:
    ranker = FakeRanker()
    model = RerankdCrossEncoder(ranker, "o/m", instruct=own)
    model.predict(QUERIES[1:], DOCUMENTS[1:], task_metadata=SimpleNamespace(prompt=prompt), **ABOUT, batch_size=8)
    assert ranker.calls[0].instruct == asked


def test_pairs_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="3 queries for 1 documents"):
        RerankdCrossEncoder(FakeRanker(), "o/m").predict(
            QUERIES, DOCUMENTS[1:], task_metadata=SimpleNamespace(prompt=None), **ABOUT
        )
