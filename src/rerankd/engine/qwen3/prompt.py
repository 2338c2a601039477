"""The prompt of a format: (instruct, query, document) → token ids, as the code of the model's maker makes them.

`formats.py` names the source of each. Two deliberate differences: control strings such as `<|im_end|>` inside a text
stay plain text, and where a prompt is too long only the document (then the query) is shortened, never the template.
Knows no tensor.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from tokenizers import Tokenizer

from rerankd.engine.formats import QWEN3_RERANKER, Format
from rerankd.engine.text_tokens import MAX_TOKEN_CHARS, CountedText, Side, TextCounter, WordTokens, readable_part
from rerankd.engine.tokenising import read_tokenizer, without_added
from rerankd.errors import CheckpointInvalid, InvalidRequest, PromptTooLong, TooManyTokens
from rerankd.types import DEFAULT_INSTRUCT, Prompt, RerankRequest

MAX_CALL_TOKENS = 50_000_000
"""Upper bound on the tokens of all prompts of a call, checked before they are made."""

FAR_OVER = 4
"""Counting stops at this multiple of the tokens that a call may have."""

MERGED_AT_MOST = 8
"""Upper bound on tokens lost when BPE merges across the joints; generous."""

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizer splits a text before BPE; text_tokens.py does the same for Latin script. No piece reaches from a
line feed to `<`, none from `>:` to the space after it, and NFC composes nothing there: so head and document of a body
can be tokenised apart."""


CONTROL = re.compile(r"<\|?/?\w+\|?>")
"""A control token in the fixed parts of a format."""


@dataclass(frozen=True, slots=True)
class _Head:
    """The common beginning of the bodies of one query.

    Attributes:
        text: the head of the format.
        token_ids: of this text and the bridge.
        prefix: the format's prefix and `token_ids`.
    """

    query: CountedText
    text: str
    token_ids: array[int]
    prefix: tuple[int, ...]


