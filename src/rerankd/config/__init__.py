"""Every setting once: its name, type, default, bounds and help.

The option is the name with dashes (`--max-documents`), the environment variable is the name in capitals after
`RERANKD_` (`RERANKD_MAX_DOCUMENTS`); in the TOML file that `--config` names, the name is as it is here. An option
overrides the variable, the variable overrides the file, the file overrides the default. environment.py decides which
variables are settings; setting.py converts and checks values.
"""

from __future__ import annotations

from rerankd.config.base import GROUPS, Settings
from rerankd.config.models import BatchSettings, ClusterSettings, ModelSettings, RankSettings, ScoringSettings
from rerankd.config.reading import CLIENT_KEY, SECRETS, read_settings, read_settings_and_sources
from rerankd.config.server import DatabaseSettings, ServerSettings

__all__ = [
    "CLIENT_KEY",
    "GROUPS",
    "SECRETS",
    "BatchSettings",
    "ClusterSettings",
    "DatabaseSettings",
    "ModelSettings",
    "RankSettings",
    "ScoringSettings",
    "ServerSettings",
    "Settings",
    "read_settings",
    "read_settings_and_sources",
]
