"""The settings of signing in at an OpenID provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from rerankd.config.base import PROVIDER, Settings
from rerankd.errors import SettingsError
from rerankd.setting import Secret, setting

TrustEmail = Literal["no", "verified", "all"]


@dataclass(frozen=True, kw_only=True)
class OidcSettings(Settings):
    """Where people of accounts sign in, beside the password."""

    oidc_issuer: str | None = setting(
        None,
        "with --accounts, let people sign in at this OpenID provider (docs/oidc.md)",
        PROVIDER,
        metavar="URL",
        clean=str.strip,
        pattern=r"https?://[^\s?#@]+",
        expected="an address such as https://id.example/realms/main",
    )
    oidc_client_id: str | None = setting(
        None, "the name under which this server is registered there", PROVIDER, metavar="ID", clean=str.strip
    )
    oidc_client_secret: Secret | None = setting(
        None, "the secret of that registration", PROVIDER, metavar="SECRET", clean=str.strip
    )
    oidc_name: str | None = setting(
        None, "what the pages call the provider; without it, its host", PROVIDER, metavar="NAME", clean=str.strip
    )
    oidc_domain: tuple[str, ...] = setting(
        (),
        "let in only people whose verified e-mail address there has this domain; repeatable",
        PROVIDER,
        metavar="DOMAIN",
        clean=lambda domain: domain.strip().lower().removeprefix("@"),
        pattern=r"[^\s@,]+",
        expected="a domain such as example.org",
    )
    oidc_sign_up: bool = setting(False, "give people of the provider an account at their first sign-in", PROVIDER)
    oidc_trust_email: TrustEmail = setting(
        "no",
        "which e-mail addresses of the provider open the account that has them: none without its password, those that "
        "the provider has verified, or all, also for --oidc-domain and --oidc-sign-up",
        PROVIDER,
    )

    @property
    def provider_name(self) -> str:
        """What the pages call the provider; empty without one."""
        return self.oidc_name or urlsplit(self.oidc_issuer or "").netloc

    def check_oidc(self, accounts: bool) -> None:
        """Raises SettingsError for settings that are incomplete."""
        others = self.oidc_client_id or self.oidc_client_secret or self.oidc_domain or self.oidc_sign_up
        if self.oidc_issuer is None:
            if others:
                raise SettingsError("The settings --oidc-… need --oidc-issuer.")
            return
        secret = self.oidc_client_secret.get_secret_value() if self.oidc_client_secret else ""
        if not (accounts and self.oidc_client_id and secret):
            raise SettingsError(
                "--oidc-issuer lets people sign in to accounts: pass --accounts, --oidc-client-id and "
                "--oidc-client-secret (or RERANKD_OIDC_CLIENT_SECRET_FILE) too."
            )