class Qwen3Prompt:
    """Builds prompts with one checkpoint's tokenizer. Safe to call from several threads.

    Args:
        folder: holds `tokenizer.json`.
        max_tokens: the longest prompt the model can read, template included.

    Raises:
        CheckpointInvalid: the tokenizer cannot be read or lacks an answer of the format or a control token.
    """

    def __init__(self, folder: Path, max_tokens: int, layout: Format = QWEN3_RERANKER) -> None:
        self._full = full = read_tokenizer(folder / "tokenizer.json")
        self._plain = without_added(full)
        self._format = layout
        as_qwen = _splits_as_qwen(self._plain)
        self._behind_space = layout.lead == " " and as_qwen
        self._splits_before_document = bool(layout.bridge) or self._behind_space
        self._counter = TextCounter(self._plain, WordTokens(self._plain) if as_qwen else None)
        parts = (layout.prefix, layout.bridge, layout.suffix)
        self._prefix, self._bridge, self._suffix = (
            array("i", full.encode(part, add_special_tokens=False).ids) for part in parts
        )
        self._max_tokens = max_tokens
        self.yes_id = _token_id(full, layout.true)
        self.no_id = None if layout.false is None else _token_id(full, layout.false)
        self.max_token_id = max(full.get_vocab().values())
        for control in CONTROL.findall("".join(parts)):
            _token_id(full, control)

    @property
    def template_tokens(self) -> int:
        """Tokens around the body: prefix and suffix."""
        return len(self._prefix) + len(self._suffix)

    def _head_of(self, instruct: str, query: str) -> str:
        """The head of a query. The default of Qwen3-Reranker is replaced by that of the format."""
        layout = self._format
        if layout.default_instruct is not None and instruct.rstrip(".") == DEFAULT_INSTRUCT:
            instruct = layout.default_instruct
        said = layout.instruction.format(instruct=instruct) if instruct else ""
        return layout.head.format(instruct=said, query=query)

    def _count_head(self, instruct: str, query: str) -> int:
        """Tokens of a body with an empty document."""
        head, lead = self._head_of(instruct, query), self._format.lead
        if not self._format.bridge:
            return self._counter.count(head + lead)
        return self._counter.count(head) + len(self._bridge) + self._counter.count(lead)

    def encode(self, request: RerankRequest) -> list[Prompt]:
        """Returns one Prompt for each document, in order.

        A prompt over `limits.max_prompt_tokens` is truncated, or left for the caller to refuse, as
        `limits.on_overlong` says.

        Raises:
            PromptTooLong: the instruct is too long, or a text far over the limit is not to be truncated.
            InvalidRequest: the prompts together have more tokens than a call may have.
        """
        if self._format.strips:
            request = _stripped(request)
        limits = request.limits
        budget = min(limits.max_prompt_tokens or self._max_tokens, self._max_tokens) - self.template_tokens
        instruct_tokens = self._check_instruct(request.instruct, budget, limits.max_instruct_tokens)
        queries = self._queries(request, budget)
        documents = self._documents(request, queries, budget)
        self._refuse_too_much(request, queries, documents, instruct_tokens)
        heads = self._heads(request.instruct, queries)
        bodies = self._bodies(list(request.per_document(heads)), documents)
        if limits.on_overlong == "refuse":
            return [self._prompt(head, document, body) for head, document, body in bodies]
        if limits.truncation_side == "left":
            bodies = (self._fit_tail(*each, budget) for each in bodies)
        return [self._prompt(*_fit_head(*each, budget)) for each in bodies]

    def room(self, request: RerankRequest) -> int:
        """The tokens that a document may have beside the longest query.

        Raises:
            PromptTooLong: the instruct is too long.
        """
        limits = request.limits
        budget = min(limits.max_prompt_tokens or self._max_tokens, self._max_tokens) - self.template_tokens
        self._check_instruct(request.instruct, budget, limits.max_instruct_tokens)
        heads = self._heads(request.instruct, self._queries(request, budget))
        return max(0, budget - max(len(head.token_ids) for head in heads))

    def lens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each bare text."""
        return self._counter.lens(texts)

    def _queries(self, request: RerankRequest, budget: int) -> list[CountedText]:
        """The queries, counted and truncated, so that template, instruct and query fit with an empty document."""
        limits, side = request.limits, request.limits.truncation_side
        found = self._counter.truncate_all("query", request.queries, limits.max_query_tokens, budget, side)
        if limits.on_overlong != "refuse":
            found = {text: self._fit_query(query, request.instruct, budget, side) for text, query in found.items()}
        return [found[text] for text in request.queries]

    def _fit_query(self, query: CountedText, instruct: str, budget: int, side: Side) -> CountedText:
        while (excess := self._count_head(instruct, query.text) - budget) > 0 and query.text:
            query = self._counter.shorten(query, max(0, query.tokens - excess), side)
        return query

    def _documents(self, request: RerankRequest, queries: Sequence[CountedText], budget: int) -> list[CountedText]:
        """The documents, counted and truncated; a call that will be refused is not read to its end.

        Raises:
            PromptTooLong: a text far over the limit is not to be truncated.
            TooManyTokens: more than a few times as many as the call may have.
        """
        limits, refuse = request.limits, request.limits.on_overlong == "refuse"
        longest = budget - min(query.tokens for query in queries) + MERGED_AT_MOST  # that fits with any query
        texts = dict.fromkeys(request.documents)
        if refuse:
            self._refuse_far_too_long(request, {text: len(text) // MAX_TOKEN_CHARS for text in texts}, longest, budget)
        counted: dict[str, CountedText] = {}
        total = 0
        for text, document in self._counter.truncate_each(
            "document", texts, limits.max_document_tokens, budget, limits.truncation_side
        ):
            counted[text] = document
            total += document.tokens
            if limits.max_total_tokens is not None and total > FAR_OVER * limits.max_total_tokens:
                raise TooManyTokens(total, limits.max_total_tokens)
            if refuse and document.tokens > longest:
                self._refuse_far_too_long(request, {text: document.tokens}, longest, budget)
        return [counted[text] for text in request.documents]

    def _heads(self, instruct: str, queries: Sequence[CountedText]) -> list[_Head]:
        texts = {query.text: self._head_of(instruct, query.text) for query in queries}
        heads = self._counter.token_ids(texts.values())
        ids = {text: head + self._bridge for text, head in zip(texts, heads, strict=True)}
        prefixes = {text: (*self._prefix, *head) for text, head in ids.items()}
        return [_Head(query, texts[query.text], ids[query.text], prefixes[query.text]) for query in queries]

    def _bodies(
        self, heads: Sequence[_Head], documents: Sequence[CountedText]
    ) -> Iterator[tuple[_Head, CountedText, array[int]]]:
        """Each head with its document and the token ids of both together, the same as of the joined text."""
        lead = self._format.lead
        if self._splits_before_document:
            if self._behind_space:
                rest = self._counter.ids_behind_space(documents)
            else:
                rest = self._counter.token_ids(f"{lead}{document.text}" for document in documents)
            for head, document, ids in zip(heads, documents, rest, strict=True):
                yield head, document, head.token_ids + ids
        else:
            joined = (f"{head.text}{lead}{document.text}" for head, document in zip(heads, documents, strict=True))
            yield from zip(heads, documents, self._counter.token_ids(joined), strict=True)

    def _fit_tail(
        self, head: _Head, document: CountedText, body: array[int], budget: int
    ) -> tuple[_Head, CountedText, array[int]]:
        """Removes the beginning of a document whose body is over the budget, and tokenises the body again."""
        while (excess := len(body) - budget) > 0 and document.text:
            document = self._counter.shorten(document, max(0, document.tokens - excess), "left")
            [(_, _, body)] = self._bodies([head], [document])
        return head, document, body

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, control tokens included."""
        return str(self._full.decode(list(token_ids), skip_special_tokens=False))

    def tokenize(self, text: str) -> list[int]:
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
        tokens = self._count_head(readable_part(instruct, budget), "")
        if tokens > budget:
            raise PromptTooLong(
                f"Template and instruct have {tokens + self.template_tokens} tokens or more, and a prompt may have "
                f"{budget + self.template_tokens}. Shorten the instruct, or allow longer prompts."
            )
        return tokens

    def _refuse_far_too_long(self, request: RerankRequest, tokens: dict[str, int], longest: int, budget: int) -> None:
        """Names the first document over `longest` tokens, before anything is joined and tokenised again.

        Args:
            tokens: document → lower bound on its tokens; documents that are not in it are not checked.
        """
        for index, text in enumerate(request.documents):
            if (at_least := tokens.get(text, 0)) > longest:
                over = at_least - longest
                context = budget + self.template_tokens
                raise PromptTooLong.of_document(index, context + over, context)

    def _refuse_too_much(
        self,
        request: RerankRequest,
        queries: Sequence[CountedText],
        documents: Sequence[CountedText],
        instruct_tokens: int,
    ) -> None:
        """Before the prompts are made: each has the query and the instruct once more."""
        text_tokens = sum(query.tokens for query in request.per_document(queries))
        text_tokens += sum(document.tokens for document in documents)
        limit = request.limits.max_total_tokens
        if limit is not None and text_tokens > limit:
            raise TooManyTokens(text_tokens, limit)
        total = text_tokens + len(documents) * (instruct_tokens + self.template_tokens)
        if total > MAX_CALL_TOKENS:
            raise InvalidRequest(
                f"The call's {len(documents)} prompts have {total} tokens together, each with the template, the "
                f"instruct and the query; the limit is {MAX_CALL_TOKENS}. Send the documents in several requests."
            )

    def _prompt(self, head: _Head, document: CountedText, body: array[int]) -> Prompt:
        return Prompt(
            head.query.text,
            document.text,
            self._prefix + body + self._suffix,
            head.query.tokens,
            document.tokens,
            head.query.truncations + document.truncations,
            head.prefix if self._splits_before_document else self._shared(head, body),
        )

    def _shared(self, head: _Head, body: array[int]) -> tuple[int, ...]:
        """The head, without tokens that BPE merged with the document."""
        if body[: len(head.token_ids)] == head.token_ids:
            return head.prefix
        same = takewhile(lambda pair: pair[0] == pair[1], zip(head.token_ids, body, strict=False))
        return (*self._prefix, *(token_id for token_id, _ in same))


