"""The upstreams of a settings file: `[models."<name>"]` and `[[models."<name>".upstreams]]`. Asks no server."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from rerankd.apis.facts import DialectName
from rerankd.client.dialects import endpoint
from rerankd.errors import SettingsError
from rerankd.settings_file import read_settings_file
from rerankd.upstreams.secrets import KeySource

Name = Annotated[str, Field(pattern=r"^[\w./:@+-]+$", max_length=100)]
"""Shown in headers and metrics."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _key(text: str) -> str:
    try:
        KeySource(text)
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return text


class UpstreamSettings(BaseModel):
    """One upstream, as the settings file has it.

    Attributes:
        name: unique in its model.
        url, dialect, model, max_documents: see `rerankd.Client`.
        api_key: `env:NAME`, `file:PATH`, or the key.
        tier: the lowest tier that can answer is asked.
        weight: the share within its tier.
        concurrency: requests at a time, of all calls.
        timeout_s: of one attempt, to its last byte.
        health: a path that answers 200; empty: there is none; None: as servers of the dialect have it.
        cost: of a million tokens; cost_per_search: of a search unit. For the metric only.
        discover: `dns`: each address of the host's name is an upstream.
        skip_self_test: it need not pass the known-answer check.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: Name
    url: str
    dialect: DialectName = "auto"
    model: str | None = None
    api_key: Annotated[str, AfterValidator(_key)] | None = Field(None, repr=False)
    tier: Annotated[int, Field(ge=0)] = 0
    weight: Positive = 1.0
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 32
    timeout_s: Positive = 30.0
    health: str | None = None
    cost: Annotated[float, Field(ge=0)] = 0.0
    cost_per_search: Annotated[float, Field(ge=0)] = 0.0
    discover: Literal["dns"] | None = None
    skip_self_test: bool = False
    max_documents: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> UpstreamSettings:
        try:
            _, url = endpoint(self.url, self.dialect)
        except SettingsError as error:
            raise ValueError(f"url: {error}") from None
        if url.userinfo:
            raise ValueError("url: has a user or a password: set api_key instead")
        if self.discover == "dns" and url.scheme != "http":
            raise ValueError("discover: an address has no certificate of its own: use http://, or name each server")
        if self.health and not self.health.startswith("/"):
            raise ValueError("health: must begin with /")
        return self


class ModelSettings(BaseModel):
    """A model that other servers score.

    Attributes:
        aliases: further names of it.
        tokenizer: a folder or a name on the hub, for exact counts; None: the tokens are estimated.
        deadline_s: of a whole call, retries included.
        local: the tier of this process's engine: before or after all others; None: it is none of them.
        estimate: accounts may be charged by estimated tokens.
        same_model: another model than the first upstream's never answers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    aliases: tuple[Name, ...] = ()
    tokenizer: str | None = None
    deadline_s: Positive = 60.0
    local: Literal["first", "last"] | None = None
    estimate: bool = False
    same_model: bool = False
    upstreams: Annotated[tuple[UpstreamSettings, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> ModelSettings:
        names = [one.name for one in self.upstreams] + (["local"] if self.local else [])
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"upstreams: two are called {twice[0]}")
        return self


def read_models(path: Path | None) -> dict[str, ModelSettings]:
    """The models with upstreams of a settings file, by name; none without a file.

    Raises:
        SettingsError: the file cannot be read, or a value in it is invalid; names the file and the key.
    """
    if path is None:
        return {}
    table = read_settings_file(path).get("models", {})
    try:
        models = _models(table)
        _refuse_open_file(path, models)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return models


def short_form(urls: Sequence[str], api_key: str | None, timeout_s: float = 30.0) -> ModelSettings:
    """One model over the servers at these addresses, all in one tier.

    Raises:
        SettingsError: an address or the key is invalid.
    """
    upstreams = [{"name": _name_of(url), "url": url, "api_key": api_key, "timeout_s": timeout_s} for url in urls]
    names = [one["name"] for one in upstreams]
    for place, one in enumerate(upstreams):
        if names.count(one["name"]) > 1:
            one["name"] = f"{one['name']}-{place + 1}"
    try:
        return ModelSettings.model_validate({"upstreams": upstreams})
    except ValidationError as error:
        raise SettingsError(f"--upstream: {_problems('', error)}") from None


def _name_of(url: str) -> str:
    """Host and port."""
    return re.sub(r"[^\w.:-]+", "-", re.sub(r"^\w+:(//)?", "", url).partition("/")[0].rpartition("@")[2]) or "upstream"


def _models(table: Any) -> dict[str, ModelSettings]:
    if not isinstance(table, Mapping):
        raise SettingsError('models: must be sections, [models."<model name>"].')
    return {name: _model(name, fields) for name, fields in table.items()}


def _model(name: str, fields: Any) -> ModelSettings:
    if not isinstance(fields, Mapping):
        raise SettingsError(f'models.{name}: must be a section, [models."{name}"].')
    try:
        return ModelSettings.model_validate(fields)
    except ValidationError as error:
        raise SettingsError(_problems(f"models.{name}", error)) from None


def _problems(section: str, error: ValidationError) -> str:
    """Every problem with its key; no value, since one may be a key."""
    found: list[str] = []
    for problem in error.errors(include_input=False, include_url=False):
        if problem["type"] == "too_short" and found:
            continue  # pydantic leaves out the upstreams that have a problem, and then misses them
        key = ".".join([section, *map(str, problem["loc"])]).strip(".")
        message = problem["msg"].removeprefix("Value error, ")
        kind = UpstreamSettings if "upstreams" in problem["loc"] else ModelSettings
        if problem["type"] == "extra_forbidden":
            message = f"unknown; known are {', '.join(sorted(kind.model_fields))}"
        found.append(f"{key}: {message}".removesuffix("."))
    return f"{'; '.join(found)}."


def _refuse_open_file(path: Path, models: Mapping[str, ModelSettings]) -> None:
    """A key in a file that others can read is not a secret."""
    for name, model in models.items():
        for one in model.upstreams:
            if one.api_key and KeySource(one.api_key).is_bare and os.stat(path).st_mode & 0o077:
                raise SettingsError(
                    f"models.{name}.upstreams.{one.name}.api_key: is a key in a file that other users can read: "
                    "write env:NAME or file:PATH, or chmod 600 the file."
                )
