"""The base of every command's settings, and the headings of their groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rerankd.setting import read_all, setting

ADDRESS, MODEL, ACCESS, ACCOUNTS, PROVIDER, LIMITS, REQUESTS, TLS, OPERATION = GROUPS = (
    *("Address", "Model", "Access", "Accounts", "OpenID provider", "Limits", "Requests", "TLS", "Operation"),
)
"""The headings of help and documentation, in this order."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of every command. A new object converts and checks its values."""

    config: Path | None = setting(
        None,
        "TOML file with settings by name (max_queue for --max-queue) and the price list; each setting is also an "
        "environment variable (RERANKD_MAX_QUEUE)",
        OPERATION,
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        read_all(self)
