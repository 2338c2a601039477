"""What is timed: our engine, and transformers with the model card's code. Both take the same token ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from rerankd.bench.random_weights import NO_ID, YES_ID
from rerankd.engine.devices import choose_device, choose_dtype
from rerankd.engine.engine import Engine
from rerankd.engine.qwen3.fast import Prompt
from rerankd.engine.qwen3.reranker import served_forward
from rerankd.engine.qwen3.weights import load_reranker
from rerankd.errors import SettingsError
from rerankd.types import EncodedPair, Limits, ModelInfo, Pair

Score = Callable[[Sequence[EncodedPair]], list[float]]
"""Logits of a call's prompts."""

REFERENCE_BATCH = 8


@contextmanager
def open_engine(folder: Path, device: str, dtype: str) -> Iterator[Score]:
    """rerankd: queue, thread and forward as the server runs them."""
    engine = Engine(_TokenModel(folder, device, dtype))
    try:
        yield lambda pairs: engine.submit(pairs).result()
    finally:
        engine.close()


@contextmanager
def open_transformers(folder: Path, device: str, dtype: str) -> Iterator[Score]:
    """The model card's procedure: left padding, the whole vocabulary, batches of 8 in the order given.

    Raises:
        SettingsError: transformers is not installed.
    """
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise SettingsError("--system transformers needs it: pip install 'rerankd[embedded]'.") from error
    where = choose_device(device)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=choose_dtype(dtype, where)).to(where).eval()

    @torch.inference_mode()
    def score(pairs: Sequence[EncodedPair]) -> list[float]:
        logits: list[float] = []
        for start in range(0, len(pairs), REFERENCE_BATCH):
            batch = [list(pair.token_ids) for pair in pairs[start : start + REFERENCE_BATCH]]
            longest = max(map(len, batch))
            ids = torch.tensor([[0] * (longest - len(tokens)) + tokens for tokens in batch], device=where)
            mask = torch.tensor([[0] * (longest - len(t)) + [1] * len(t) for t in batch], device=where)
            last = model(input_ids=ids, attention_mask=mask).logits[:, -1, :].float()
            logits += (last[:, YES_ID] - last[:, NO_ID]).tolist()
        return logits

    yield score


SYSTEMS: dict[str, Callable[[Path, str, str], AbstractContextManager[Score]]] = {
    "rerankd": open_engine,
    "transformers": open_transformers,
}


class _TokenModel:
    """A checkpoint without a tokenizer, for prompts that are token ids already."""

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        where = choose_device(device)
        kind = choose_dtype(dtype, where)
        config = json.loads((folder / "config.json").read_text())
        network = load_reranker(folder, config, YES_ID, NO_ID, kind, where, lambda done, in_all: None)
        self._forward = served_forward(network)
        self.info = ModelInfo(
            name=folder.name,
            kind="qwen3",
            prompt_id="none",
            max_tokens=config["max_position_embeddings"],
            device=str(where),
            dtype=str(kind).removeprefix("torch."),
            num_parameters=sum(parameter.numel() for parameter in network.parameters()),
            folder=str(folder),
        )

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]:
        raise AssertionError("This is a bug: the benchmark's prompts are token ids already.")

    def logits(self, batch: Sequence[EncodedPair]) -> list[float]:
        logits: list[float] = self._forward([Prompt(pair.token_ids, pair.shared_len) for pair in batch]).tolist()
        return logits
