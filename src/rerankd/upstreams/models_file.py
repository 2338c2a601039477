"""The models with upstreams of a settings file, always up to date with the file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from rerankd.errors import SettingsError
from rerankd.settings_file import file_version
from rerankd.upstreams.settings import ModelSettings, read_models

logger = logging.getLogger(__name__)

AT_START = ("aliases", "tokenizer", "local")
"""Settings that are read only when the server starts."""


class ModelsFile:
    """Reads the file again when it changes. Used by one thread.

    Args:
        path: None for no models.

    Raises:
        SettingsError: the file cannot be read, or a value in it is invalid.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = path and file_version(path)
        self._models: Mapping[str, ModelSettings] = read_models(path)

    def current(self) -> Mapping[str, ModelSettings]:
        """The current models, by name. An invalid file leaves the last valid ones in force and is logged once."""
        if self._path is not None and (version := file_version(self._path)) != self._seen:
            self._seen = version
            self._reload(self._path)
        return self._models

    def _reload(self, path: Path) -> None:
        try:
            models = read_models(path)
            if gone := [name for name in self._models if name not in models]:
                raise SettingsError(f"{path}: models.{gone[0]} is served and cannot go while the server runs.")
        except SettingsError as error:
            logger.error("The upstreams stay as they were: %s", error)
            return
        if models != self._models:
            logger.info("The upstreams were read again from %s", path)
        for name, model in models.items():
            if name not in self._models or any(
                getattr(model, one) != getattr(self._models[name], one) for one in AT_START
            ):
                logger.warning("models.%s: a new model, aliases, tokenizer and local need a new start", name)
        self._models = models
