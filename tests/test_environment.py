"""Environment variables that are ours, and those that only look like it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankd.config import DatabaseSettings, ServerSettings, read_settings
from rerankd.errors import SettingsError
from rerankd.setting import settings_of

SERVICES = ("RERANKD", "RERANKD_WEB", "RERANKD_2", "RERANKD_MAX_QUEUE", "RERANKD_API")
"""Kubernetes makes such names of Services named rerankd, rerankd-web, …"""


def links_of(service: str, port: int = 8000, name: str = "HTTP") -> dict[str, str]:
    """What Kubernetes sets for one Service."""
    address = f"tcp://10.0.12.7:{port}"
    return {
        f"{service}_SERVICE_HOST": "10.0.12.7",
        f"{service}_SERVICE_PORT": str(port),
        f"{service}_SERVICE_PORT_{name}": str(port),
        f"{service}_PORT": address,
        f"{service}_PORT_{port}_TCP": address,
        f"{service}_PORT_{port}_TCP_PROTO": "tcp",
        f"{service}_PORT_{port}_TCP_PORT": str(port),
        f"{service}_PORT_{port}_TCP_ADDR": "10.0.12.7",
    }


@pytest.mark.parametrize("service", SERVICES)
def test_service_links_are_no_settings(service: str) -> None:
    assert read_settings(ServerSettings, {}, links_of(service)) == read_settings(ServerSettings, {}, {})
    assert read_settings(ServerSettings, {"port": 81}, links_of(service)).port == 81


@given(
    st.sampled_from(SERVICES),
    st.integers(1, 65535),
    st.from_regex(r"[A-Z][A-Z0-9_]{0,12}", fullmatch=True),
)
def test_service_links_of_any_port_and_name(service: str, port: int, name: str) -> None:
    read_settings(ServerSettings, {}, links_of(service, port, name) | {"RERANKD_MAX_QUEUE": "7"})


def test_dockers_links_are_no_settings() -> None:
    link = {
        "RERANKD_NAME": "/web/rerankd",
        "RERANKD_ENV_LANG": "C.UTF-8",
        "RERANKD_PORT_8000_UDP": "udp://172.17.0.2:8000",
    }
    read_settings(ServerSettings, {}, link)


def test_links_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "rerankd"):
        read_settings(ServerSettings, {}, links_of("RERANKD"))
    [record] = caplog.records
    assert "RERANKD_SERVICE_HOST" in record.getMessage() and "10.0.12.7" not in record.getMessage()


def test_an_own_port_is_still_checked() -> None:
    with pytest.raises(SettingsError, match=r"port \(RERANKD_PORT\)"):
        read_settings(ServerSettings, {}, {"RERANKD_PORT": "http"})


@pytest.mark.parametrize("name", settings_of(ServerSettings))
@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_an_empty_variable_is_not_set(name: str, blank: str) -> None:
    settings = read_settings(ServerSettings, {}, {f"RERANKD_{name.upper()}": blank})
    assert settings == read_settings(ServerSettings, {}, {})


def test_an_empty_key_leaves_a_public_address_refused() -> None:
    settings = read_settings(ServerSettings, {"host": "0.0.0.0"}, {"RERANKD_API_KEY": ""})
    with pytest.raises(SettingsError, match="no key is set"):
        settings.check_exposure()


def test_an_empty_variable_does_not_hide_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text("port = 81")
    assert read_settings(ServerSettings, {"config": path}, {"RERANKD_PORT": ""}).port == 81


def test_a_misspelt_variable_is_refused_with_what_was_meant() -> None:
    with pytest.raises(SettingsError, match="Did you mean RERANKD_MAX_QUEUE"):
        read_settings(ServerSettings, {}, {"RERANKD_MAX_QUEU": "1"})


# Secrets in files.


@pytest.mark.parametrize("text", ["hunter2", "hunter2\n", "﻿hunter2\r\n"])
def test_a_secret_is_read_from_a_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(text.encode())
    settings = read_settings(ServerSettings, {}, {"RERANKD_API_KEY_FILE": str(path)})
    assert settings.api_key and settings.api_key.get_secret_value() == "hunter2"


def test_every_secret_has_a_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("redis://:hunter2@localhost/1")
    environment = {"RERANKD_REDIS_FILE": str(path), "RERANKD_DATABASE_FILE": str(path)}
    settings = read_settings(ServerSettings, {}, environment)
    assert settings.redis == settings.database == "redis://:hunter2@localhost/1"


@pytest.mark.parametrize("problem", ["missing", "empty", "binary", "both"])
def test_a_secrets_file_that_cannot_be_used_is_named(problem: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    if problem != "missing":
        path.write_bytes({"empty": b"\n", "binary": b"\xff\xfe\x00", "both": b"hunter2"}[problem])
    environment = {"RERANKD_API_KEY_FILE": str(path)} | ({"RERANKD_API_KEY": "x"} if problem == "both" else {})
    with pytest.raises(SettingsError, match="RERANKD_API_KEY_FILE") as raised:
        read_settings(ServerSettings, {}, environment)
    assert "hunter2" not in str(raised.value)


def test_a_wrong_secret_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("localhost:6379")
    with pytest.raises(SettingsError, match="RERANKD_REDIS_FILE"):
        read_settings(ServerSettings, {}, {"RERANKD_REDIS_FILE": str(path)})


# Files that Windows saves.


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_byte_order_mark_is_passed_over(line_end: str, tmp_path: Path) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_bytes(b"\xef\xbb\xbf" + f"port = 81{line_end}strict = true{line_end}".encode())
    assert read_settings(ServerSettings, {"config": path}, {}).port == 81


def test_utf_16_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_bytes("port = 81".encode("utf-16"))
    with pytest.raises(SettingsError, match="UTF-16: save it as UTF-8"):
        read_settings(ServerSettings, {"config": path}, {})


# No home.


def without_home(command: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as a user without HOME and without an entry in the password file."""
    homeless = "import os, pwd; pwd.getpwuid = lambda uid: (_ for _ in ()).throw(KeyError(uid)); "
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_DATA_HOME")}
    return subprocess.run(
        [sys.executable, "-c", homeless + command], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("arguments", [["serve", "--help"], ["keys", "create", "--help"], ["--version"]])
def test_help_needs_no_home(arguments: list[str]) -> None:
    ended = without_home(f"from rerankd.cli.main import main; main({arguments})")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_accounts_without_a_home_ask_for_a_database() -> None:
    ended = without_home("from rerankd.cli.main import main; raise SystemExit(main(['usage']))")
    assert ended.returncode == 1
    assert "--database" in ended.stderr and "Traceback" not in ended.stderr


def test_settings_need_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(user: int) -> NoReturn:
        raise KeyError(user)

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr("pwd.getpwuid", no_home)
    assert ServerSettings().database == ""
    with pytest.raises(SettingsError, match="--database"):
        DatabaseSettings().require_database()


def refused(environment: Mapping[str, str]) -> str:
    with pytest.raises(SettingsError) as raised:
        read_settings(ServerSettings, {}, environment)
    return str(raised.value)


def test_a_misspelt_variable_does_not_tell_its_value() -> None:
    assert "hunter2" not in refused({"RERANKD_APIKEY": "hunter2"})
