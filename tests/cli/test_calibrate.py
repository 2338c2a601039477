"""`rerankd calibrate` and the thresholds of `rerankd rank`."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rerankd.calibration.profile import Calibration
from rerankd.cli.main import main

PLACES = ("Paris", "Rome", "Oslo", "Lima", "Cairo", "Delhi", "Tokyo", "Quito", "Accra", "Hanoi")
PASSAGES = ("--passage-tokens", "16")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 queries with 5 candidates; half of the queries have nothing relevant."""
    rng = random.Random(0)
    lines = []
    for number in range(40):
        place = PLACES[number % len(PLACES)]
        others = rng.sample([other for other in PLACES if other != place], 5)
        documents = [f"In {other} there is a museum with {number} rooms." for other in others]
        if number % 2:
            documents[0] = f"The museum in {place} opens at {number % 9 + 1} o'clock."
        relevance = [number % 2, 0, 0, 0, 0]
        lines.append(
            json.dumps(
                {"query": f"When does the museum in {place} open?", "documents": documents, "relevance": relevance}
            )
        )
    path = tmp_path_factory.mktemp("judged") / "judged.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_a_profile_is_made_and_used(judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "museums.toml"
    command = ["calibrate", "--model", "embedded", "--data", str(judged), "--output", str(profile)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "200 judged candidates of 40 queries" in told and "Brier" in told and "probability at most 5%" in told
    made = Calibration.load(profile)
    assert made.model == "embedded-multilingual" and made.labels == 200 and made.depth == 5
    assert made.keep is not None and made.nothing is not None and made.keep.queries == 20
    documents = tmp_path / "documents.txt"
    documents.write_text("The museum in Oslo opens at 9 o'clock.\nBread is baked in an oven.\n")
    rank = ["rank", "When does the museum in Oslo open?", str(documents), "--model", "embedded", "--json"]
    assert main([*rank, "--calibration", str(profile), "--min-score", "keep"]) == 0
    shown = capsys.readouterr()
    [result] = json.loads(shown.out)["results"]
    assert result["score"] == pytest.approx(made.curve.probability(result["logit"]))
    assert "1 of 2 results left out" in shown.err


def test_mistakes_are_named(judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "x.toml"), "--model", "embedded"]
    several = tmp_path / "several.jsonl"
    line = json.loads(judged.read_text().splitlines()[0])
    several.write_text("\n".join(json.dumps({**line, "instruct": text}) for text in ("a", "b")))
    unjudged = tmp_path / "unjudged.jsonl"
    unjudged.write_text(json.dumps({"query": "q", "documents": ["d"]}))
    for options, named in (
        (["--data", str(several)], "2 instructs"),
        (["--data", str(unjudged)], "no 'relevance'"),
        (["--data", str(judged), "--max-fpr", "2"], "--max-fpr is 2"),
        (["--data", str(judged), "--passage-tokens", "8"], "at least 16"),
        (["--run", "x.jsonl", "--qrels", "q.tsv", "--passage-tokens", "64"], "belongs to --data"),
    ):
        assert main(["calibrate", *options, *output]) == 1
        assert named in " ".join(capsys.readouterr().err.split())
    nowhere = str(tmp_path / "nowhere" / "x.toml")
    assert main(["calibrate", "--data", str(judged), "--model", "./no-model", "-o", nowhere]) == 1
    assert "there is no folder" in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def run_and_qrels(judged: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The same candidates as a run that `rerankd rerank` scored, and their judgements."""
    asked = [json.loads(line) for line in judged.read_text().splitlines()]
    requests, qrels, run = tmp_path / "requests.jsonl", tmp_path / "qrels.txt", tmp_path / "run.trec"
    requests.write_text("\n".join(json.dumps({"id": f"q{n}", **one}) for n, one in enumerate(asked)))
    lines = [f"q{n} 0 q{n}:{d} {grade}\n" for n, one in enumerate(asked) for d, grade in enumerate(one["relevance"])]
    qrels.write_text("".join(lines))
    assert main(["rerank", str(requests), "-o", str(run), "--model", "embedded", *PASSAGES]) == 0
    return run, qrels


def test_a_run_gives_the_profile_that_its_candidates_give(
    judged: Path, run_and_qrels: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, qrels = run_and_qrels
    scored, known = tmp_path / "scored.toml", tmp_path / "known.toml"
    assert main(["calibrate", "--model", "embedded", "--data", str(judged), "-o", str(scored), *PASSAGES]) == 0
    assert main(["calibrate", "--run", str(run), "--qrels", str(qrels), "-o", str(known)]) == 0
    one, other = Calibration.load(scored), Calibration.load(known)
    assert one.passage_tokens == other.passage_tokens == 16
    assert (one.model, one.prompt_id, one.instruct, one.dtype) == (
        other.model,
        other.prompt_id,
        other.instruct,
        other.dtype,
    )
    assert (one.labels, one.depth, one.relevant_share) == (other.labels, other.depth, other.relevant_share)
    assert other.curve.slope == pytest.approx(one.curve.slope, rel=1e-4)
    assert one.keep is not None and other.keep is not None
    assert other.keep.logit == pytest.approx(one.keep.logit, rel=1e-5)


def test_a_run_that_tells_too_little_is_refused(
    run_and_qrels: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, qrels = run_and_qrels
    about = run.with_name("run.trec.about.json")
    known = json.loads(about.read_text())
    served = {**known, "plan": {**known["plan"], "model": {"name": "x", "url": "http://x"}}}
    for change, words in (
        (served, "was scored by a server"),
        ({**known, "own_instructs": 3}, "3 queries of"),
        ({**known, "run": "another"}, "It is unknown what scored"),
    ):
        about.write_text(json.dumps(change))
        assert main(["calibrate", "--run", str(run), "--qrels", str(qrels), "-o", str(tmp_path / "x.toml")]) == 1
        assert words in " ".join(capsys.readouterr().err.split())
    assert main(["calibrate", "--run", str(run), "-o", str(tmp_path / "x.toml")]) == 1
    assert "--data with judged candidates, or --run and --qrels" in " ".join(capsys.readouterr().err.split())
