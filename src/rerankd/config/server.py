"""The settings of the server, and of the accounts' database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rerankd.config.base import ACCESS, ACCOUNTS, ADDRESS, LIMITS, MODEL, OPERATION, REQUESTS, TLS, Settings
from rerankd.config.models import CascadeSettings, ClusterSettings, EngineSettings, SeveralModels
from rerankd.config.oidc import OidcSettings
from rerankd.errors import SettingsError
from rerankd.loopback import is_loopback
from rerankd.setting import Secret, setting
from rerankd.types import MAX_PASSAGES, MIN_PASSAGE_TOKENS, CallLimits
from rerankd.user_folders import data_folder

PATH_PATTERN = r"(/[\w.~-]+)*"


def _default_database() -> str:
    """A file in the user's data folder; empty for a user without a home folder."""
    try:
        return f"sqlite:///{data_folder() / 'rerankd.db'}"
    except RuntimeError:
        return ""


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings(Settings):
    """Where the accounts are stored."""

    database: str = setting(
        _default_database,
        "where accounts are stored: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME",
        ACCOUNTS,
        secret=True,
        metavar="URL",
    )

    @property
    def has_default_database(self) -> bool:
        """Whether the database is the one in the user's data folder, whose folder may have to be made."""
        return self.database == _default_database()

    def require_database(self) -> str:
        """The database's URL.

        Raises:
            SettingsError: none is set, and there is no home folder for the default one.
        """
        if not self.database:
            raise SettingsError(
                "There is no home folder to store accounts in: pass --database sqlite:///FILE or postgresql://…"
            )
        return self.database


