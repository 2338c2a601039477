"""The Qwen3-Reranker prompt: (instruct, query, document) → token ids, as the model card's code makes them.

Source: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B (README, "Transformers usage"). Two deliberate
differences: control strings such as `<|im_end|>` inside a text stay plain text, and where a prompt is too long
only the document (then the query) is shortened, never the template. Knows no tensor.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from rerankd.engine.qwen3.prefixes import num_shared
from rerankd.engine.texts import CountedText, Side, TextCounter, readable_part
from rerankd.errors import CheckpointInvalid, PromptTooLong
from rerankd.types import EncodedPair, Limits, Pair

PROMPT_ID = "qwen3-reranker-card"

PREFIX = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
MERGED_AT_MOST = 8
"""A joined text may have so many tokens fewer than its parts; generous."""

SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


class Qwen3Prompt:
    """Builds prompts with one checkpoint's tokenizer. Safe to call from several threads.

    Args:
        folder: holds `tokenizer.json`.
        max_tokens: the longest prompt the model can read, template included.

    Raises:
        CheckpointInvalid: the tokenizer cannot be read or lacks `yes`, `no` or a control token.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        try:
            full = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointInvalid(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
        # The same vocabulary without the added tokens: what a user writes can never become a control token.
        self._full = full
        self._plain = Tokenizer(full.model)
        self._plain.normalizer = full.normalizer
        self._plain.pre_tokenizer = full.pre_tokenizer
        self._counter = TextCounter(self._plain)
        self._prefix = array("i", full.encode(PREFIX, add_special_tokens=False).ids)
        self._suffix = array("i", full.encode(SUFFIX, add_special_tokens=False).ids)
        self._max_tokens = max_tokens
        self.yes_id = _token_id(full, "yes")
        self.no_id = _token_id(full, "no")
        for control in ("<|im_start|>", "<|im_end|>", "<think>", "</think>"):
            _token_id(full, control)

    @property
    def template_tokens(self) -> int:
        """Tokens around the body: prefix and suffix."""
        return len(self._prefix) + len(self._suffix)

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]:
        """Returns one EncodedPair a pair, in order.

        Prompts over `limits.max_prompt_tokens` are cut, or left for the caller to refuse, as
        `limits.overlong_prompt` says.

        Raises:
            PromptTooLong: the instruct alone does not fit, or a text far over the limit is not to be cut.
        """
        budget = min(limits.max_prompt_tokens or self._max_tokens, self._max_tokens) - self.template_tokens
        self._check_instruct(instruct, budget)
        cut = limits.overlong_prompt == "cut"
        side = limits.cut_side
        queries = self._counter.cut_all("query", (pair.query for pair in pairs), limits.max_query_tokens, budget, side)
        documents = self._counter.cut_all(
            "document", (pair.document for pair in pairs), limits.max_document_tokens, budget, side
        )
        if cut:
            queries = {key: self._fit(query, instruct, budget, side) for key, query in queries.items()}
        else:
            self._refuse_far_too_long(pairs, queries, documents, budget)
        kept = [(queries[pair.query], documents[pair.document]) for pair in pairs]
        bodies: Iterable[array[int]] = self._counter.token_ids(
            [_body(instruct, query.text, document.text) for query, document in kept]
        )
        if cut and side == "left":
            kept, bodies = self._fit_tails(kept, list(bodies), instruct, budget)
        heads = {query.text: self._head(instruct, query.text) for query in queries.values()}
        return [
            self._prompt(query, document, heads[query.text], body, budget if cut else None)
            for (query, document), body in zip(kept, bodies, strict=True)
        ]

    def _fit_tails(
        self, kept: list[tuple[CountedText, CountedText]], bodies: list[array[int]], instruct: str, budget: int
    ) -> tuple[list[tuple[CountedText, CountedText]], list[array[int]]]:
        """Cuts the beginning of each document whose body is over the budget, and tokenises it anew."""
        for index, body in enumerate(bodies):
            while (excess := len(body) - budget) > 0 and kept[index][1].text:
                query, document = kept[index]
                document = self._counter.shorten(document, max(0, document.tokens - excess), "left")
                kept[index] = query, document
                [body] = self._counter.token_ids([_body(instruct, query.text, document.text)])
            bodies[index] = body
        return kept, bodies

    def text_of(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, control tokens included."""
        return str(self._full.decode(list(token_ids), skip_special_tokens=False))

    def token_ids_of(self, text: str) -> list[int]:
        """The tokens of a text, control strings read as text."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def _head(self, instruct: str, query: str) -> list[int]:
        """What every body with this instruct and query begins with, whatever the document.

        The last token is left out: with the beginning of most documents it becomes another one.
        """
        return self._plain.encode(_body(instruct, query, ""), add_special_tokens=False).ids[:-1]

    def _check_instruct(self, instruct: str, budget: int) -> None:
        tokens = self._counter.count(_body(readable_part(instruct, budget), "", ""))
        if tokens > budget:
            raise PromptTooLong(
                f"Template and instruct have {tokens + self.template_tokens} tokens or more, and a prompt may have "
                f"{budget + self.template_tokens}. Shorten the instruct, or allow longer prompts."
            )

    def _refuse_far_too_long(
        self,
        pairs: Sequence[Pair],
        queries: Mapping[str, CountedText],
        documents: Mapping[str, CountedText],
        budget: int,
    ) -> None:
        """Before anything is joined: what cannot fit is not tokenised once more for each document."""
        for index, pair in enumerate(pairs):
            tokens = queries[pair.query].tokens + documents[pair.document].tokens - MERGED_AT_MOST
            if tokens > budget:
                context = budget + self.template_tokens
                raise PromptTooLong.of_document(index, tokens + self.template_tokens, context)

    def _fit(self, query: CountedText, instruct: str, budget: int, side: Side) -> CountedText:
        """Cuts a query so that template, instruct and query fit with an empty document."""
        while (excess := self._counter.count(_body(instruct, query.text, "")) - budget) > 0 and query.text:
            query = self._counter.shorten(query, max(0, query.tokens - excess), side)
        return query

    def _prompt(
        self, query: CountedText, document: CountedText, head: list[int], body: array[int], budget: int | None
    ) -> EncodedPair:
        pair = Pair(query.text, document.text)
        if budget is not None and len(body) > budget:
            # The document is the end of the body, so the reference's cut on token ids is a cut of the document.
            document = replace(document, tokens=max(0, document.tokens - (len(body) - budget)))
            body = body[:budget]
        token_ids = self._prefix + body + self._suffix
        # Found on token ids: a document may change more of the head's tokens than its last.
        shared_len = len(self._prefix) + num_shared(head, body)
        cuts = query.cuts + document.cuts
        return EncodedPair(pair, token_ids, query.tokens, document.tokens, cuts, shared_len)


def _body(instruct: str, query: str, document: str) -> str:
    return f"<Instruct>: {instruct}\n<Query>: {query}\n<Document>: {document}"


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise CheckpointInvalid(f"The tokenizer has no token {token!r}: this is not a Qwen3-Reranker.")
    return int(token_id)
