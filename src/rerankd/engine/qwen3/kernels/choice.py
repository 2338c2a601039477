"""Chooses the kernels: the best kind that processor, system and compiler permit, or none."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
from dataclasses import dataclass

import torch

from rerankd.engine.loading.devices import instruction_sets
from rerankd.engine.qwen3.kernels.kinds import KINDS, PLAIN, Kind
from rerankd.engine.qwen3.kernels.library import NoLibrary, open_library
from rerankd.errors import SettingsError

logger = logging.getLogger(__name__)

OVERRIDE = "RERANKD_KERNELS"
"""The environment variable that names the kind to use, for tests."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """A kind of kernels and its library."""

    kind: Kind
    library: ctypes.CDLL


def choose_kernels(dtype: torch.dtype) -> Kernels | None:
    """The best kernels for a dtype, that of everything but int8 weights. Logs one line: which, or why none.

    Raises:
        SettingsError: RERANKD_KERNELS names no kind.
    """
    reasons = []
    for kind in _candidates(dtype):
        try:
            kernels = Kernels(kind, open_library(kind))
        except NoLibrary as error:
            reasons.append(f"{kind.name}: {error}")
            continue
        logger.info("Kernels: %s%s.", kind.name, "".join(f" (not {reason})" for reason in reasons))
        return kernels
    if reasons:
        logger.warning("No kernels: %s. The plain operations run, slower.", "; ".join(reasons))
    else:
        logger.info("No kernels for %s on this processor. The plain operations run.", dtype)
    return None


def _candidates(dtype: torch.dtype) -> list[Kind]:
    """Best first: of this dtype, and with instructions that this processor has."""
    name, sets = os.environ.get(OVERRIDE), set(instruction_sets())
    if name and name not in (names := [*(kind.name for kind in KINDS), PLAIN]):
        raise SettingsError(f"{OVERRIDE}={name!r} is none of {', '.join(names)}.")
    if platform.system() != "Linux":
        return []
    return [
        kind
        for kind in KINDS
        if kind.dtype == dtype and kind.instruction_sets <= sets and name in (None, "", kind.name)
    ]