@dataclass(frozen=True, kw_only=True)
class ServerSettings(DatabaseSettings, OidcSettings, CascadeSettings, ClusterSettings, EngineSettings, SeveralModels):
    """The settings of `rerankd serve`."""

    then_required: bool = setting(
        False,
        "a failure of one of the two models is an error; without it the other one's ranking is the reply, with a "
        "warning",
        MODEL,
    )
    fallback: bool = setting(
        True,
        "with --model auto, answer with the embedded model until Qwen3-Reranker is available; never on a public "
        "address, with a key or with accounts",
        MODEL,
    )
    alias: tuple[str, ...] = setting(
        (), "another name that the model answers to; repeatable", MODEL, metavar="NAME", clean=str.strip
    )
    upstream: tuple[str, ...] = setting(
        (),
        "address of another rerank server: calls are passed on to it, and no model runs here; repeatable; "
        "tiers and keys for each: docs/upstreams.md",
        MODEL,
        metavar="URL",
        clean=str.strip,
    )
    upstream_key: str | None = setting(
        None,
        "the key of --upstream: env:NAME for a variable, file:PATH for a file",
        MODEL,
        secret=True,  # a key given by mistake is not shown
        metavar="SOURCE",
        pattern="(env|file):.+",
        expected="env:NAME or file:PATH: a key itself would show in the process list",
    )
    calibration: tuple[str, ...] = setting(
        (),
        "calibration profile of 'rerankd calibrate', FILE or NAME=FILE; calls ask for it by its name; repeatable",
        MODEL,
        metavar="FILE",
    )
    any_model: bool = setting(False, "accept every model name, with a warning, instead of refusing unknown ones", MODEL)
    host: str = setting(
        "127.0.0.1",
        "address to listen on; '::' is every IPv4 and IPv6 address",
        ADDRESS,
        metavar="HOST",
        clean=lambda host: host.removeprefix("[").removesuffix("]"),
    )
    port: int = setting(8000, "port to listen on; 0 takes a free one", ADDRESS, at_least=0, at_most=65535)
    uds: Path | None = setting(None, "listen on this Unix socket instead of host and port", ADDRESS, metavar="FILE")
    root_path: str = setting(
        "",
        "path under which a proxy serves everything, such as '/rerank'; without it, X-Forwarded-Prefix decides",
        ADDRESS,
        metavar="PATH",
        clean=lambda path: path.rstrip("/"),
        pattern=PATH_PATTERN,
        expected="a path such as /rerank",
    )
    timeout_keep_alive: int = setting(
        75, "seconds that an idle connection stays open; more than the pool of a proxy in front", ADDRESS, at_least=1
    )
    api_key: Secret | None = setting(
        None, "the key that callers must send as a bearer token", ACCESS, metavar="KEY", clean=str.strip
    )
    no_auth: bool = setting(False, "serve on a public address without a key", ACCESS)
    accounts: bool = setting(False, "give callers accounts, with keys, limits, credit and a web page", ACCESS)
    sign_up: Literal["off", "invite", "open"] = setting(
        "off", "who may create an account on the web page: nobody, invited people, or everybody", ACCOUNTS
    )
    smtp: str | None = setting(
        None,
        "server that sends mail for accounts: smtp://USER:PASSWORD@HOST:587 (STARTTLS) or smtps://HOST",
        ACCOUNTS,
        secret=True,
        metavar="URL",
        pattern="smtps?://.+",
        expected="a URL such as smtp://localhost:25 or smtps://USER:PASSWORD@mail.example",
    )
    mail_from: str | None = setting(None, "sender of these mails", ACCOUNTS, metavar="ADDRESS", clean=str.strip)
    public_url: str | None = setting(
        None,
        "address of this server for people, such as https://rerank.example; the links in mails begin with it",
        ACCOUNTS,
        metavar="URL",
        clean=lambda url: url.strip().rstrip("/"),
        pattern=r"https?://[^\s/?#@]+(/[\w.~-]+)*",
        expected="an address such as https://rerank.example",
    )
    warn_credit: float | None = setting(
        None,
        "with --smtp, mail the owner of an account once its credit falls below this, in the currency of the price list",
        ACCOUNTS,
        at_least=0,
    )
    call_log_days: int = setting(
        30,
        "days that calls stay in the list of calls of their account, with --accounts; 0 keeps no list",
        ACCOUNTS,
        at_least=0,
        at_most=3650,
    )
    cors_origin: tuple[str, ...] = setting(
        (),
        "origin of a web page whose scripts may call, such as https://app.example; '*' for any; repeatable",
        ACCESS,
        metavar="ORIGIN",
        clean=lambda origin: origin.strip().rstrip("/"),
        pattern=r"\*|[a-z][a-z0-9+.-]*://[^/\s?#@]+",
        expected="an origin: scheme, host and port only, as in https://app.example",
    )
    keyed_status: bool = setting(False, "require a key for /metrics, /load, /v1/rates, /openapi.json and /docs", ACCESS)
    trust_priority: bool = setting(
        False, "let callers overtake others with a negative 'priority'; without it they can only step back", ACCESS
    )
    max_queue: int = setting(256, "requests that may wait; the server answers 503 to more", LIMITS, at_least=1)
    requests_per_minute: int | None = setting(
        None, "calls per minute of one caller (an account, a key, or an address without keys)", LIMITS, at_least=1
    )
    tokens_per_minute: int | None = setting(
        None, "billed tokens per minute of one caller (see --max-total-tokens)", LIMITS, at_least=1
    )
    concurrency: int | None = setting(None, "calls that one caller may have running at a time", LIMITS, at_least=1)
    redis: str | None = setting(
        None,
        "redis://HOST:PORT/NUMBER: count the limits there, for several servers together",
        LIMITS,
        secret=True,
        metavar="URL",
        pattern="(rediss?|unix)://.*",
        expected="a URL such as redis://localhost:6379/0",
    )
    max_body_mb: int = setting(64, "largest request body in MB, also after it is unpacked", LIMITS, at_least=1)
    max_held_mb: int = setting(
        512, "MB of all bodies being read and replies not yet sent; more calls get 503", LIMITS, at_least=1
    )
    max_context: int = setting(
        8192,
        "longest prompt in tokens, template included; all APIs except DashScope's",
        LIMITS,
        at_least=100,
        at_most=32768,
    )
    max_instruct_tokens: int = setting(1024, "longest instruct in tokens; all APIs", LIMITS, at_least=16)
    max_documents: int = setting(500, "documents per request; DashScope's APIs", LIMITS, at_least=1)
    max_call_documents: int = setting(
        10_000,
        "documents per request; all other APIs, unless an API documents a lower limit",
        LIMITS,
        at_least=1,
        at_most=100_000,
    )
    max_text_tokens: int = setting(
        4000, "tokens of a query or document, truncated beyond; DashScope's APIs", LIMITS, at_least=1
    )
    max_total_tokens: int = setting(
        120_000, "query tokens × documents + tokens of all documents; DashScope's APIs", LIMITS, at_least=1
    )
    deadline_ms: int | None = setting(
        None,
        "milliseconds after which a call that names no deadline is answered with the documents that are scored",
        REQUESTS,
        at_least=1,
    )
    passage_tokens: int | None = setting(
        None,
        "tokens of a passage, where a call that has its documents split names none; without it, as many as fit",
        REQUESTS,
        at_least=MIN_PASSAGE_TOKENS,
    )
    passage_overlap: int | None = setting(
        None,
        "tokens that passages share, where such a call names none; without it, 64 where the tokens of a passage are "
        "named, else 0",
        REQUESTS,
        at_least=0,
    )
    max_passages: int = setting(MAX_PASSAGES, "passages of a document, at most", LIMITS, at_least=1, at_most=10_000)
    strict: bool = setting(False, "refuse unknown fields instead of warning about them", REQUESTS)
    truncate_overlong: bool = setting(
        False,
        "truncate documents that do not fit --max-context, with a warning, instead of refusing the call; shared "
        "paths, vLLM and llama.cpp",
        REQUESTS,
    )
    refuse_long_texts: bool = setting(
        False,
        "refuse a query or document over --max-text-tokens (400) instead of truncating it, as newer guides of "
        "DashScope say; DashScope's APIs",
        REQUESTS,
    )
    lift_instruct: bool = setting(True, "read 'Instruct: … Query: …' in a query as its instruct; vLLM's APIs", REQUESTS)
    infinity_prefix: str = setting(
        "/infinity",
        "prefix under which Infinity's paths are served too, as with its --url-prefix; '' for none",
        REQUESTS,
        metavar="PATH",
        pattern=PATH_PATTERN,
        expected="a path such as /infinity",
    )
    index: Path | None = setting(
        None,
        "answer /v1/search from the index that 'rerankd index PATH --index DIR' keeps, and show the page Search",
        REQUESTS,
        metavar="DIR",
    )
    embedder: str | None = setting(
        None,
        "where the embedder of that index is here: a hub id or a folder; without it, the one that the index names",
        REQUESTS,
        metavar="MODEL",
    )
    ssl_certfile: Path | None = setting(
        None, "serve HTTPS with this certificate (PEM, with its chain)", TLS, metavar="FILE"
    )
    ssl_keyfile: Path | None = setting(
        None, "the certificate's private key, unless the certificate file holds it", TLS, metavar="FILE"
    )
    ssl_keyfile_password: Secret | None = setting(None, "password of an encrypted key", TLS, metavar="PASSWORD")
    ssl_ca_certs: Path | None = setting(
        None, "accept only clients with a certificate signed by one of these authorities (PEM)", TLS, metavar="FILE"
    )
    score_cache_mb: int = setting(64, "memory for cached scores in MB; 0 turns the cache off", OPERATION, at_least=0)
    drain_delay_s: float = setting(
        0, "seconds after SIGTERM in which calls still enter, while /health is 503", OPERATION, at_least=0, at_most=300
    )
    drain_s: int = setting(
        120, "seconds that running calls have to finish once the port is closed", OPERATION, at_least=1, at_most=3600
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "'info' logs each call, 'debug' each health check too", OPERATION
    )
    log_format: Literal["text", "json"] = setting(
        "text", "'json' writes an object per line, for a log collector", OPERATION
    )

    @property
    def limits(self) -> CallLimits:
        """The limits of callers without limits of their own."""
        return CallLimits(self.requests_per_minute, self.tokens_per_minute, self.concurrency)

    @property
    def needs_key(self) -> bool:
        """Whether callers without a key are refused."""
        return self.api_key is not None or self.accounts

    @property
    def may_fall_back(self) -> bool:
        """Whether the embedded model may answer while Qwen3-Reranker is not available.

        Not where others can call: their results would get worse, and only the log would say why.
        """
        return self.fallback and not self.needs_key and (self.uds is not None or is_loopback(self.host))

    def check_exposure(self) -> None:
        """Refuses settings that would let in callers by accident.

        Raises:
            SettingsError: a public address without keys of any kind and without `no_auth`; an empty key; or settings
                that contradict each other about who may call.
        """
        if self.accounts and (self.api_key is not None or self.no_auth):
            key = "--api-key (RERANKD_API_KEY, RERANKD_API_KEY_FILE)"
            other = key if self.api_key is not None else "--no-auth (RERANKD_NO_AUTH)"
            raise SettingsError(f"With --accounts every caller has a key of its own: drop {other}, or --accounts.")
        if self.sign_up != "off" and not self.accounts:
            raise SettingsError(f"--sign-up {self.sign_up} makes accounts: pass --accounts too, or drop it.")
        self.check_oidc(self.accounts)
        if self.warn_credit is not None and self.smtp is None:
            raise SettingsError("--warn-credit sends mails: pass --smtp too.")
        if self.smtp is not None and not (self.accounts and self.mail_from and self.public_url):
            raise SettingsError(
                "--smtp sends the mails of accounts: pass --accounts, --mail-from and --public-url too."
            )
        if self.api_key is not None and not self.api_key.get_secret_value():
            raise SettingsError("The API key is empty: set one, or leave --api-key out.")
        if (self.ssl_keyfile or self.ssl_ca_certs) and not self.ssl_certfile:
            raise SettingsError("TLS needs a certificate: pass --ssl-certfile too.")
        if not self.needs_key and not self.no_auth and self.uds is None and not is_loopback(self.host):
            raise SettingsError(
                f"{self.host} can be reached from other machines, and no key is set. "
                "Pass --api-key (or RERANKD_API_KEY), --accounts to give each caller a key, or --no-auth to let "
                "everybody in."
            )
