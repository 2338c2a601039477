"""One path to tokens: bounded before it starts, in pieces, and nobody takes it from others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rerankd.engine import text_tokens, tokenising
from rerankd.engine.qwen3.prompt import FAR_OVER, MAX_CALL_TOKENS, Qwen3Prompt
from rerankd.engine.text_tokens import MAX_TOKEN_CHARS, READ_AT_LEAST, USUAL_TOKEN_CHARS, TextCounter
from rerankd.engine.tokenising import PIECE_CHARS, PIECE_TEXTS, Line, encodings
from rerankd.errors import InvalidRequest, PromptTooLong, TooManyTokens
from rerankd.types import Limits
from support.pairs_request import pairs_request

MB = 1_000_000


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def prompt(tokenizer_folder: Path) -> Qwen3Prompt:
    return Qwen3Prompt(tokenizer_folder, max_tokens=40_960)


class Read:
    """What was given to the tokenizer: characters of each piece."""

    def __init__(self) -> None:
        self.pieces: list[int] = []

    @property
    def chars(self) -> int:
        return sum(self.pieces)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    read = Read()
    encoded = tokenising._encoded

    def recorded(tokenizer: Tokenizer, piece: list[str], offsets: bool) -> list[Any]:
        read.pieces.append(sum(map(len, piece)))
        return encoded(tokenizer, piece, offsets)

    monkeypatch.setattr(tokenising, "_encoded", recorded)
    return read


def digits(count: int) -> str:
    return "1234567890" * (count // 10)


# Pieces


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["", "a b", "x " * 20_000, "y " * 40_000]), max_size=200))
def test_pieces_are_bounded_and_hold_every_text_in_order(texts: list[str]) -> None:
    pieces = list(tokenising._pieces(texts))
    assert [text for piece in pieces for text in piece] == texts
    for piece in pieces:
        assert len(piece) <= PIECE_TEXTS
        assert sum(map(len, piece)) <= PIECE_CHARS or len(piece) == 1


def test_texts_are_asked_for_when_their_piece_is_due(tokenizer: Tokenizer) -> None:
    asked = []

    def texts() -> Iterator[str]:
        for index in range(1000):
            asked.append(index)
            yield "a few words"

    next(encodings(tokenizer, texts()))
    assert len(asked) <= PIECE_TEXTS + 1


def test_the_line_is_served_in_the_order_of_asking() -> None:
    line, order, threads = Line(), [], []

    def work(name: int) -> None:
        with line:
            order.append(name)

    with line:
        for name in range(8):
            threads.append(threading.Thread(target=work, args=(name,)))
            threads[-1].start()
            while len(line._waiting) < name + 2:
                pass
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == list(range(8))


def test_who_is_interrupted_in_the_line_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with line:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(line._changed, "wait_for", interrupted)
            with line:
                raise AssertionError("it was not its turn")
    with line:
        pass


# How much is read


KINDS = ("word ", "1", "é", "重排序", "👩‍🚀", "ab1 ")
RUNS = ("            ", "-" * 40)
"""Of these, a part has other tokens than the whole has there: the pieces of a run are found from its end."""


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from(KINDS + RUNS), st.integers(1, 3000)), min_size=1, max_size=3),
    limit=st.integers(1, 400),
    side=st.sampled_from(["left", "right"]),
)
def test_what_is_left_of_a_text_is_its_end_and_within_the_limit(
    tokenizer: Tokenizer, parts: list[tuple[str, int]], limit: int, side: Any
) -> None:
    text = "".join(part * count for part, count in parts)
    counter = TextCounter(tokenizer)
    ours = counter.truncate_all("document", [text], limit, 8192, side)[text]
    assert text.startswith(ours.text) if side == "right" else text.endswith(ours.text)
    assert ours.tokens == counter.count(ours.text) <= limit
    assert ours.text == text or ours.truncations


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 3000)), min_size=1, max_size=3),
    limit=st.integers(1, 400),
    side=st.sampled_from(["left", "right"]),
)
def test_a_text_is_cut_as_if_it_had_been_read_whole(
    tokenizer: Tokenizer, parts: list[tuple[str, int]], limit: int, side: Any
) -> None:
    text = "".join(part * count for part, count in parts)
    counter = TextCounter(tokenizer)
    ours = counter.truncate_all("document", [text], limit, 8192, side)[text]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_tokens, "USUAL_TOKEN_CHARS", 10**6)
        whole = counter.truncate_all("document", [text], limit, 8192, side)[text]
    assert (ours.text, ours.tokens) == (whole.text, whole.tokens)
    assert ours.original_tokens == whole.original_tokens or ours.at_least


@pytest.mark.parametrize("limit", [None, 4000, 10**9])
def test_a_long_text_is_read_as_far_as_its_tokens_count(prompt: Qwen3Prompt, read: Read, limit: int | None) -> None:
    limits = Limits(max_document_tokens=limit, max_prompt_tokens=8192)
    [pair] = prompt.encode(pairs_request([("q", digits(4 * MB))], "i", limits))
    assert len(pair.token_ids) <= 8192 and pair.truncations[0].at_least
    assert read.chars <= 4 * 8192 * USUAL_TOKEN_CHARS


def test_a_text_of_long_tokens_is_read_further(prompt: Qwen3Prompt, read: Read) -> None:
    dashes = " " * 100_000
    [pair] = prompt.encode(pairs_request([("q", dashes)], "i", Limits(max_document_tokens=500)))
    assert pair.document_tokens == 500
    assert max(read.pieces) <= 501 * MAX_TOKEN_CHARS


@pytest.mark.parametrize("size", [READ_AT_LEAST * 10, 2 * MB])
def test_what_cannot_fit_is_refused_before_the_rest_is_read(prompt: Qwen3Prompt, read: Read, size: int) -> None:
    limits = Limits(max_prompt_tokens=1024, on_overlong="refuse")
    documents = [f"{index} {digits(size)}" for index in range(50)]
    with pytest.raises(PromptTooLong, match="document 0"):
        prompt.encode(pairs_request([("q", document) for document in documents], "i", limits))
    assert read.chars <= 4 * PIECE_CHARS
    if size == 2 * MB:
        assert read.chars <= READ_AT_LEAST, "its characters alone say so"


def test_a_call_far_over_its_tokens_is_not_counted_to_its_end(prompt: Qwen3Prompt, read: Read) -> None:
    limits = Limits(max_document_tokens=4000, max_total_tokens=10_000)
    documents = [f"{index} {digits(40_000)}" for index in range(100)]
    with pytest.raises(TooManyTokens) as caught:
        prompt.encode(pairs_request([("q", document) for document in documents], "i", limits))
    assert caught.value.total > FAR_OVER * 10_000
    assert read.chars < 0.5 * sum(map(len, documents))


def test_a_call_a_little_over_its_tokens_is_told_its_exact_number(prompt: Qwen3Prompt, read: Read) -> None:
    documents = [f"{number:04}" * 5 for number in range(100)]
    with pytest.raises(TooManyTokens) as caught:
        prompt.encode(pairs_request([("q", document) for document in documents], "i", Limits(max_total_tokens=2000)))
    assert caught.value.total == 2100
    assert read.chars < 2 * sum(map(len, documents)), "no prompt was made"


def test_a_small_body_cannot_ask_for_more_prompts_than_fit_into_memory(prompt: Qwen3Prompt, read: Read) -> None:
    pairs = [(digits(8000), str(number)) for number in range(10_000)]
    with pytest.raises(InvalidRequest, match=f"limit is {MAX_CALL_TOKENS}.*several requests"):
        prompt.encode(pairs_request(pairs, "i", Limits()))
    assert read.chars < 200_000


# The instruct


def test_an_instruct_over_its_limit_is_refused_with_the_way_out(prompt: Qwen3Prompt, read: Read) -> None:
    limits = Limits(max_instruct_tokens=100)
    assert prompt.encode(pairs_request([("q", "d")], digits(100), limits))
    with pytest.raises(PromptTooLong, match=r"instruct has 110 tokens; at most 100 .* Shorten the instruct") as caught:
        prompt.encode(pairs_request([("q", "d")], digits(110), limits))
    assert caught.value.part == "instruct"
    read.pieces.clear()
    with pytest.raises(PromptTooLong, match=r"at least [0-9]+ tokens; at most 100"):
        prompt.encode(pairs_request([("q", "d")], digits(MB), limits))
    assert read.chars <= 101 * MAX_TOKEN_CHARS


def test_without_a_limit_the_instruct_may_fill_the_prompt(prompt: Qwen3Prompt) -> None:
    [pair] = prompt.encode(pairs_request([("q", "d")], digits(20_000), Limits()))
    assert len(pair.token_ids) > 20_000
