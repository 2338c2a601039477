"""Reads a checkpoint into a Qwen3Reranker, in no more memory than its weights. Refuses missing or extra tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from rerankd.engine.loading.adapters import Adapter
from rerankd.engine.qwen3.model import DecoderLayer, Qwen3Config, Qwen3Reranker
from rerankd.engine.qwen3.stored import StoredTensors
from rerankd.errors import CheckpointInvalid

Progress = Callable[[int, int], None]
"""Called with (bytes read, total bytes) while the weights load."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose weights are read.

    Attributes:
        folder: with `*.safetensors`.
        yes_id, no_id: of the answers; without `no_id` the logit is that of `yes`. An embedding model has neither.
        scale: the factor from the checkpoint's logit to the log-odds.
        adapter: is merged into the weights.
    """

    folder: Path
    config: Qwen3Config
    yes_id: int | None = None
    no_id: int | None = None
    scale: float = 1.0
    adapter: Adapter | None = None

    @property
    def is_embedding(self) -> bool:
        """Whether the network has no head."""
        return self.yes_id is None


def read_config(folder: Path) -> Qwen3Config:
    """Parses the folder's `config.json`.

    Raises:
        CheckpointInvalid: see `Qwen3Config.from_json`.
    """
    return Qwen3Config.from_json(json.loads((folder / "config.json").read_text()))


def load_reranker(
    checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, progress: Progress
) -> Qwen3Reranker:
    """Reads an original checkpoint (`…ForCausalLM`) or a converted one (`…ForSequenceClassification`).

    Raises:
        CheckpointInvalid: a tensor is missing, left over or of the wrong shape, or a file is damaged.
    """
    stored = StoredTensors(checkpoint.folder, checkpoint.adapter, embedding=checkpoint.is_embedding)
    head = _read_head(stored, checkpoint).to(device)
    with torch.device("meta"):
        model = Qwen3Reranker(checkpoint.config, head_rows=head.shape[0])
    state = {"head": head}
    for name, tensor in _read_body(stored, dtype, device, progress):
        state[name] = tensor
    _check_names(set(state), set(model.state_dict()))
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:  # a shape that differs from config.json
        raise CheckpointInvalid(f"The weights in {checkpoint.folder} do not fit config.json: {error}") from error
    return model.eval().requires_grad_(False)


class LayerwiseReader:
    """Reads the same checkpoints as `load_reranker`, on the CPU, in the memory of one layer.

    Raises:
        CheckpointInvalid: a tensor is missing or left over, or a file is damaged.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, progress: Progress) -> None:
        self._checkpoint, self._dtype, self._progress = checkpoint, dtype, progress
        self._stored = StoredTensors(checkpoint.folder, checkpoint.adapter, embedding=checkpoint.is_embedding)
        self._head = _read_head(self._stored, checkpoint)
        self._bytes_read = 0
        with torch.device("meta"):
            wanted = Qwen3Reranker(checkpoint.config, head_rows=len(self._head)).state_dict()
        body = [name for name in self._stored.names if name not in ("score.weight", "lm_head.weight")]
        self._names = {name.removeprefix("model."): name for name in body}
        _check_names({"head", *self._names}, set(wanted))

    def layers(self) -> Iterator[DecoderLayer]:
        """Each layer, in order. Raises CheckpointInvalid: a tensor has the wrong shape."""
        for index in range(self._checkpoint.config.num_hidden_layers):
            with torch.device("meta"):
                layer = DecoderLayer(self._checkpoint.config)
            self._fill(layer, f"layers.{index}.", {})
            yield layer
            del layer

    def rest(self) -> Qwen3Reranker:
        """The network without its layers. Raises CheckpointInvalid: a tensor has the wrong shape."""
        config = self._checkpoint.config
        with torch.device("meta"):
            network = Qwen3Reranker(replace(config, num_hidden_layers=0), head_rows=len(self._head))
        self._fill(network, "", {"head": self._head})
        self._progress(self._stored.num_bytes, self._stored.num_bytes)
        return network

    def _fill(self, module: nn.Module, prefix: str, state: dict[str, Tensor]) -> None:
        for name in module.state_dict().keys() - state.keys():
            tensor = self._stored.read(self._names[prefix + name])
            self._bytes_read += tensor.nbytes
            state[name] = tensor.to(self._dtype)  # in the dtype of the file, it stays mapped
        self._progress(min(self._bytes_read, self._stored.num_bytes), self._stored.num_bytes)
        try:
            module.load_state_dict(state, assign=True)
        except RuntimeError as error:  # a shape that differs from config.json
            folder = self._checkpoint.folder
            raise CheckpointInvalid(f"The weights in {folder} do not fit config.json: {error}") from error
        module.requires_grad_(False)


def _read_head(stored: StoredTensors, checkpoint: Checkpoint) -> Tensor:
    """The rows of the head for `no` and `yes`, (2, hidden_size); with one answer or a classifier (1, hidden_size).

    float32, times the scale of the format. An embedding model has no rows.
    """
    if checkpoint.is_embedding:
        return torch.empty(0, checkpoint.config.hidden_size)
    if "score.weight" in stored:
        head = stored.read("score.weight").float()
        if head.shape[0] != 1:
            raise CheckpointInvalid(f"The classifier has {head.shape[0]} labels; a reranker has one.")
        return head * checkpoint.scale
    config = checkpoint.config
    # Untied (8B): lm_head. Tied (0.6B, 4B): the embedding, even if a copy was saved.
    name = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    if name not in stored:
        raise CheckpointInvalid(f"The weights lack {name}.")
    if (shape := stored.shape(name)) != (expected := (config.vocab_size, config.hidden_size)):
        raise CheckpointInvalid(f"{name} has shape {shape}, and config.json promises {expected}.")
    answers = [token for token in (checkpoint.no_id, checkpoint.yes_id) if token is not None]
    return stored.rows(name, answers) * checkpoint.scale


def _read_body(
    stored: StoredTensors, dtype: torch.dtype, device: torch.device, progress: Progress
) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors other than the head, converted, one at a time."""
    bytes_read = 0
    for name in stored.names:
        if name not in ("score.weight", "lm_head.weight"):
            tensor = stored.read(name)
            bytes_read += tensor.nbytes
            yield name.removeprefix("model."), tensor.to(device, dtype, copy=True)
            del tensor
        progress(min(bytes_read, stored.num_bytes), stored.num_bytes)
    progress(stored.num_bytes, stored.num_bytes)


def _check_names(found: set[str], wanted: set[str]) -> None:
    if missing := sorted(wanted - found):
        raise CheckpointInvalid(f"The weights lack {len(missing)} tensors, e.g. {', '.join(missing[:3])}.")
    if extra := sorted(found - wanted):
        raise CheckpointInvalid(
            f"The weights hold {len(extra)} tensors that Qwen3-Reranker does not have, e.g. {', '.join(extra[:3])}: "
            "this is another kind of model."
        )
