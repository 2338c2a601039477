"""The activation functions that a checkpoint may name. Runs none of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rerankd.engine.loading.checkpoint_files import read_modules
from rerankd.engine.loading.checkpoint_json import read_object
from rerankd.errors import CheckpointInvalid

KEYS = ("activation_fn", "activation_function", "sbert_ce_default_activation_function")
PLACES = ("torch.nn.", "torch.nn.modules.activation.", "torch.nn.modules.linear.")
KNOWN = set(
    "Identity Sigmoid Tanh ReLU ReLU6 LeakyReLU ELU CELU SELU GELU SiLU Mish Softplus Softsign LogSigmoid Hardtanh "
    "Hardsigmoid Hardswish Tanhshrink Softshrink Hardshrink".split()
)


def check_activations(folder: Path) -> None:
    """Allows activation functions of torch.nn only: sentence-transformers imports and calls any name in `torch.`.

    Raises:
        CheckpointInvalid: a checkpoint names another function, or a file is damaged.
    """
    for path in _configs(folder):
        for name in _named(read_object(path)):
            place, _, function = name.rpartition(".")
            if "." in name and not (f"{place}." in PLACES and function in KNOWN):
                raise CheckpointInvalid(
                    f"{path} asks for the activation function {name[:100]!r}. Only those of torch.nn are called, e.g. "
                    "torch.nn.Sigmoid or torch.nn.Identity."
                )


def _configs(folder: Path) -> Iterator[Path]:
    modules = read_modules(folder)
    for inside in ("", *(path for path, _ in (modules.folders() if modules else ()))):
        yield from sorted((folder / inside).glob("*config*.json"))


def _named(config: dict[str, Any]) -> Iterator[str]:
    own = config.get("sentence_transformers")
    for values in (config, own if isinstance(own, dict) else {}):
        yield from (values[key] for key in KEYS if isinstance(values.get(key), str))
