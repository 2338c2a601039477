"""What the answers of a `Reranker` and of a `Client` have in common."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from rerankd import RemoteRanking, RemoteScore, RemoteUsage, Results
from rerankd.types import Prompt, Ranking, Score, Usage

EVIL = "<script>alert('x')</script> & שלום"


def local(*texts: str) -> Ranking:
    scores = tuple(
        Score(index, float(-index), text, Prompt("query", text, range(500), 1, 1)) for index, text in enumerate(texts)
    )
    return Ranking(scores, scores, Usage(10, 5), ("cut",))


def remote(*texts: str) -> RemoteRanking:
    scores = tuple(RemoteScore(index, 0.5 / (index + 1), None, text) for index, text in enumerate(texts))
    return RemoteRanking(scores, RemoteUsage(7), "a-model", ("cut",), ("id-1",))


both = pytest.mark.parametrize("make", [local, remote])


@both
def test_a_ranking_is_a_sequence_of_its_results(make: Any) -> None:
    ranking: Results[Any] = make("first", "second", "third")
    assert [result.document for result in ranking] == ["first", "second", "third"]
    assert len(ranking) == 3
    assert ranking[0].document == "first" and ranking[-1].index == 2
    assert ranking[:2] == ranking.ranked[:2]
    assert len(make()) == 0
    assert pickle.loads(pickle.dumps(ranking)) == ranking


@both
def test_it_is_json_ready(make: Any) -> None:
    told = json.loads(json.dumps(make("first").to_dict()))
    result = told["results"][0]
    assert (result["index"], result["score"], result["document"]) == (0, 0.5, "first")
    assert told["warnings"] == ["cut"]
    assert set(told["usage"]) in ({"prompt_tokens", "text_tokens"}, {"total_tokens", "search_units"})


def test_a_server_s_answer_keeps_its_model_and_ids() -> None:
    told = remote("first").to_dict()
    assert (told["model"], told["request_ids"]) == ("a-model", ["id-1"])


@both
def test_its_repr_is_short_and_in_one_line(make: Any) -> None:
    ranking = make(*(f"text\n{number} " * 500 for number in range(100)))
    assert len(repr(ranking)) < 350 and "\n" not in repr(ranking)
    assert "97 more; 1 warnings" in repr(ranking)
    assert len(repr(ranking[0])) < 150 and "index=0" in repr(ranking[0]) and "0.5000" in repr(ranking[0])
    assert repr(make()).endswith("no results; 1 warnings>")


@both
def test_a_notebook_shows_a_table_and_runs_nothing(make: Any) -> None:
    html = make(EVIL, *["text"] * 60)._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "0.5000" in html and "<p>… 11 more</p>" in html and "Warning: cut" in html
