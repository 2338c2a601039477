"""A `Ranking` as a sequence, as JSON and in a notebook; from a model in this process and from a server."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from rerankd import Ranking, Score, Usage
from rerankd.types import Prompt

EVIL = "<script>alert('x')</script> & שלום"


def local(*texts: str) -> Ranking:
    scores = tuple(
        Score(index, 0.5 / (index + 1), float(-index), text, Prompt("query", text, range(500), 1, 1))
        for index, text in enumerate(texts)
    )
    return Ranking(scores, Usage(10, 5), ("cut",), "a-model", scores)


def remote(*texts: str) -> Ranking:
    scores = tuple(Score(index, 0.5 / (index + 1), document=text) for index, text in enumerate(texts))
    return Ranking(scores, Usage(7), ("cut",), "a-model", scores, ("id-1",))


both = pytest.mark.parametrize("make", [local, remote])


@both
def test_a_ranking_is_a_sequence_of_its_results(make: Any) -> None:
    ranking: Ranking = make("first", "second", "third")
    assert [result.document for result in ranking] == ["first", "second", "third"]
    assert len(ranking) == 3
    assert ranking[0].document == "first" and ranking[-1].index == 2
    assert ranking[:2] == ranking.ranked[:2]
    assert len(make()) == 0
    assert pickle.loads(pickle.dumps(ranking)) == ranking


@both
def test_it_is_json_ready(make: Any) -> None:
    ranking = make("first")
    result = ranking[0]
    assert json.loads(json.dumps(ranking.to_dict())) == {
        "results": [{"index": 0, "score": 0.5, "logit": result.logit, "document": "first"}],
        "model": "a-model",
        "usage": {
            "total_tokens": ranking.usage.total_tokens,
            "text_tokens": ranking.usage.text_tokens,
            "search_units": None,
        },
        "warnings": ["cut"],
        "request_ids": list(ranking.request_ids),
    }


def test_the_raw_score_is_the_logit_where_there_is_one() -> None:
    assert local("a", "b")[1].raw_score == -1
    assert remote("a", "b")[1].raw_score == 0.25


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
