"""The tokens of a call that another server scores: by the model's tokenizer, else estimated. Loads no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from rerankd.client.dialects import num_tokens_about
from rerankd.engine.loading.checkpoint import local_folder
from rerankd.engine.loading.hub import download_file
from rerankd.engine.qwen3.prompt import Qwen3Prompt
from rerankd.engine.text_tokens import CountedText, TextCounter
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


class CountedTokens:
    """Counts and truncates texts with any tokenizer. Implements `ranking.Encodes`; its prompts have no token ids.

    Raises:
        CheckpointInvalid: the tokenizer cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        try:
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointInvalid(f"{folder / TOKENIZER} cannot be read: {error}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._counter = TextCounter(tokenizer)

    def encode(self, request: RerankRequest) -> list[Prompt]:
        """One prompt for each document, in order."""
        limits = request.limits
        side, longest = limits.truncation_side, LONGEST_PROMPT
        queries = self._counter.truncate_all("query", request.queries, limits.max_query_tokens, longest, side)
        documents = self._counter.truncate_all("document", request.documents, limits.max_document_tokens, longest, side)
        pairs = zip(request.per_document(request.queries), request.documents, strict=True)
        return [_prompt(queries[query], documents[document]) for query, document in pairs]

    def room(self, request: RerankRequest) -> int:
        """The tokens that a document may have beside the longest query."""
        longest = request.limits.max_prompt_tokens or LONGEST_PROMPT
        return max(0, longest - TEMPLATE_TOKENS - _beside(request, self.lens))

    def lens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each bare text."""
        return self._counter.lens(texts)


def _prompt(query: CountedText, document: CountedText) -> Prompt:
    tokens = range(query.tokens + document.tokens)
    truncations = (*query.truncations, *document.truncations)
    return Prompt(query.text, document.text, tokens, query.tokens, document.tokens, truncations)


class EstimatedTokens:
    """Estimates, rather too high, and truncates nothing. Implements `ranking.Encodes`; its prompts have no ids."""

    def encode(self, request: RerankRequest) -> list[Prompt]:
        """One prompt for each document, in order."""
        limits = request.limits
        queries = {text: _at_most(num_tokens_about(text), limits.max_query_tokens) for text in request.queries}
        prompts = []
        for query, document in zip(request.per_document(request.queries), request.documents, strict=True):
            tokens = _at_most(num_tokens_about(document), limits.max_document_tokens)
            prompts.append(Prompt(query, document, range(queries[query] + tokens), queries[query], tokens))
        return prompts

    def room(self, request: RerankRequest) -> int:
        """The tokens that a document may have beside the longest query."""
        longest = request.limits.max_prompt_tokens or LONGEST_PROMPT
        return max(0, longest - TEMPLATE_TOKENS - _beside(request, self.lens))

    def lens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each bare text."""
        return [num_tokens_about(text) for text in texts]


def _beside(request: RerankRequest, lens: Callable[[Sequence[str]], Sequence[int]]) -> int:
    """The tokens of the instruct and the longest query."""
    instruct, *queries = lens((request.instruct, *request.queries))
    return instruct + min(max(queries), request.limits.max_query_tokens or LONGEST_PROMPT)


def _at_most(tokens: int, limit: int | None) -> int:
    return tokens if limit is None else min(tokens, limit)