def _fit_head(
    head: _Head, document: CountedText, body: array[int], budget: int
) -> tuple[_Head, CountedText, array[int]]:
    """Truncates a body to the budget on token ids, as the reference does. The body ends with the document."""
    if len(body) <= budget:
        return head, document, body
    document = replace(document, tokens=max(0, document.tokens - (len(body) - budget)))
    return head, document, body[:budget]


def _stripped(request: RerankRequest) -> RerankRequest:
    queries, documents = (tuple(text.strip() for text in texts) for texts in (request.queries, request.documents))
    return replace(request, queries=queries, documents=documents)


def _splits_as_qwen(tokenizer: Tokenizer) -> bool:
    """Whether head and document of a body can be tokenised apart: see QWEN_SPLIT."""
    normalizer, splitter = (json.loads(part.__getstate__()) for part in (tokenizer.normalizer, tokenizer.pre_tokenizer))
    first, *rest = splitter.get("pretokenizers", [{}])
    return (
        normalizer == {"type": "NFC"}
        and first.get("pattern") == {"Regex": QWEN_SPLIT}
        and (first["behavior"], first["invert"]) == ("Isolated", False)
        and [(one["type"], one.get("add_prefix_space"), one.get("use_regex")) for one in rest]
        == [("ByteLevel", False, False)]
    )


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise CheckpointInvalid(f"The tokenizer has no token {token!r}: this is the tokenizer of another model.")
    return int(token_id)
