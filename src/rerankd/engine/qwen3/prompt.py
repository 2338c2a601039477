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
from rerankd.engine.texts import MAX_TOKEN_CHARS, CountedText, Side, TextCounter, readable_part
from rerankd.errors import CheckpointInvalid, InvalidRequest, PromptTooLong, TooManyTokens
from rerankd.types import EncodedPair, Limits, Pair

PROMPT_ID = "qwen3-reranker-card"

PREFIX = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
MAX_CALL_TOKENS = 50_000_000
"""Of all prompts of a call: what they take is bounded before they are made."""

FAR_OVER = 4
"""A call with so many times the tokens that it may have is not counted to its end."""

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
            PromptTooLong: the instruct is too long, or a text far over the limit is not to be cut.
            InvalidRequest: the prompts together have more tokens than a call may have.
        """
        budget = min(limits.max_prompt_tokens or self._max_tokens, self._max_tokens) - self.template_tokens
        instruct_tokens = self._check_instruct(instruct, budget, limits.max_instruct_tokens)
        cut = limits.overlong_prompt == "cut"
        side = limits.cut_side
        queries = self._counter.cut_all("query", (pair.query for pair in pairs), limits.max_query_tokens, budget, side)
        if cut:
            queries = {key: self._fit(query, instruct, budget, side) for key, query in queries.items()}
        documents = self._documents(pairs, queries, limits, budget)
        kept = [(queries[pair.query], documents[pair.document]) for pair in pairs]
        self._refuse_too_much(kept, instruct_tokens, limits)
        bodies: Iterable[array[int]] = self._counter.token_ids(
            _body(instruct, query.text, document.text) for query, document in kept
        )
        if cut and side == "left":
            kept, bodies = self._fit_tails(kept, list(bodies), instruct, budget)
        texts = list(dict.fromkeys(query.text for query in queries.values()))
        # The last token is left out: with the beginning of most documents it becomes another one.
        heads = (ids[:-1] for ids in self._counter.token_ids(_body(instruct, text, "") for text in texts))
        head_of = dict(zip(texts, heads, strict=True))
        return [
            self._prompt(query, document, head_of[query.text], body, budget if cut else None)
            for (query, document), body in zip(kept, bodies, strict=True)
        ]

    def _documents(
        self, pairs: Sequence[Pair], queries: Mapping[str, CountedText], limits: Limits, budget: int
    ) -> dict[str, CountedText]:
        """The documents, counted and cut; a call that is to be refused is not read to its end.

        Raises:
            PromptTooLong: a text far over the limit is not to be cut.
            TooManyTokens: more than a few times as many as the call may have.
        """
        counted: dict[str, CountedText] = {}
        total = 0
        texts = dict.fromkeys(pair.document for pair in pairs)
        refuse = limits.overlong_prompt == "refuse"
        shortest = min((query.tokens for query in queries.values()), default=0)
        if refuse:
            self._refuse_far_too_long(pairs, {text: _fewest_tokens(text) for text in texts}, shortest, budget)
        for text, document in self._counter.each_cut(
            "document", texts, limits.max_document_tokens, budget, limits.cut_side
        ):
            counted[text] = document
            total += document.tokens
            if limits.max_total_tokens is not None and total > FAR_OVER * limits.max_total_tokens:
                raise TooManyTokens(total, limits.max_total_tokens)
            if refuse and shortest + document.tokens - MERGED_AT_MOST > budget:
                break  # the first such document is named below
        if refuse:
            tokens = {text: document.tokens for text, document in counted.items()}
            self._refuse_far_too_long(pairs, tokens, shortest, budget)
        return counted

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
        [ids] = self._counter.token_ids([text])
        return ids.tolist()

    def _check_instruct(self, instruct: str, budget: int, limit: int | None) -> int:
        """Returns the tokens of an empty body, the instruct among them."""
        read = instruct if limit is None else readable_part(instruct, limit)
        if limit is not None and (tokens := self._counter.count(read)) > limit:
            has = f"at least {tokens}" if len(read) < len(instruct) else f"{tokens}"
            raise PromptTooLong(
                f"The instruct has {has} tokens; at most {limit} are allowed. Shorten the instruct: what differs from "
                "call to call belongs in the query."
            )
        tokens = self._counter.count(_body(readable_part(instruct, budget), "", ""))
        if tokens > budget:
            raise PromptTooLong(
                f"Template and instruct have {tokens + self.template_tokens} tokens or more, and a prompt may have "
                f"{budget + self.template_tokens}. Shorten the instruct, or allow longer prompts."
            )
        return tokens

    def _refuse_far_too_long(
        self, pairs: Sequence[Pair], document_tokens: Mapping[str, int], query_tokens: int, budget: int
    ) -> None:
        """Before anything is joined: what cannot fit is not tokenised once more for each document.

        Args:
            document_tokens: at least so many; of the documents that were counted.
            query_tokens: of the shortest query.
        """
        for index, pair in enumerate(pairs):
            tokens = query_tokens + document_tokens.get(pair.document, 0) - MERGED_AT_MOST
            if tokens > budget:
                context = budget + self.template_tokens
                raise PromptTooLong.of_document(index, tokens + self.template_tokens, context)

    def _refuse_too_much(
        self, kept: Sequence[tuple[CountedText, CountedText]], instruct_tokens: int, limits: Limits
    ) -> None:
        """Before the prompts are made: each has the query and the instruct once more."""
        text_tokens = sum(query.tokens + document.tokens for query, document in kept)
        if limits.max_total_tokens is not None and text_tokens > limits.max_total_tokens:
            raise TooManyTokens(text_tokens, limits.max_total_tokens)
        total = text_tokens + len(kept) * (instruct_tokens + self.template_tokens)
        if total > MAX_CALL_TOKENS:
            raise InvalidRequest(
                f"The call's {len(kept)} prompts have {total} tokens together, each with the template, the instruct "
                f"and the query; the limit is {MAX_CALL_TOKENS}. Send the documents in several requests."
            )

    def _fit(self, query: CountedText, instruct: str, budget: int, side: Side) -> CountedText:
        """Cuts a query so that template, instruct and query fit with an empty document."""
        while (excess := self._counter.count(_body(instruct, query.text, "")) - budget) > 0 and query.text:
            query = self._counter.shorten(query, max(0, query.tokens - excess), side)
        return query

    def _prompt(
        self, query: CountedText, document: CountedText, head: array[int], body: array[int], budget: int | None
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


def _fewest_tokens(text: str) -> int:
    """That a text of so many characters can have."""
    return len(text) // MAX_TOKEN_CHARS


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise CheckpointInvalid(f"The tokenizer has no token {token!r}: this is not a Qwen3-Reranker.")
    return int(token_id)
