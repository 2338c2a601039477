"""Which kind of embedding model a folder has, and its prompts, from its JSON files. Reads no weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rerankd.engine.loading.checkpoint_files import CONFIG, MODULES, TOKENIZER, read_modules
from rerankd.engine.loading.checkpoint_json import read_json, read_object
from rerankd.engine.loading.kinds import architectures
from rerankd.engine.loading.weight_sums import weight_sums
from rerankd.errors import CheckpointInvalid
from rerankd.types import DEFAULT_INSTRUCT

SENTENCE_CONFIG = "config_sentence_transformers.json"
NETWORKS = {"Qwen3ForCausalLM", "Qwen3Model"}

TASK = "Instruct: {instruct}\nQuery:"
"""Before a query, by the README of Qwen3-Embedding."""

DECIDING = (CONFIG, MODULES, SENTENCE_CONFIG, "sentence_bert_config.json", TOKENIZER, f"*/{CONFIG}")
"""The files that the vectors depend on, beside the weights."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """What stands before a text.

    Attributes:
        default_query: before a query without an instruct.
    """

    default_query: str = TASK.format(instruct=DEFAULT_INSTRUCT)
    document: str = ""

    def query(self, instruct: str | None) -> str:
        """Before a query."""
        return self.default_query if not instruct else TASK.format(instruct=instruct)


def is_qwen3_embedding(name: str, folder: Path) -> bool:
    """Whether the folder has a Qwen3 network whose last token is the vector.

    Args:
        name: hub id, or the name of the folder; decides only where there is no modules.json.

    Raises:
        CheckpointInvalid: a JSON file is damaged, or the folder has no embedding model.
    """
    config = read_object(folder / CONFIG)
    named = set(architectures(config))
    modules = read_modules(folder)
    if modules is None:
        said = f"{name} {config.get('_name_or_path', '')}".lower()
        if named & NETWORKS and ("Qwen3Model" in named or "embedding" in said):
            return True
        raise CheckpointInvalid(
            f"{name} is a {', '.join(sorted(named)) or 'model of no kind'} without modules.json, not an embedding "
            "model: take Qwen/Qwen3-Embedding-0.6B, or an encoder that sentence-transformers made."
        )
    if not modules.kinds or modules.kinds[-1] not in ("Pooling", "Normalize", "Dense"):
        raise CheckpointInvalid(f"{name} is not an embedding model: it ends in {(modules.kinds or ['nothing'])[-1]}.")
    steps = modules.kinds[:-1] if modules.kinds[-1] == "Normalize" else modules.kinds
    is_plain = steps == ["Transformer", "Pooling"] and modules.paths[0] in ("", ".")
    return bool(named & NETWORKS) and is_plain and _takes_last_token(folder / modules.paths[1] / CONFIG)


def _takes_last_token(path: Path) -> bool:
    pooling = read_object(path)
    if (mode := pooling.get("pooling_mode")) is not None:
        return bool(mode == "lasttoken")
    return [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on] == [
        "pooling_mode_lasttoken"
    ]


def prompts_of(folder: Path) -> Prompts:
    """The checkpoint's own prompts, where it has them.

    Raises:
        CheckpointInvalid: the file is damaged.
    """
    path = folder / SENTENCE_CONFIG
    given = read_json(path) if path.is_file() else {}
    prompts = given.get("prompts", {}) if isinstance(given, dict) else {}
    if not isinstance(prompts, dict) or not all(isinstance(one, str) for one in prompts.values()):
        raise CheckpointInvalid(f"{path} is damaged: its prompts are not texts.")
    own = Prompts()
    return Prompts(prompts.get("query") or own.default_query, prompts.get("document") or own.document)


def digest_of(folder: Path) -> str:
    """16 hex digits that stand for everything that the vectors depend on: weights, tokenizer and configuration.

    Raises:
        OSError: a file cannot be read.
    """
    total = hashlib.sha256(repr(weight_sums(folder)).encode())
    for path in sorted(path for pattern in DECIDING for path in folder.glob(pattern)):
        total.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]
