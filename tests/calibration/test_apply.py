"""A calibration applied: in a program, on every API, and by the client; and where it does not hold."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rerankd import Client
from rerankd.calibration.apply import Cut, min_score_of
from rerankd.calibration.profile import Calibration, Curve, Threshold, load_calibrations
from rerankd.errors import InvalidRequest, SettingsError
from rerankd.testing import INFO
from rerankd.types import DEFAULT_INSTRUCT, Passages, Prompt, Ranking, Score, Usage, sigmoid
from support.fakes import NumberedModel, scorer_of
from support.serving import serving
from support.surfaces import ALL, NATIVE, RERANK, Surface

LOGITS = (3.0, 1.0, -2.0, -4.0)
PLATT = Curve("platt", 0.5, -1.0)
CALIBRATION = Calibration(
    *("support", INFO.name, INFO.prompt_id, DEFAULT_INSTRUCT, INFO.dtype, 10, 500, 0.2, PLATT),
    Threshold(-2.0, 0.05, 40),
    Threshold(1.0, 0.05, 40),
)  # fmt: skip


def ranking(*logits: float) -> Ranking:
    scores = tuple(Score(index, sigmoid(logit), logit) for index, logit in enumerate(logits))
    return Ranking(tuple(sorted(scores, key=lambda one: -one.raw_score)), Usage(), (), "m", scores)


def cut(min_score: Any = None, calibration: Calibration | None = None, *logits: float, **info: Any) -> Ranking:
    found = ranking(*(logits or LOGITS))
    return Cut(min_score, calibration).of(found, replace(INFO, **info), DEFAULT_INSTRUCT)


def indices(of: Ranking) -> list[int]:
    return [score.index for score in of.ranked]


def test_without_a_calibration_the_scores_of_the_reply_are_compared() -> None:
    assert indices(cut(0.5)) == [0, 1]
    assert cut(0.5).left_out == 2 and not cut(0.5).nothing_relevant
    assert "2 of 4 results left out" in cut(0.5).warnings[0]
    assert cut(0.999).nothing_relevant and not cut(0.999).ranked
    assert cut() == ranking(*LOGITS)


def test_a_calibration_changes_scores_and_no_order() -> None:
    found = cut(None, CALIBRATION)
    assert indices(found) == [0, 1, 2, 3]
    assert [one.score for one in found.ranked] == [sigmoid(0.5 * logit - 1) for logit in LOGITS]
    assert [one.logit for one in found.ranked] == list(LOGITS)
    assert indices(cut(0.5, CALIBRATION)) == [0]


def test_named_thresholds_and_nothing_relevant() -> None:
    assert indices(cut("keep", CALIBRATION)) == [0, 1, 2]  # at the threshold is kept
    assert indices(cut("relevant", CALIBRATION)) == [0]  # at the threshold is not
    assert cut(None, CALIBRATION, 1.0, -3.0).nothing_relevant
    assert not cut(None, CALIBRATION, 1.1, -3.0).nothing_relevant


@pytest.mark.parametrize("what", ["name", "prompt_id"])
def test_a_calibration_of_another_model_or_prompt_is_not_applied(what: str) -> None:
    found = cut(0.9, CALIBRATION, **{what: "other"})
    assert indices(found) == [0, 1, 2, 3] and found.ranked[0].score == sigmoid(3.0)
    assert "calibration support not applied, nor min_score" in found.warnings[0]


def test_a_calibration_of_another_instruct_is_not_applied() -> None:
    found = Cut(None, CALIBRATION).of(ranking(*LOGITS), INFO, "Find the answer")
    assert "instruct" in found.warnings[0] and found.ranked[0].score == sigmoid(3.0)
    assert not Cut(None, CALIBRATION).of(ranking(*LOGITS), INFO, f"{DEFAULT_INSTRUCT}.").warnings


def test_more_candidates_and_another_dtype_are_doubted() -> None:
    assert "at most 10 candidates" in cut(None, CALIBRATION, *range(11)).warnings[0]
    assert "made in float32, not int8" in cut(None, CALIBRATION, dtype="int8").warnings[0]


@pytest.mark.parametrize(
    ("made", "passages", "num_passages", "tokens", "words"),
    [
        (0, None, 0, 900, ""),
        (0, Passages(), 1, 900, ""),
        (0, Passages(), 2, 900, "made from whole documents, not from the best passages of long ones"),
        (0, Passages(64), 1, 60, ""),
        (0, Passages(64), 3, 60, "made from whole documents, not from passages of 64 tokens"),
        (64, Passages(64), 3, 60, ""),
        (64, Passages(32), 3, 30, "made from passages of 64 tokens, not from passages of 32 tokens"),
        (64, None, 0, 60, ""),
        (64, None, 0, 65, "made from passages of 64 tokens, not from whole documents"),
    ],
)
def test_other_passages_are_doubted_where_a_document_is_split_otherwise(
    made: int, passages: Passages | None, num_passages: int, tokens: int, words: str
) -> None:
    prompt = Prompt("q", "d", array("i"), 1, tokens)
    scores = (Score(0, sigmoid(1.0), 1.0, prompt=prompt, num_passages=num_passages),)
    calibration = replace(CALIBRATION, passage_tokens=made)
    found = Cut(None, calibration).of(Ranking(scores, Usage(), (), "m", scores), INFO, DEFAULT_INSTRUCT, passages)
    assert [words in warning for warning in found.warnings] == [True] * bool(words)
    assert found.ranked[0].score == calibration.curve.probability(1.0)


def test_a_named_threshold_needs_a_calibration_that_has_it() -> None:
    with pytest.raises(InvalidRequest, match="none is named"):
        Cut("keep")
    with pytest.raises(InvalidRequest, match="too few queries"):
        Cut("relevant", replace(CALIBRATION, nothing=None))
    for wrong in ("high", True, float("nan"), [1]):
        with pytest.raises(InvalidRequest, match="min_score"):
            min_score_of(wrong)


# The file


@pytest.mark.parametrize("curve", [PLATT, Curve("isotonic", logits=(-1.0, 0.0, 2.0), probabilities=(0.1, 0.1, 0.9))])
def test_a_file_has_everything(curve: Curve, tmp_path: Path) -> None:
    odd = replace(CALIBRATION, curve=curve, passage_tokens=512, instruct='Find "it" \\ in 日本語\n', keep=None)
    odd.save(tmp_path / "support.toml")
    assert Calibration.load(tmp_path / "support.toml") == odd
    assert list(load_calibrations([f"mine={tmp_path / 'support.toml'}"])) == ["mine"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("slope = 0.5", "slope = -0.5"), ("depth = 10", 'depth = "10"'), ("[curve]", "[curves]"), ("model =", "model")],
)
def test_a_damaged_file_is_refused(old: str, new: str, tmp_path: Path) -> None:
    CALIBRATION.save(path := tmp_path / "support.toml")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SettingsError, match="is not a calibration"):
        Calibration.load(path)


# A server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    folder = tmp_path_factory.mktemp("calibration")
    info = NumberedModel().info
    made = replace(CALIBRATION, model=info.name, prompt_id=info.prompt_id, dtype=info.dtype)
    made.save(folder / "support.toml")
    with serving(lambda _: scorer_of(NumberedModel()), calibration=(str(folder / "support.toml"),)) as client:
        yield client


@pytest.mark.parametrize("surface", ALL, ids=str)
def test_every_api_leaves_out_what_is_under_min_score(surface: Surface, client: httpx2.Client) -> None:
    documents = ["3", "1", "-2", "-4"]
    every = surface.scores(client.post(surface.path, json=surface.body(documents=documents)))
    response = client.post(surface.path, json=surface.body(documents=documents, min_score=0.5))
    kept = surface.scores(response)
    assert "2 of 4 results left out" in response.headers["x-rerankd-warning"]
    assert len(every) == 4 and len(kept) in (2, 4)  # pairs keep their places
    assert list(kept)[:2] == list(every)[:2]


def test_a_server_applies_its_calibration(client: httpx2.Client) -> None:
    body = {"query": "q", "documents": ["3", "1", "-2", "-4"], "calibration": "support", "explain": True}
    reply = client.post("/v1/rerank", json=body).json()
    scores = {one["index"]: one["relevance_score"] for one in reply["results"]}
    logits = {one["index"]: one["explain"]["logit"] for one in reply["results"]}
    assert scores == {index: pytest.approx(sigmoid(0.5 * logit - 1)) for index, logit in logits.items()}
    kept = client.post("/v1/rerank", json={**body, "min_score": "relevant"})
    assert [one["index"] for one in kept.json()["results"]] == [0]
    assert "x-rerankd-nothing-relevant" not in kept.headers
    nothing = client.post("/v1/rerank", json={**body, "documents": ["-3", "-4"]})
    assert nothing.headers["x-rerankd-nothing-relevant"] == "true" and len(nothing.json()["results"]) == 2


def test_native_parameters_have_both_fields(client: httpx2.Client) -> None:
    body = NATIVE.body(documents=["3", "-4"])
    body["parameters"] = {**body.get("parameters", {}), "calibration": "support", "min_score": 0.3}
    assert len(NATIVE.scores(client.post(NATIVE.path, json=body))) == 1


@pytest.mark.parametrize(
    "wrong", [{"calibration": "other"}, {"min_score": "keep"}, {"min_score": "high"}, {"min_score": True}], ids=str
)
def test_mistakes_are_named(wrong: dict[str, Any], client: httpx2.Client) -> None:
    told = RERANK.error(client.post(RERANK.path, json=RERANK.body(**wrong)), 400)
    assert next(iter(wrong)) in told and "float" not in told
    assert "calibration" not in wrong or "support" in told


def test_the_metrics_count(client: httpx2.Client) -> None:
    client.post("/v1/rerank", json={"query": "q", "documents": ["-3"], "min_score": 0.9})
    text = client.get("/metrics").text
    for name in ("rerankd_left_out_results_total", "rerankd_nothing_relevant_total"):
        counts = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]
        assert sum(counts) >= 1


def test_the_client_asks_and_cuts(client: httpx2.Client) -> None:
    with Client(str(client.base_url), dialect="rerankd", complete=True) as ours:
        documents = ["3", "1", "-2", "-4"]
        assert indices(ours.rank("q", documents, min_score=0.5)) == [0, 1]
        found = ours.rank("q", documents, min_score="relevant", calibration="support")
        assert indices(found) == [0] and found.ranked[0].logit == 3.0 and found.left_out == 3
        assert found.ranked[0].score == pytest.approx(sigmoid(0.5))
        assert ours.rank("q", ["-3"], calibration="support").nothing_relevant
        with pytest.raises(InvalidRequest):
            ours.rank("q", documents, min_score="keep")
