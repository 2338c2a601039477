"""`rerankd models`: what a running server answers for."""

from __future__ import annotations

import json

import pytest

from rerankd.cli.main import main
from support.fake_server import Answer, StandIn
from support.server import Server


def test_every_name_is_listed_with_its_model(embedded_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--url", embedded_server.url, "--api-key", embedded_server.key]
    assert main(["models", *at]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "model", "context", "price", "of", "1M", "tokens", "warning"]
    named = {row.split()[0]: row.split()[1:] for row in rows}
    assert {"embedded-multilingual", "qwen3-rerank"} <= set(named)
    assert all(rest[:2] == ["embedded-multilingual", "8192"] for rest in named.values())
    assert main(["models", *at, "--json"]) == 0
    assert {card["id"] for card in json.loads(capsys.readouterr().out)} == set(named)


def test_its_own_server_is_asked_where_no_other_is_named(
    embedded_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RERANKD_PORT", embedded_server.url.rpartition(":")[2])
    monkeypatch.setenv("RERANKD_API_KEY", embedded_server.key)
    assert main(["models"]) == 0
    assert "qwen3-rerank" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(401, {}), "answered 401: pass --api-key, or set RERANKD_API_KEY"),
        (Answer(503, {}), "answered 503 to /v1/models; rerankd health"),
        (Answer(200, {"models": []}), "did not answer with a list of models"),
        (Answer(200, {"data": [{"id": 1}, {}]}), "did not answer with a list of models"),
    ],
)
def test_a_server_that_lists_nothing_is_one_line(
    answer: Answer, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with StandIn([answer]) as server:
        assert main(["models", "--url", server.url]) == 1
    assert message in capsys.readouterr().err
