"""Opens rerankd's engine for timing: without a server, and with tokenized prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rerankd.bench.random_weights import NO_ID, YES_ID
from rerankd.engine.engine import Engine
from rerankd.engine.loading.device_memory import free_bytes
from rerankd.engine.loading.devices import Execution, choose_device, prepare_cpu
from rerankd.engine.loading.dtypes import choose_dtype
from rerankd.engine.qwen3.batch_tokens import batch_tokens
from rerankd.engine.qwen3.loaded import load_network
from rerankd.engine.qwen3.model import num_parameters
from rerankd.engine.qwen3.shared_prefix import SharedPrefixForward
from rerankd.engine.qwen3.weights import Checkpoint, read_config
from rerankd.types import ModelInfo, Prompt

Score = Callable[[Sequence[Prompt]], list[float]]
"""Computes the logits of a call."""


@contextmanager
def open_engine(folder: Path, device: str, dtype: str) -> Iterator[Score]:
    """Opens the engine with the same queue, thread and forward pass as in the server."""
    engine = Engine(_TokenModel(folder, device, dtype))
    try:
        yield lambda prompts: list(engine.submit(prompts).result().values)
    finally:
        engine.close()


class _TokenModel(SharedPrefixForward):
    """A model without a tokenizer, for tokenized prompts."""

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        prepare_cpu()
        where = choose_device(device)
        kind = choose_dtype(dtype, where)
        config = read_config(folder)
        checkpoint = Checkpoint(folder, config, YES_ID, NO_ID)
        network, layers = load_network(checkpoint, Execution(where, kind), lambda done, in_all: None)
        super().__init__(network, layers)
        self.max_batch_tokens = batch_tokens(config, network.embed_tokens.weight.itemsize, free_bytes(where))
        self.info = ModelInfo(
            name=folder.name,
            kind="qwen3",
            prompt_id="none",
            max_tokens=config.max_position_embeddings,
            device=str(where),
            dtype=str(kind).removeprefix("torch."),
            num_parameters=num_parameters(config),
            folder=str(folder),
        )
