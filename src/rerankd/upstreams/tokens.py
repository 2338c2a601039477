"""The tokens of a call that another server scores: by the model's tokenizer, else estimated. Loads no weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from rerankd.client.dialects import num_tokens_about
from rerankd.engine.loading.checkpoint import local_folder
from rerankd.engine.loading.hub import download_file
from rerankd.engine.qwen3.prompt import Qwen3Prompt
from rerankd.engine.text_tokens import CountedText, TextCounter, at_most
from rerankd.engine.tokenising import read_tokenizer
from rerankd.errors import CheckpointInvalid, CheckpointNotFound
from rerankd.ranking import Encodes
from rerankd.types import Prompt, RerankRequest

LONGEST_PROMPT = 32_768
"""Tokens: what Qwen3-Reranker reads. An upstream that reads less refuses or truncates by itself."""

TEMPLATE_TOKENS = 100
"""Upper bound on what stands around instruct, query and document."""

TOKENIZER = "tokenizer.json"


def open_tokens(name: str | None, *, offline: bool = False) -> tuple[Encodes, bool]:
    """A counter of tokens, and whether it counts exactly.

    Args:
        name: a folder with `tokenizer.json`, or a name on the hub; None: the tokens are estimated.

    Raises:
        ModelError: there is no such tokenizer, or it cannot be read.
    """
    if name is None:
        return EstimatedTokens(), False
    folder = _folder(name, offline)
    try:
        return Qwen3Prompt(folder, LONGEST_PROMPT), True
    except CheckpointInvalid:  # another family's tokenizer
        return CountedTokens(folder), True


def _folder(name: str, offline: bool) -> Path:
    folder = local_folder(name)
    if folder is None:
        return download_file(name, TOKENIZER, offline=offline).parent
    if not (folder / TOKENIZER).is_file():
        raise CheckpointNotFound(f"There is no {TOKENIZER} in {folder}.")
    return folder


class _Room(ABC):
    """The room for a document, by counts of bare texts."""

    @abstractmethod
    def lens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each bare text."""

    def room(self, request: RerankRequest) -> int:
        """The tokens that a document may have beside the instruct and the longest query."""
        limits = request.limits
        instruct, *queries = self.lens((request.instruct, *request.queries))
        beside = instruct + min(max(queries), limits.max_query_tokens or LONGEST_PROMPT)
        return max(0, (limits.max_prompt_tokens or LONGEST_PROMPT) - TEMPLATE_TOKENS - beside)


class CountedTokens(_Room):
    """Counts and truncates texts with any tokenizer. Implements `ranking.Encodes`; its prompts have no token ids.

    Raises:
        CheckpointInvalid: the tokenizer cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._counter = TextCounter(read_tokenizer(folder / TOKENIZER))

    def encode(self, request: RerankRequest) -> list[Prompt]:
        """One prompt for each document, in order."""
        limits = request.limits
        side, longest = limits.truncation_side, LONGEST_PROMPT
        queries = self._counter.truncate_all("query", request.queries, limits.max_query_tokens, longest, side)
        documents = self._counter.truncate_all("document", request.documents, limits.max_document_tokens, longest, side)
        pairs = zip(request.per_document(request.queries), request.documents, strict=True)
        return [_prompt(queries[query], documents[document]) for query, document in pairs]

    def lens(self, texts: Sequence[str]) -> list[int]:
        """See `_Room.lens`."""
        return self._counter.lens(texts)


def _prompt(query: CountedText, document: CountedText) -> Prompt:
    tokens = range(query.tokens + document.tokens)
    truncations = (*query.truncations, *document.truncations)
    return Prompt(query.text, document.text, tokens, query.tokens, document.tokens, truncations)


class EstimatedTokens(_Room):
    """Estimates, rather too high, and truncates nothing. Implements `ranking.Encodes`; its prompts have no ids."""

    def encode(self, request: RerankRequest) -> list[Prompt]:
        """One prompt for each document, in order."""
        limits = request.limits
        queries = {text: at_most(num_tokens_about(text), limits.max_query_tokens) for text in request.queries}
        prompts = []
        for query, document in zip(request.per_document(request.queries), request.documents, strict=True):
            tokens = at_most(num_tokens_about(document), limits.max_document_tokens)
            prompts.append(Prompt(query, document, range(queries[query] + tokens), queries[query], tokens))
        return prompts

    def lens(self, texts: Sequence[str]) -> list[int]:
        """See `_Room.lens`."""
        return [num_tokens_about(text) for text in texts]
