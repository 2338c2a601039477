"""`rerankd config`: the settings in force, where each came from, and no secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerankd.cli.main import main
from rerankd.config import ServerSettings
from rerankd.setting import settings_of

SECRET = "hunter2"


def test_each_setting_is_shown_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text('max_queue = 7\nalias = ["a", "b"]\nport = 81\n')
    monkeypatch.setenv("RERANKD_PORT", "82")
    monkeypatch.setenv("RERANKD_STRICT", "")
    assert main(["config", "--config", str(path), "--host", "::1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == set(settings_of(ServerSettings))
    assert shown["max_queue"] == {"value": 7, "source": str(path)}
    assert shown["alias"] == {"value": ["a", "b"], "source": str(path)}
    assert shown["port"] == {"value": 82, "source": "RERANKD_PORT"}
    assert shown["host"] == {"value": "::1", "source": "--host"}
    assert shown["strict"] == {"value": False, "source": "default"}
    assert list(shown)[:2] == ["host", "port"], "in the order of --help"


def test_no_secret_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text(SECRET)
    monkeypatch.setenv("RERANKD_API_KEY_FILE", str(key))
    monkeypatch.setenv("RERANKD_REDIS", f"redis://:{SECRET}@localhost:6379/1")
    database = f"postgresql://ada:{SECRET}@localhost/rerankd"
    for form in ([], ["--json"]):
        assert main(["config", "--database", database, *form]) == 0
        out = capsys.readouterr().out
        assert SECRET not in out and "RERANKD_API_KEY_FILE" in out
        assert "redis://:***@localhost:6379/1" in out and "postgresql://ada:***@localhost/rerankd" in out


def test_settings_that_would_stop_the_start_do_so_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--host", "0.0.0.0"]) == 1
    assert "no key is set" in capsys.readouterr().err
    assert main(["config", "--config", "/nowhere.toml"]) == 1
    assert "/nowhere.toml" in capsys.readouterr().err
