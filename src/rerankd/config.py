"""Every setting once: its name, type, default and help.

The option is the name with dashes (`--max-documents`), the environment variable the name in capitals after
`RERANKD_` (`RERANKD_MAX_DOCUMENTS`); in the TOML file that `--config` names, it is the name as it is here. An option
wins over the environment, the environment over the file, the file over the default. environment.py says which
variables are ours.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from rerankd.environment import read_environment, variable_of
from rerankd.errors import SettingsError
from rerankd.settings_file import read_settings_file

logger = logging.getLogger(__name__)

CLIENT_KEY = "RERANKD_API_KEY"
"""Read by clients, too, whose key it is; a server without accounts takes it as the one that it asks for."""

Kind = TypeVar("Kind", bound="Settings")

SECRETS = ("api_key", "database", "redis", "ssl_keyfile_password")
"""Settings that may hold a secret. `RERANKD_API_KEY_FILE` names a file with it: options show in the process list."""


class Settings(BaseModel):
    """What every command can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    config: Path | None = Field(
        None, description="a TOML file with any of these settings by name, and the price list (see docs/settings.md)"
    )


ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+")
"""As a browser sends it."""


def _default_database() -> str:
    """A file in the user's data folder; empty for a user without a home, who needs none until accounts are on."""
    try:
        folder = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError:  # no HOME, and no entry in the password file
        return ""
    return f"sqlite:///{Path(folder) / 'rerankd' / 'rerankd.db'}"


class DatabaseSettings(Settings):
    """Where the accounts are."""

    database: str = Field(
        default_factory=_default_database,
        repr=False,  # a URL may hold a password
        description="where accounts are kept: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME",
    )

    @property
    def has_default_database(self) -> bool:
        """Whether nobody said where: only that place is made ready."""
        return "database" not in self.model_fields_set

    def require_database(self) -> str:
        """The database's URL.

        Raises:
            SettingsError: none is set, and there is no home folder for the default one.
        """
        if not self.database:
            raise SettingsError(
                "There is no home folder to keep accounts in: pass --database sqlite:///FILE or postgresql://…"
            )
        return self.database


class ModelSettings(Settings):
    """Which model is run, and how."""

    model: str = Field(
        "auto",
        description="hub id, folder, 'embedded', or 'auto': Qwen/Qwen3-Reranker-0.6B, else the embedded model",
    )
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'")
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto",
        description="'auto': bfloat16 where the hardware multiplies it natively, else float32; "
        "'int8': faster on CPUs with VNNI, check it with 'rerankd doctor --compare bfloat16,int8'",
    )
    deterministic: bool = Field(
        False, description="the same bits for a pair whatever else is scored with it; slower (see docs/performance.md)"
    )
    offline: bool = Field(False, description="never ask the model hub: a folder, or what is in the cache, or nothing")


