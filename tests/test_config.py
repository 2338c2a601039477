"""Where a setting comes from, which place wins, and what is said when it cannot be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from platformdirs.api import PlatformDirsABC
from platformdirs.macos import MacOS
from platformdirs.unix import Unix
from sqlalchemy import make_url

from rerankd.cli.main import main
from rerankd.config import DatabaseSettings, ModelSettings, ServerSettings, read_settings
from rerankd.errors import SettingsError
from rerankd.prices import Price, PriceFile
from rerankd.setting import settings_of
from rerankd.user_folders import cache_folder, data_folder


def in_file(folder: Path, text: str) -> Path:
    path = folder / "rerankd.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(options: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> str:
    """What is said when the settings are read, or checked at the start."""
    with pytest.raises(SettingsError) as raised:
        read_settings(ServerSettings, options, environment or {}).check_exposure()
    return str(raised.value)


# Which place wins.


def test_option_over_environment_over_file_over_default(tmp_path: Path) -> None:
    path = in_file(tmp_path, "max_queue = 1\nmax_documents = 1\nport = 1\nstrict = true\n")
    environment = {"RERANKD_MAX_QUEUE": "2", "RERANKD_MAX_DOCUMENTS": "2"}
    settings = read_settings(ServerSettings, {"config": path, "max_queue": 3}, environment)
    assert (settings.max_queue, settings.max_documents, settings.port, settings.max_body_mb) == (3, 2, 1, 64)
    assert settings.strict


def test_the_file_may_be_named_by_the_environment_and_an_option_names_another(tmp_path: Path) -> None:
    path = in_file(tmp_path, "port = 1")
    other = tmp_path / "other.toml"
    other.write_text("port = 2")
    environment = {"RERANKD_CONFIG": str(path)}
    assert read_settings(ServerSettings, {}, environment).port == 1
    assert read_settings(ServerSettings, {"config": str(other)}, environment).port == 2


def test_every_setting_of_a_file_is_read(tmp_path: Path) -> None:
    path = in_file(
        tmp_path,
        'model = "embedded"\nalias = ["a", "b"]\naccounts = true\nsign_up = "invite"\nredis = "redis://localhost/1"\n'
        'database = "sqlite:///x.db"\nrequests_per_minute = 60\ntokens_per_minute = 1_000_000\nconcurrency = 4\n'
        '[rates."qwen3-rerank"]\ninput_price = 0.02\n',
    )
    settings = read_settings(ServerSettings, {"config": path}, {})
    assert settings.model == ("embedded",) and settings.alias == ("a", "b")
    assert settings.accounts and settings.sign_up == "invite"
    assert (settings.redis, settings.database) == ("redis://localhost/1", "sqlite:///x.db")
    assert (settings.requests_per_minute, settings.tokens_per_minute, settings.concurrency) == (60, 1_000_000, 4)


def test_a_command_takes_from_the_file_what_is_its_own(tmp_path: Path) -> None:
    path = in_file(tmp_path, 'model = "embedded"\ndatabase = "sqlite:///x.db"\nport = 1\n')
    assert read_settings(ModelSettings, {"config": path}, {"RERANKD_PORT": "2"}).model == "embedded"
    assert read_settings(DatabaseSettings, {"config": path}, {}).database == "sqlite:///x.db"


def test_every_setting_is_an_option_and_its_help_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    for setting in settings_of(ServerSettings).values():
        assert f" {setting.option} " in shown


def test_a_command_line_with_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RERANKD_TOKENS_PER_MINUTE", "7")
    path = in_file(tmp_path, 'sign_up = "open"\naccounts = true\n')
    assert main(["config", "--json", "--config", str(path), "--sign-up", "invite"]) == 0
    shown = {name: one["value"] for name, one in json.loads(capsys.readouterr().out).items()}
    assert (shown["config"], shown["sign_up"], shown["accounts"], shown["tokens_per_minute"]) == (
        *(str(path), "invite", True, 7),
    )


def test_one_model_is_the_first_of_several_that_are_served(tmp_path: Path) -> None:
    path = in_file(tmp_path, 'model = ["embedded", "auto"]')
    assert read_settings(ModelSettings, {"config": path}, {}).model == "embedded"
    assert read_settings(ModelSettings, {}, {"RERANKD_MODEL": "auto, embedded"}).model == "auto"


def test_accounts_are_kept_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert ServerSettings().database == "sqlite:////data/rerankd/rerankd.db"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)
    assert DatabaseSettings().database == "sqlite:////home/x/.local/share/rerankd/rerankd.db"
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)  # with a space in it
    path = "/home/x/Library/Application Support/rerankd/rerankd.db"
    assert make_url(DatabaseSettings().database).database == path


@pytest.mark.parametrize("platform", [Unix, MacOS])
def test_folders_are_those_of_the_platform(platform: type[PlatformDirsABC], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(platformdirs, "PlatformDirs", platform)
    expected = platform("rerankd", appauthor=False)
    assert (data_folder(), cache_folder()) == (expected.user_data_path, expected.user_cache_path)


# What cannot be.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("port = \nhost = 1", "line 1"),
        ("max-queue = 1", "unknown setting max-queue"),
        ("max_que = 1", "unknown setting max_que. Did you mean max_queue?"),
        ("[server]\nport = 1", "unknown setting server"),
        ('config = "other.toml"', "unknown setting config"),
        ("port = 70000", "port ("),
        ('max_queue = "many"', "max_queue ("),
        ('sign_up = "everybody"', "sign_up ("),
        ("tokens_per_minute = 0", "tokens_per_minute ("),
        ("concurrency = 0.5", "concurrency ("),
        ('redis = "localhost:6379"', "redis ("),
        ("alias = [1]", "alias ("),
    ],
)
def test_a_mistake_in_the_file_is_named_with_the_file(text: str, told: str, tmp_path: Path) -> None:
    path = in_file(tmp_path, text)
    message = refusal({"config": path})
    assert told in message and str(path) in message


def test_a_mistake_is_named_where_it_was_made(tmp_path: Path) -> None:
    path = in_file(tmp_path, "max_queue = 0\n")
    assert "max_queue (--max-queue)" in refusal({"config": path, "max_queue": "x"})
    assert "max_queue (RERANKD_MAX_QUEUE)" in refusal({"config": path}, {"RERANKD_MAX_QUEUE": "x"})
    assert f"max_queue ({path})" in refusal({"config": path})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("drain_delay_s", "1.5", 1.5),
        ("accounts", "Yes", True),
        ("lift_instruct", "off", False),
        ("alias", "a, b", ("a", "b")),
        ("cors_origin", "https://a.example/,*", ("https://a.example", "*")),
        ("host", "[::1]", "::1"),
        ("root_path", "/rerank/", "/rerank"),
        ("uds", "/run/r.sock", Path("/run/r.sock")),
        ("dtype", "int8", "int8"),
    ],
)
def test_a_variable_becomes_a_value_of_its_type(name: str, text: str, value: object) -> None:
    settings = read_settings(ServerSettings, {}, {f"RERANKD_{name.upper()}": text})
    assert getattr(settings, name) == value


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("port", "70000", "must be from 0 to 65,535"),
        ("port", "1.5", "must be a whole number"),
        ("max_queue", "0", "must be at least 1"),
        ("drain_delay_s", "nan", "must be from 0 to 300"),
        ("accounts", "perhaps", "must be true or false"),
        ("dtype", "fp16", "must be one of auto, float32, bfloat16, int8"),
        ("device", "tpu", "must be one of auto, cpu, cuda, cuda:1, mps"),
        ("root_path", "rerank", "must be a path such as /rerank"),
        ("cors_origin", "a.example", "must be an origin: scheme, host and port only"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(name: str, text: str, problem: str) -> None:
    variable = f"RERANKD_{name.upper()}"
    assert f"{name} ({variable}): {problem}" in refusal({}, {variable: text})


def test_all_mistakes_are_named_at_once() -> None:
    message = refusal({}, {"RERANKD_PORT": "x", "RERANKD_MAX_QUEUE": "0"})
    assert "port (RERANKD_PORT)" in message and "max_queue (RERANKD_MAX_QUEUE)" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "no.toml") in refusal({"config": tmp_path / "no.toml"})
    assert str(tmp_path) in refusal({"config": tmp_path})  # a folder


def test_no_secret_is_told(tmp_path: Path) -> None:
    path = in_file(
        tmp_path, 'redis = "hunter2@localhost"\napi_key = "hunter2"\ndatabase = "postgresql://u:hunter2@h/d"'
    )
    assert "hunter2" not in refusal({"config": path})
    path = in_file(tmp_path, 'redis = "redis://:hunter2@localhost"\ndatabase = "postgresql://u:hunter2@h/d"\n')
    assert "hunter2" not in repr(read_settings(ServerSettings, {"config": path, "api_key": "hunter2"}, {}))


# Who may call.


def test_accounts_are_keys() -> None:
    read_settings(ServerSettings, {"host": "0.0.0.0", "accounts": True}, {}).check_exposure()
    message = refusal({"host": "0.0.0.0"})
    assert "--accounts" in message and "--api-key" in message and "--no-auth" in message


@pytest.mark.parametrize(
    ("options", "to_drop"), [({"api_key": "x"}, "RERANKD_API_KEY"), ({"no_auth": True}, "--no-auth")]
)
def test_accounts_exclude_other_ways_in(options: Mapping[str, Any], to_drop: str) -> None:
    message = refusal({"accounts": True, **options})
    assert "--accounts" in message and to_drop in message


def test_the_clients_variable_is_no_key_of_a_server_with_accounts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who copied an example has it set."""
    environment = {"RERANKD_API_KEY": "rk-secret"}
    settings = read_settings(ServerSettings, {"accounts": True}, environment)
    settings.check_exposure()
    assert settings.api_key is None and "RERANKD_API_KEY is ignored" in caplog.text and "secret" not in caplog.text
    for options in (
        {"accounts": True, "api_key": "x"},
        {"config": in_file(tmp_path, 'accounts = true\napi_key = "x"\n')},
    ):
        with pytest.raises(SettingsError, match="every caller has a key of its own"):
            read_settings(ServerSettings, options, {}).check_exposure()
    alone = read_settings(ServerSettings, {}, environment)
    assert alone.api_key is not None and alone.api_key.get_secret_value() == "rk-secret"


def test_signing_up_needs_accounts() -> None:
    assert "--accounts" in refusal({"sign_up": "open"})


def test_the_documented_file_is_one(tmp_path: Path) -> None:
    document = (Path(__file__).parent.parent / "docs" / "settings.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    path = in_file(tmp_path, block)
    read_settings(ServerSettings, {"config": path}, {}).check_exposure()
    [price] = PriceFile(path).current().prices
    named = set(re.findall(r"`(\w+)`", document.partition("| key |")[2].partition("\n\n")[0]))
    assert named == set(Price.model_fields) - {"model"}
    assert price.cost(1_000_000) == 20_000
