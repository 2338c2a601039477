"""Reads safetensors into a Qwen3Reranker, in no more memory than the weights need. Refuses missing or extra tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rerankd.engine.loading.checkpoint_files import local_weight_files
from rerankd.engine.loading.kinds import SERVED
from rerankd.engine.qwen3.model import Qwen3Config, Qwen3Reranker
from rerankd.errors import CheckpointInvalid

Progress = Callable[[int, int], None]
"""Called with (bytes read, total bytes) while the weights load."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What reading the weights needs: the folder with `*.safetensors`, its config, and the ids of `yes` and `no`."""

    folder: Path
    config: Qwen3Config
    yes_id: int
    no_id: int


def read_config(folder: Path) -> Qwen3Config:
    """Parses the folder's `config.json`.

    Raises:
        CheckpointInvalid: see `Qwen3Config.from_json`.
    """
    return Qwen3Config.from_json(json.loads((folder / "config.json").read_text()))


def load_reranker(
    checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, progress: Progress
) -> Qwen3Reranker:
    """Reads an original checkpoint (`Qwen3ForCausalLM`) or a converted one (`Qwen3ForSequenceClassification`).

    Raises:
        CheckpointInvalid: a tensor is missing, left over or of the wrong shape, or a file is damaged.
    """
    files = _tensor_files(checkpoint.folder)
    head = _read_head(files, checkpoint).to(device)
    with torch.device("meta"):
        model = Qwen3Reranker(checkpoint.config, head_rows=head.shape[0])
    state = {"head": head}
    for name, tensor in _read_body(files, dtype, device, progress):
        state[name] = tensor
    _check_names(set(state), set(model.state_dict()))
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:  # a shape that differs from config.json
        raise CheckpointInvalid(f"The weights in {checkpoint.folder} do not fit config.json: {error}") from error
    return model.eval().requires_grad_(False)


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name → file."""
    files: dict[str, Path] = {}
    for path in (one for one in local_weight_files(folder) if one.is_file()):
        try:
            with safe_open(path, "pt") as shard:
                names = list(shard.keys())
        except (SafetensorError, OSError) as error:
            raise CheckpointInvalid(f"{path} is damaged or incomplete: {error}") from error
        if twice := [name for name in names if name in files]:
            raise CheckpointInvalid(f"{path} holds tensors that {files[twice[0]]} holds too: {twice[:3]}.")
        files.update(dict.fromkeys(names, path))
    if "embed_tokens.weight" in files:  # Qwen3-Embedding's names lack the prefix `model.`
        raise CheckpointInvalid(f"{folder} holds an embedding model (Qwen3-Embedding), not a reranker. {SERVED}")
    index = folder / "model.safetensors.index.json"
    if index.exists():
        promised = set(json.loads(index.read_text())["weight_map"])
        if missing := sorted(promised - set(files)):
            raise CheckpointInvalid(f"{folder} lacks shards: {len(missing)} tensors of {index.name} are not there.")
    return files


def _read_head(files: dict[str, Path], checkpoint: Checkpoint) -> Tensor:
    """The rows of the head for `no` and `yes`, (2, hidden_size), or a classifier, (1, hidden_size). float32."""
    if "score.weight" in files:
        with safe_open(files["score.weight"], "pt") as shard:
            head: Tensor = shard.get_tensor("score.weight").float()
        if head.shape[0] != 1:
            raise CheckpointInvalid(f"The classifier has {head.shape[0]} labels; a reranker has one.")
        return head
    config = checkpoint.config
    # Untied (8B): lm_head. Tied (0.6B, 4B): the embedding, even if a copy was saved.
    name = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    if name not in files:
        raise CheckpointInvalid(f"The weights lack {name}.")
    with safe_open(files[name], "pt") as shard:
        rows = shard.get_slice(name)
        if tuple(rows.get_shape()) != (config.vocab_size, config.hidden_size):
            expected = f"({config.vocab_size}, {config.hidden_size})"
            raise CheckpointInvalid(f"{name} has shape {tuple(rows.get_shape())}, and config.json promises {expected}.")
        return torch.cat([rows[token : token + 1] for token in (checkpoint.no_id, checkpoint.yes_id)]).float()


def _read_body(
    files: dict[str, Path], dtype: torch.dtype, device: torch.device, progress: Progress
) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors other than the head, converted, one at a time."""
    bytes_in_all = sum(path.stat().st_size for path in set(files.values()))
    bytes_read = 0
    for name, path in files.items():
        # Reopens the file for each tensor: mapped pages count as memory of the process until it is closed.
        with safe_open(path, "pt") as shard:
            tensor: Tensor = shard.get_tensor(name)
            bytes_read += tensor.nbytes
            if name not in ("score.weight", "lm_head.weight"):
                yield name.removeprefix("model."), tensor.to(device, dtype, copy=True)
            del tensor
        progress(min(bytes_read, bytes_in_all), bytes_in_all)


def _check_names(found: set[str], wanted: set[str]) -> None:
    if missing := sorted(wanted - found):
        raise CheckpointInvalid(f"The weights lack {len(missing)} tensors, e.g. {', '.join(missing[:3])}.")
    if extra := sorted(found - wanted):
        raise CheckpointInvalid(
            f"The weights hold {len(extra)} tensors that Qwen3-Reranker does not have, e.g. {', '.join(extra[:3])}: "
            "this is another kind of model."
        )
