"""From options, environment and file to settings, and where each of them came from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rerankd.config.base import Settings
from rerankd.config.server import ServerSettings
from rerankd.environment import nearest, read_environment, variable_of
from rerankd.errors import SettingsError
from rerankd.setting import InvalidSettings, settings_of
from rerankd.settings_file import read_settings_file

logger = logging.getLogger(__name__)

CLIENT_KEY = "RERANKD_API_KEY"
"""Clients read it as their own key; a server without accounts reads it as the key that callers must send."""

Kind = TypeVar("Kind", bound="Settings")

SECRETS = ("api_key", "database", "oidc_client_secret", "redis", "smtp", "ssl_keyfile_password")
"""Settings that may hold a secret. `RERANKD_API_KEY_FILE` names a file with it: options show in the process list."""

SECTIONS = ("models", "rates")
"""Sections of the settings file that upstreams/settings.py and prices.py read."""


def read_settings(kind: type[Kind], options: Mapping[str, Any], environment: Mapping[str, str]) -> Kind:
    """Settings from the options that were given, the environment, and the file that either of them names.

    Raises:
        SettingsError: a value is malformed, the file cannot be read, or a `RERANKD_` variable or a name in the file
            is unknown.
    """
    return read_settings_and_sources(kind, options, environment)[0]


def read_settings_and_sources(
    kind: type[Kind], options: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Kind, dict[str, str]]:
    """As `read_settings`; and the option, variable or file that set each setting that is not the default."""
    variables, links = read_environment(environment, settings_of(ServerSettings), SECRETS)
    if links:
        logger.info("Ignored, since they are links to a service: %s", ", ".join(sorted(links)))
    path = options.get("config") or variables.get("config")
    in_file = _settings_in(Path(path)) if path else {}
    known = settings_of(kind)
    values = {name: value for name, value in {**in_file, **variables, **options}.items() if name in known}
    sources = {name: str(path) for name in in_file}
    sources |= {name: variable_of(name, environment) for name in variables}
    sources |= {name: known[name].option for name in options}
    sources = {name: sources[name] for name in values}
    try:
        return _without_client_key(kind(**values), sources)
    except InvalidSettings as error:
        problems = (f"{name} ({sources[name]}): {problem}" for name, problem in error.problems)
        raise SettingsError(f"Bad settings. {'; '.join(problems)}.") from None


def _without_client_key(settings: Kind, sources: dict[str, str]) -> tuple[Kind, dict[str, str]]:
    """With accounts, the client's variable sets no key of the server."""
    if not isinstance(settings, ServerSettings) or not settings.accounts or sources.get("api_key") != CLIENT_KEY:
        return settings, sources
    logger.warning("%s is ignored: with accounts it is a client's key, and every caller has a key", CLIENT_KEY)
    return replace(settings, api_key=None), {name: source for name, source in sources.items() if name != "api_key"}


def _settings_in(path: Path) -> dict[str, Any]:
    """The settings in a file, without the sections that are read again while the server runs."""
    values = read_settings_file(path)
    for name in SECTIONS:
        values.pop(name, None)
    known = settings_of(ServerSettings).keys() - {"config"}
    if unknown := [name for name in values if name not in known]:
        raise SettingsError(f"{path}: unknown setting {unknown[0]}. {nearest(unknown[0], (*known, *SECTIONS))}")
    return values
