"""Cross-encoders: any checkpoint that sentence-transformers' CrossEncoder runs and that has one label.

Their windows are short (often 256 or 512 tokens), so a document that does not fit is truncated, with a
warning, on every API. They ignore an instruct.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer
from transformers.utils.logging import disable_progress_bar

from rerankd.engine.loading.activations import check_activations
from rerankd.engine.protocols import Prompts
from rerankd.engine.text_tokens import CountedText, Side, TextCounter, at_most
from rerankd.engine.tokenising import encodings
from rerankd.errors import CheckpointInvalid
from rerankd.types import Limits, ModelInfo, Prompt, RerankRequest

disable_progress_bar()  # its bars are for a notebook, not for a server's log


class CrossEncoderModel:
    """A sentence-transformers CrossEncoder with one label. Implements `engine.protocols.LoadedModel`.

    Args:
        notice: goes to every caller.

    Raises:
        CheckpointInvalid: sentence-transformers cannot load it, or it has more than one label.
    """

    def __init__(self, name: str, folder: Path, device: torch.device, notice: str | None = None) -> None:
        check_activations(folder)
        try:
            self._network = CrossEncoder(str(folder), device=str(device), local_files_only=True)
        except Exception as error:
            raise CheckpointInvalid(f"sentence-transformers cannot load {folder}: {reason_of(error)}") from error
        if self._network.num_labels != 1:
            raise CheckpointInvalid(f"{name} has {self._network.num_labels} labels; a reranker has one.")
        self._tokenizer = fast_tokenizer(name, self._network.tokenizer)
        self._max_tokens = int(self._network.max_seq_length or 512)
        self._counter = TextCounter(self._tokenizer)
        self.info = replace(_info(name, self._max_tokens, self._network, folder), notice=notice)

    @property
    def prompts(self) -> Prompts:
        """Itself."""
        return self

    def encode(self, request: RerankRequest) -> list[Prompt]:
        """Truncates each document to the part of the window that its query leaves."""
        limits, side = request.limits, request.limits.truncation_side
        window = _window(self._max_tokens, limits) - self._tokenizer.num_special_tokens_to_add(True)
        query_limit, document_limit = (
            at_most(window, limit) for limit in (limits.max_query_tokens, limits.max_document_tokens)
        )
        counted = self._counter.truncate_all
        queries = counted("query", request.queries, query_limit, window, side)
        documents = counted("document", request.documents, document_limit, window, side)
        pairs = zip(request.per_document(request.queries), request.documents, strict=True)
        return [self._prompt(queries[query], documents[document], window, side) for query, document in pairs]

    def room(self, request: RerankRequest) -> int:
        """The tokens that a document may have beside the longest query."""
        window = _window(self._max_tokens, request.limits) - self._tokenizer.num_special_tokens_to_add(True)
        limit = at_most(window, request.limits.max_query_tokens)
        queries = self._counter.truncate_all("query", request.queries, limit, window)
        return max(0, window - max(query.tokens for query in queries.values()))

    def lens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each bare text."""
        return self._counter.lens(texts)

    def _prompt(self, query: CountedText, document: CountedText, window: int, side: Side) -> Prompt:
        document = self._counter.shorten(document, max(0, window - query.tokens), side)
        return Prompt(
            query.text,
            document.text,
            array("i", self._tokenizer.encode(query.text, document.text).ids),
            query.tokens,
            document.tokens,
            query.truncations + document.truncations,
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, nothing added."""
        [encoding] = encodings(self._tokenizer, [text])
        return list(encoding.ids)

    def logits(self, batch: Sequence[Prompt]) -> list[float]:
        """The raw output for each pair, before any activation."""
        texts = [(item.query, item.document) for item in batch]
        outputs = self._network.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return [float(output) for output in outputs]


def fast_tokenizer(name: str, loaded: Any) -> Tokenizer:
    """A copy of the tokenizer that transformers loaded or converted, with no truncation or padding."""
    backend = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise CheckpointInvalid(
            f"{name} has no tokenizer.json, and its tokenizer cannot be converted: it is not served. Ask its maker for "
            "one, or make it with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)."
        )
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def reason_of(error: Exception) -> str:
    """A library's message, without its advice to switch checks off: callers cannot follow it."""
    sentences = re.split(r"(?<=[.!])\s+", " ".join(str(error).split()))
    reason = " ".join(each for each in sentences if "trust_remote_code" not in each and "hf.co" not in each)
    return reason[:500] or type(error).__name__


def _window(max_tokens: int, limits: Limits) -> int:
    asked = limits.max_prompt_tokens if limits.on_overlong != "refuse" else None
    return max(at_most(max_tokens, asked), 8)  # room for the special tokens and a word


def _info(name: str, max_tokens: int, network: torch.nn.Module, folder: Path) -> ModelInfo:
    parameters = list(network.parameters())
    return ModelInfo(
        name=name,
        kind="cross-encoder",
        prompt_id="none",
        max_tokens=max_tokens,
        device=str(parameters[0].device),
        dtype=str(parameters[0].dtype).removeprefix("torch."),
        num_parameters=sum(parameter.numel() for parameter in parameters),
        folder=str(folder),
        reads_instruct=False,
    )
