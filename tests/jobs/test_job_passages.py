"""A job that splits documents: the best passage counts, every passage is kept, and a kill changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from rerankd.errors import InferenceError, InvalidRequest
from rerankd.jobs.job import Job, Plan
from rerankd.runs.about import read_about
from rerankd.runs.run import Candidate, Run, read_run
from rerankd.runs.texts import Query
from rerankd.testing import FakeRanker, shared_words
from rerankd.types import Passages
from support.splitting import SplittingRanker

FILLER = "One more sentence that says nothing of any use to anybody here. "
TEXTS = {"late": FILLER * 6 + "The hot sun is hot sun. " + FILLER * 2, "short": "A hot day.", "none": FILLER * 4}
PLAN = Plan((), {"name": "fake"}, None, 100, skip_missing=False, passages=Passages(24, 0))
RUN = Run("first", {"q": tuple(Candidate(one, -place) for place, one in enumerate(TEXTS))})


def scored(folder: Path, out: str, plan: Plan = PLAN, ranker: FakeRanker | None = None) -> Path:
    """The result of a job."""
    job = Job(folder / out, plan, RUN, {"q": Query("hot sun")})
    job.score(ranker or SplittingRanker(), lambda ids: TEXTS.items())
    return folder / out


@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
def test_every_passage_is_kept_in_the_order_of_the_text(out: str, tmp_path: Path) -> None:
    path = scored(tmp_path, out)
    rows = (
        pyarrow.parquet.read_table(path).to_pylist()
        if path.suffix == ".parquet"
        else [json.loads(line) for line in path.read_text().splitlines()]
    )
    assert [row["docid"] for row in rows] == ["late", "short", "none"]
    late, short, _ = rows
    starts = [one["start"] for one in late["passages"]]
    assert len(starts) > 3 and starts == sorted(starts) and len(short["passages"]) == 1
    for row in rows:
        text = TEXTS[row["docid"]]
        for one in row["passages"]:
            assert one["logit"] == pytest.approx(shared_words("hot sun", text[one["start"] : one["end"]]))
        assert row["logit"] == pytest.approx(max(one["logit"] for one in row["passages"]))
    words = sum(len(TEXTS["late"][one["start"] : one["end"]].split()) for one in late["passages"])
    assert late["tokens"] == words + len(starts) * (10 + 2)  # the template and the query, once for each passage
    found = read_run(path).ranked["q"][0]
    assert len(found.passages) == len(starts) and found.best is not None
    assert "hot sun" in TEXTS["late"][slice(*found.best)]


def test_a_trec_run_has_the_best_passage_s_order(tmp_path: Path) -> None:
    found = read_run(scored(tmp_path, "out.trec")).ranked["q"]
    assert [one.doc_id for one in found] == ["late", "short", "none"] and not found[0].passages


def test_a_run_without_passages_has_no_column_for_them(tmp_path: Path) -> None:
    path = scored(tmp_path, "out.jsonl", replace(PLAN, passages=None))
    assert "passages" not in path.read_text()


def test_a_ranker_that_does_not_split_has_no_passages(tmp_path: Path) -> None:
    path = scored(tmp_path, "out.jsonl", ranker=FakeRanker())
    assert [json.loads(line)["passages"] for line in path.read_text().splitlines()] == [[], [], []]
    assert not read_run(path).ranked["q"][0].passages


def test_the_settings_of_passages_are_said_beside_the_result_and_compared_at_a_resume(tmp_path: Path) -> None:
    about = read_about(scored(tmp_path, "out.jsonl"))
    assert about is not None and about.plan["passages"]["max_tokens"] == 24 and about.billed_tokens > 0

    def fail(query: str, document: str) -> float:
        raise InferenceError("no")

    with pytest.raises(InferenceError):
        scored(tmp_path, "other.jsonl", ranker=SplittingRanker(fail))
    with pytest.raises(InvalidRequest, match=r"max_tokens \(24 then, 32 now\)"):
        scored(tmp_path, "other.jsonl", replace(PLAN, passages=Passages(32, 0)))


@pytest.mark.parametrize(
    "passages", [7, ["x"], [{"start": 0, "end": 1}], [{"start": 0, "end": 1, "logit": "high"}]], ids=repr
)
def test_damaged_passages_of_a_run_are_named(passages: object, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps({"qid": "q", "docid": "d", "logit": 1.0, "passages": passages}))
    with pytest.raises(InvalidRequest, match=r"run\.jsonl:1.*passage"):
        read_run(path)
