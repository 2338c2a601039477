"""`rerankd rerank --url`: an answered call is never made again, and a busy server is waited for."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rerankd.cli.main import main
from rerankd.runs.run import read_run
from support.fake_server import JSON, Answer, StandIn, ranking_of

QUERIES, DOCUMENTS, AT_ONCE = 40, 5, 4
KILLED_AT = 14
"""The request of a process at which it is killed: at most AT_ONCE of those before it are not in its journal."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with its queries and its corpus."""
    lines = [f"q{q} Q0 d{q + d} {d + 1} {-d} bm25\n" for q in range(QUERIES) for d in range(DOCUMENTS)]
    (tmp_path / "run.trec").write_text("".join(lines))
    (tmp_path / "queries.tsv").write_text("".join(f"q{q}\tquery {q}\n" for q in range(QUERIES)))
    (tmp_path / "corpus.tsv").write_text("".join(f"d{d}\ttext {d * 7}\n" for d in range(QUERIES + DOCUMENTS)))
    return tmp_path / "run.trec"


def command(run: Path, out: Path, url: str) -> list[str]:
    texts = ["--queries", str(run.with_name("queries.tsv")), "--corpus", str(run.with_name("corpus.tsv"))]
    return ["rerank", str(run), *texts, "-o", str(out), "--url", url]


def test_a_killed_job_asks_a_server_only_what_it_has_not_answered(run: Path, tmp_path: Path) -> None:
    out, journal = tmp_path / "killed.jsonl", tmp_path / "killed.jsonl.job" / "journal.jsonl"
    kill: Callable[[], None] | None = None
    before = kills = 0

    def answer(body: JSON) -> Answer:
        if kill is not None and len(server.requests) - before >= KILLED_AT:
            kill()
        return ranking_of(body) if body else Answer(hang_up=True)  # the process was killed while it sent

    with StandIn(answer=answer) as server:
        assert main(command(run, tmp_path / "whole.jsonl", server.url)) == 0
        assert len(server.requests) == QUERIES
        server.requests.clear()
        while not out.exists():
            known = {f"query {json.loads(line)['q'][1:]}" for line in whole_lines(journal)}
            before = len(server.requests)
            process = subprocess.Popen([sys.executable, "-m", "rerankd", *command(run, out, server.url)])
            kill = process.kill
            status = process.wait()
            kills += status == -signal.SIGKILL
            assert status in (0, -signal.SIGKILL)
            asked = [request.body["query"] for request in server.requests[before:] if request.body]
            assert not known & set(asked) and len(asked) == len(set(asked))
        assert kills >= 2 and len(server.requests) <= QUERIES + kills * AT_ONCE
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes() and not journal.exists()


def whole_lines(path: Path) -> Iterator[str]:
    if path.exists():
        yield from (line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n"))


def test_a_server_that_is_busy_is_waited_for(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    busy = [Answer(429, {"detail": "busy"}, {"retry-after": "0"})] * 30
    with StandIn(busy) as server:
        assert main(command(run, tmp_path / "out.trec", server.url)) == 0
        assert len(server.requests) == QUERIES + len(busy)
    assert len(read_run(tmp_path / "out.trec").ranked) == QUERIES
    assert "429: busy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(429, {"detail": "come back tomorrow"}, {"retry-after": "80000"}), "come back tomorrow"),
        (Answer(429, {"error": {"code": "insufficient_quota", "message": "no credit"}}), "no credit"),
        (Answer(503, {"detail": "down"}, {"retry-after": "0"}), "down"),
    ],
    ids=["a day", "no credit", "down"],
)
def test_another_failure_ends_the_job_which_continues_later(
    answer: Answer, words: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.trec"
    failing = [True]

    def answers(body: JSON) -> Answer:
        return answer if failing and len(server.requests) > QUERIES / 2 else ranking_of(body)

    with StandIn(answer=answers) as server:
        assert main(command(run, out, server.url)) == 1
        assert words in capsys.readouterr().err and not out.exists()
        answered = sum(1 for _ in whole_lines(tmp_path / "out.trec.job" / "journal.jsonl"))
        assert answered > 0
        failing.clear()
        server.requests.clear()
        assert main(command(run, out, server.url)) == 0
        assert len(server.requests) == QUERIES - answered and len(read_run(out).ranked) == QUERIES
