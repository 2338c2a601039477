"""Settings from environment variables. Knows settings by name only.

Not every `RERANKD_` variable is a setting. Kubernetes sets some in every pod of a namespace with a Service whose name
begins with `rerankd` (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables), and
Docker's links do the same. Compose files set a variable to the empty string for "not set".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from rerankd.errors import SettingsError

PREFIX = "RERANKD_"

OF_THE_CLIENT = {"RERANKD_URL"}
"""Read by `rerankd.Client`, not by a command."""

OF_THE_ENGINE = {"RERANKD_KERNELS"}
"""For tests: see engine/qwen3/kernels/choice.py."""

SERVICE_LINK = re.compile(
    r"RERANKD(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
    r"|RERANKD(_[A-Z0-9_]+)?_ENV_\w+"  # of a Docker link, as are those below
)
LINK_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def read_environment(
    environment: Mapping[str, str], known: Collection[str], secrets: Collection[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Values by setting, and the variables that are ignored as service links. An empty variable is not set.

    Args:
        known: the settings' names.
        secrets: settings that may also be in a file, which `RERANKD_<NAME>_FILE` names.

    Raises:
        SettingsError: a variable is unknown, or a secret's file cannot be read.
    """
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX) and value.strip()}
    links = tuple(name for name, value in given.items() if _is_service_link(name, value))
    variables = {PREFIX + name.upper(): name for name in known}
    files = {f"{PREFIX}{name.upper()}_FILE": name for name in secrets}
    values: dict[str, str] = {}
    for variable, value in given.items():
        if variable in links or variable in OF_THE_CLIENT | OF_THE_ENGINE:
            continue
        if variable in variables:
            values[variables[variable]] = value
        elif variable in files:
            values[files[variable]] = _secret_in(variable, value, given)
        else:
            raise SettingsError(f"Unknown variable {variable}. {nearest(variable, (*variables, *files))}")
    return values, links


def variable_of(name: str, environment: Mapping[str, str]) -> str:
    """The variable that gave a setting its value."""
    variable = PREFIX + name.upper()
    return variable if environment.get(variable, "").strip() else f"{variable}_FILE"


def _is_service_link(name: str, value: str) -> bool:
    if SERVICE_LINK.fullmatch(name):
        return True
    return (name.endswith("_PORT") and bool(LINK_ADDRESS.match(value))) or (
        name.endswith("_NAME") and value.startswith("/")
    )


def _secret_in(variable: str, path: str, given: Mapping[str, str]) -> str:
    plain = variable.removesuffix("_FILE")
    if plain in given:
        raise SettingsError(f"Both {plain} and {variable} are set: leave one out.")
    try:
        secret = Path(path).read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise SettingsError(f"{variable}: {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{variable}: {path} is not text in UTF-8.") from None
    if not secret:
        raise SettingsError(f"{variable}: {path} is empty.")
    return secret


def nearest(name: str, known: Collection[str]) -> str:
    """A sentence that names the known name which was probably meant, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known are: {', '.join(sorted(known))}."