class ServerSettings(DatabaseSettings, ModelSettings):
    """What `rerankd serve` can be told."""

    fallback: bool = Field(
        True,
        description="under 'auto', let the embedded model answer until Qwen3-Reranker can be had; never where others "
        "can call: on a public address, with a key or with accounts",
    )
    host: str = Field("127.0.0.1", description="address to listen on; '::' is every IPv4 and IPv6 address")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    uds: Path | None = Field(None, description="listen on this socket file, in place of host and port")
    ssl_certfile: Path | None = Field(None, description="answer https with this certificate (PEM, with its chain)")
    ssl_keyfile: Path | None = Field(None, description="the certificate's key, where its own file does not hold it")
    ssl_keyfile_password: SecretStr | None = Field(None, description="of that key, where it is encrypted")
    ssl_ca_certs: Path | None = Field(
        None, description="answer only callers with a certificate that one of these authorities (PEM) has signed"
    )
    root_path: str = Field(
        "",
        pattern=r"^(/[\w.~-]+)*$",
        description="the path under which a proxy serves everything, '/rerank'; without it, X-Forwarded-Prefix tells",
    )
    timeout_keep_alive: int = Field(
        75, ge=1, description="seconds that an idle connection stays open; more than the pool of a proxy in front"
    )
    cors_origin: tuple[str, ...] = Field(
        (), description="a web page's origin (https://app.example) whose scripts may call; '*' for any; repeatable"
    )
    api_key: SecretStr | None = Field(None, description="the key that callers must send as a bearer token")
    no_auth: bool = Field(False, description="serve on a public address without a key")
    accounts: bool = Field(False, description="callers have accounts, with keys, limits, credit and a web page")
    sign_up: Literal["off", "invite", "open"] = Field(
        "off", description="who may make an account on the web page: nobody, the invited, everybody"
    )
    alias: tuple[str, ...] = Field((), description="another name that the model answers to; may be repeated")
    max_queue: int = Field(256, ge=1, description="requests that may wait; one more is answered 503")
    score_cache_mb: int = Field(64, ge=0, description="memory for scores computed before, in MB; 0 switches it off")
    requests_per_minute: int | None = Field(
        None, ge=1, description="calls that one caller (account, key, or address without keys) may make in a minute"
    )
    tokens_per_minute: int | None = Field(
        None, ge=1, description="billed tokens (query tokens × documents + tokens of all documents) likewise"
    )
    concurrency: int | None = Field(None, ge=1, description="calls that one caller may have running at a time")
    redis: str | None = Field(
        None,
        repr=False,  # a URL may hold a password
        pattern="^(rediss?|unix)://",
        description="redis://HOST:PORT/NUMBER: count the limits there, for several servers together",
    )
    strict: bool = Field(False, description="refuse fields that a surface does not have, in place of a warning")
    max_body_mb: int = Field(64, ge=1, description="largest request body, in MB, also when it is unpacked")
    max_held_mb: int = Field(
        512, ge=1, description="all bodies being read and replies not yet read, in MB; one more call is answered 503"
    )
    max_context: int = Field(
        8192, ge=100, le=32768, description="all but the DashScope surfaces: longest prompt in tokens, with template"
    )
    truncate_overlong: bool = Field(
        False,
        description="shared paths, vLLM and llama.cpp: cut a document that does not fit --max-context, with a warning, "
        "in place of refusing the call",
    )
    trust_priority: bool = Field(
        False, description="let callers overtake others with a negative 'priority'; without it they can only step back"
    )
    keyed_status: bool = Field(
        False, description="ask for a key on /metrics, /load, /v1/rates, /openapi.json and /docs too"
    )
    any_model: bool = Field(
        False,
        description="answer every model name, with a warning, in place of an error for those that are not served",
    )
    max_instruct_tokens: int = Field(
        1024, ge=16, description="tokens of an instruct on every surface; a longer one is refused"
    )
    max_documents: int = Field(500, ge=1, description="DashScope surfaces: documents a request")
    max_call_documents: int = Field(
        10_000,
        ge=1,
        le=100_000,
        description="all other surfaces: documents a request; where an API documents fewer, its own limit holds",
    )
    max_text_tokens: int = Field(
        4000, ge=1, description="DashScope surfaces: tokens of a query or document; longer ones are cut"
    )
    max_total_tokens: int = Field(
        120_000, ge=1, description="DashScope surfaces: query tokens × documents + tokens of all documents"
    )
    lift_instruct: bool = Field(
        True, description="vLLM surfaces: read 'Instruct: … Query: …' inside the query as its instruct"
    )
    infinity_prefix: str = Field(
        "/infinity",
        pattern=r"^(/[\w.~-]+)*$",
        description="also serve Infinity's paths under this prefix, as its --url-prefix; '' for none",
    )
    drain_delay_s: float = Field(
        0, ge=0, le=300, description="seconds after SIGTERM in which calls are still taken, while /health says 503"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="'info' has a line for each call, 'debug' one for each health check too"
    )
    skip_self_test: bool = Field(False, description="serve the model even if it fails its known-answer check")

    @field_validator("host", mode="after")
    @classmethod
    def _without_brackets(cls, value: str) -> str:
        return value.removeprefix("[").removesuffix("]")

    @field_validator("root_path", mode="before")
    @classmethod
    def _without_slash(cls, value: Any) -> Any:
        return value.rstrip("/") if isinstance(value, str) else value

    @field_validator("cors_origin", mode="after")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(one.rstrip("/") for one in value)
        if wrong := [one for one in origins if one != "*" and not ORIGIN.fullmatch(one)]:
            raise ValueError(f"{wrong[0]!r} is no origin: write scheme, host and port only, https://app.example")
        return origins

    @field_validator("alias", "cors_origin", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("api_key", mode="before")
    @classmethod
    def _strip(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value  # a key from a file ends in a line feed

    @property
    def needs_key(self) -> bool:
        """Whether callers without a key are refused."""
        return self.api_key is not None or self.accounts

    @property
    def may_fall_back(self) -> bool:
        """Whether the embedded model may answer where Qwen3-Reranker cannot be had.

        Not where other people's searches depend on it: they would find less, and only the log would say why.
        """
        keyed = self.api_key is not None or self.accounts
        return self.fallback and not keyed and (self.uds is not None or _is_loopback(self.host))

    def check_exposure(self) -> None:
        """Nobody in by accident.

        Raises:
            SettingsError: a public address without keys of any kind and without `no_auth`; an empty key; or settings
                that contradict each other about who may call.
        """
        if self.accounts and (self.api_key is not None or self.no_auth):
            other = "--api-key (RERANKD_API_KEY)" if self.api_key is not None else "--no-auth (RERANKD_NO_AUTH)"
            raise SettingsError(f"With --accounts every caller has a key of its own: drop {other}, or --accounts.")
        if self.sign_up != "off" and not self.accounts:
            raise SettingsError(f"--sign-up {self.sign_up} makes accounts: pass --accounts too, or drop it.")
        if self.api_key is not None and not self.api_key.get_secret_value():
            raise SettingsError("The API key is empty: set one, or leave --api-key out.")
        if (self.ssl_keyfile or self.ssl_ca_certs) and not self.ssl_certfile:
            raise SettingsError("TLS needs a certificate: pass --ssl-certfile too.")
        if not self.needs_key and not self.no_auth and self.uds is None and not _is_loopback(self.host):
            raise SettingsError(
                f"{self.host} can be reached from other machines, and no key is set. "
                "Pass --api-key (or RERANKD_API_KEY), --accounts to give each caller a key, or --no-auth to let "
                "everybody in."
            )


def read_settings(kind: type[Kind], options: Mapping[str, Any], environment: Mapping[str, str]) -> Kind:
    """Settings from options (those that were given), the environment, and the file that either of them names.

    Raises:
        SettingsError: a value is malformed, the file cannot be read, or a `RERANKD_` variable or a name in the file
            means nothing.
    """
    return read_settings_and_sources(kind, options, environment)[0]


def read_settings_and_sources(
    kind: type[Kind], options: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Kind, dict[str, str]]:
    """As `read_settings`; and where each setting that is not the default was set: option, variable or file."""
    variables, links = read_environment(environment, ServerSettings.model_fields, SECRETS)
    if links:
        logger.info("Ignored, since they are links to a service: %s", ", ".join(sorted(links)))
    path = options.get("config") or variables.get("config")
    in_file = _settings_in(Path(path)) if path else {}
    values = {name: value for name, value in {**in_file, **variables, **options}.items() if name in kind.model_fields}
    sources = {name: str(path) for name in in_file}
    sources |= {name: variable_of(name, environment) for name in variables}
    sources |= {name: f"--{name.replace('_', '-')}" for name in options}
    try:
        settings = kind.model_validate(values)
        if isinstance(settings, ServerSettings) and settings.accounts and sources.get("api_key") == CLIENT_KEY:
            logger.warning(
                "%s is ignored: it is a client's key here, since every caller has one of its own", CLIENT_KEY
            )
            return settings.model_copy(update={"api_key": None}), {
                name: sources[name] for name in values if name != "api_key"
            }
        return settings, {name: sources[name] for name in values}
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, e['loc']))} ({sources[str(e['loc'][0])]}): {e['msg']}"
            for e in error.errors(include_input=False)
        )
        raise SettingsError(f"Bad settings. {'; '.join(problems)}.") from None


def _settings_in(path: Path) -> dict[str, Any]:
    """What a settings file says, less its price list, which is read again while the server runs (prices.py)."""
    values = read_settings_file(path)
    values.pop("rates", None)
    known = ServerSettings.model_fields.keys() - {"config"}
    if unknown := [name for name in values if name not in known]:
        raise SettingsError(f"{path}: unknown setting {unknown[0]}. Known are: {', '.join(sorted(known))}, rates.")
    return values


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
