"""`rerankd doctor --upstreams`: which upstreams give scores, and whether they are right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerankd.cli.main import main
from rerankd.selftest import PUBLISHED_0_6B
from support import upstream_server as failing
from support.upstream_server import UpstreamServer

KEY = "sk-upstream-secret-key"


def settings_file(folder: Path, *upstreams: tuple[str, UpstreamServer]) -> Path:
    lines = ['[models."qwen3-rerank"]']
    for name, server in upstreams:
        lines += ['[[models."qwen3-rerank".upstreams]]', f'name = "{name}"', f'url = "{server.url}"']
        lines += [f'dialect = "{server.dialect}"', 'model = "Qwen/Qwen3-Reranker-0.6B"', 'api_key = "env:UPSTREAM_KEY"']
    path = folder / "rerankd.toml"
    path.write_text("\n".join(lines))
    return path


def test_each_upstream_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    with UpstreamServer(key=KEY) as good, UpstreamServer("tei") as flat, UpstreamServer(key="another") as locked:
        flat.fault = failing.NO_TEMPLATE
        path = settings_file(tmp_path, ("gpu-1", good), ("tei", flat), ("hosted", locked))
        assert main(["doctor", "--upstreams", "--config", str(path)]) == 1
        shown = capsys.readouterr().out
        header, *rows = shown.splitlines()
        assert header.split() == ["model", "upstream", "check", "drift", "seconds", "verdict"]
        assert [row.split()[1:3] for row in rows] == [["gpu-1", "published"], ["tei", "wrong"], ["hosted", "failed"]]
        assert main(["doctor", "--upstreams", "--config", str(path), "--json"]) == 1
        told = capsys.readouterr()
        first, second, third = json.loads(told.out)
        assert first["logits"] == pytest.approx(PUBLISHED_0_6B) and first["drift"] < 1e-9
        assert second["drift"] > 3 and "template missing" in second["verdict"]
        assert third["logits"] == {} and third["drift"] is None and "401" in third["verdict"]
        assert KEY not in shown + told.out + told.err
        for server in (good, flat, locked):
            assert server.url not in shown + told.out


def test_good_upstreams_are_a_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with UpstreamServer() as server, UpstreamServer() as other:
        monkeypatch.setenv("RERANKD_UPSTREAM", f"{server.url},{other.url}")
        assert main(["doctor", "--upstreams"]) == 0
        assert capsys.readouterr().out.count("The published logits") == 2
        assert len(server.asked) == len(other.asked) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "There are no upstreams: set RERANKD_UPSTREAM, or"),
        (["--model", "embedded"], "--upstreams loads no model: leave --model out."),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
    ],
)
def test_without_upstreams_it_says_how_to_have_some(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--upstreams", *options]) == 1
    assert message in capsys.readouterr().err
