"""The settings of signing in at a provider: which start the server, and what is not shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rerankd.app import provider_of
from rerankd.config import ServerSettings, read_settings
from rerankd.errors import MissingExtra, SettingsError
from rerankd.oidc.provider import Provider, is_private

SECRET = "the secret of the registration"
COMPLETE: dict[str, Any] = {
    "accounts": True,
    "oidc_issuer": "https://id.example/realms/main",
    "oidc_client_id": "rerankd",
    "oidc_client_secret": SECRET,
}


def test_complete_settings() -> None:
    settings = ServerSettings(**COMPLETE)
    settings.check_exposure()
    provider = provider_of(settings)
    assert provider and provider.issuer == "https://id.example/realms/main" and SECRET not in repr(settings)
    assert settings.provider_name == "id.example"
    assert ServerSettings(**COMPLETE, oidc_name="Example ID").provider_name == "Example ID"
    assert provider_of(ServerSettings(accounts=True)) is None and ServerSettings().provider_name == ""


@pytest.mark.parametrize("missing", ["accounts", "oidc_issuer", "oidc_client_id", "oidc_client_secret"])
def test_settings_that_are_incomplete(missing: str) -> None:
    values = {name: value for name, value in COMPLETE.items() if name != missing}
    with pytest.raises(SettingsError, match="--oidc-issuer"):
        ServerSettings(**values).check_exposure()


@pytest.mark.parametrize("alone", [{"oidc_sign_up": True}, {"oidc_domain": ("example.org",)}])
def test_settings_of_no_provider(alone: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="--oidc-issuer"):
        ServerSettings(accounts=True, **alone).check_exposure()


def test_the_secret_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    settings = read_settings(ServerSettings, {}, {"RERANKD_OIDC_CLIENT_SECRET_FILE": str(file)})
    assert settings.oidc_client_secret and settings.oidc_client_secret.get_secret_value() == SECRET


@pytest.mark.parametrize(
    "address",
    [
        "http://id.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://192.0.2.1",
        "ftp://127.0.0.1",
        "https://",
        "http://[",
        "//127.0.0.1",
        "",
    ],
    ids=range(9),
)
def test_what_could_be_read_on_the_way(address: str) -> None:
    assert not is_private(address)
    with pytest.raises(SettingsError, match="https"):
        Provider(address, "id", SECRET)


def test_this_machine_needs_no_https() -> None:
    for address in ("http://127.0.0.1:8080/realms/main", "http://localhost", "http://[::1]:1", "https://id.example"):
        assert is_private(address)


def test_without_the_package_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rerankd.oidc.id_token", raising=False)
    monkeypatch.setitem(sys.modules, "joserfc", None)
    with pytest.raises(MissingExtra, match=r"pip install 'rerankd\[oidc\]'"):
        Provider("https://id.example", "id", SECRET)


def test_without_a_provider_the_package_is_not_needed() -> None:
    code = "import sys, rerankd.app, rerankd.web.account_routes; print({'joserfc', 'authlib'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
