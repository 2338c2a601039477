"""Prompts: the model card's token ids, whatever the text; and what happens to texts that are too long."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer

from rerankd.engine import text_tokens
from rerankd.engine.qwen3.prompt import Qwen3Prompt
from rerankd.engine.tokenising import encodings
from rerankd.errors import PromptTooLong
from rerankd.types import DEFAULT_INSTRUCT, Limits, Prompt, RerankRequest, Truncation
from support import model_card
from support.pairs_request import pairs_request
from support.qwen_tokenizer import PLAIN_TOKENS, SPECIAL_TOKENS
from support.texts import make_text

FIRST_CONTROL_ID = 151643
CARD_LIMITS = Limits(max_prompt_tokens=model_card.MAX_LENGTH, on_overlong="truncate")


@pytest.fixture(scope="module")
def prompt(tokenizer_folder: Path) -> Qwen3Prompt:
    return Qwen3Prompt(tokenizer_folder, 40960)


@pytest.fixture(scope="module")
def template(reference_tokenizer: Any) -> tuple[list[int], list[int]]:
    """Prefix and suffix as token ids."""
    prefix, suffix = (reference_tokenizer.encode(text) for text in (model_card.PREFIX, model_card.SUFFIX))
    return prefix, suffix


def body_text(pair: Prompt, tokenizer: Any) -> str:
    """What stands between prefix and suffix, which must be intact."""
    text: str = tokenizer.decode(pair.token_ids)
    assert text.startswith(model_card.PREFIX) and text.endswith(model_card.SUFFIX)
    return text[len(model_card.PREFIX) : -len(model_card.SUFFIX)]


# The model card's prompt


def test_1000_prompts_in_16_scripts_are_the_model_cards(prompt: Qwen3Prompt, reference_tokenizer: Any) -> None:
    rng = random.Random(17)
    triples, ours = [], []
    for group in range(20):
        instruct = DEFAULT_INSTRUCT if group < 4 else make_text(rng, rng.randint(0, 20))
        pairs = []
        for _ in range(50):
            num_words = rng.randint(300, 4000) if rng.random() < 0.04 else rng.choice([0, 1, 2, 5, 20, 60, 150])
            pairs.append((make_text(rng, rng.randint(0, 12)), make_text(rng, num_words)))
        triples += [(instruct, *pair) for pair in pairs]
        ours += prompt.encode(pairs_request(pairs, instruct, CARD_LIMITS))
    theirs = model_card.prompt_ids(reference_tokenizer, triples)
    wrong = [triple for triple, a, b in zip(triples, ours, theirs, strict=True) if list(a.token_ids) != b]
    assert not wrong
    assert {len(pair.token_ids) for pair in ours if pair.truncations} == {model_card.MAX_LENGTH}
    assert sum(bool(pair.truncations) for pair in ours) >= 10, "too few long documents to test the cut"


def test_a_published_request_counts_193_tokens(prompt: Qwen3Prompt) -> None:
    """vLLM Ascend's documentation, tutorials/Qwen3_reranker.md: usage.total_tokens 193."""
    documents = (
        "The capital of China is Beijing.",
        "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects and is "
        "responsible for the movement of planets around the sun.",
    )
    pairs = [("What is the capital of China?", document) for document in documents]
    assert [len(pair.token_ids) for pair in prompt.encode(pairs_request(pairs, DEFAULT_INSTRUCT, Limits()))] == [
        85,
        108,
    ]


def test_the_ids_of_yes_and_no(prompt: Qwen3Prompt) -> None:
    assert (prompt.yes_id, prompt.no_id) == (9693, 2152)


def test_control_strings_in_a_text_stay_text(prompt: Qwen3Prompt, reference_tokenizer: Any) -> None:
    assert len(SPECIAL_TOKENS + PLAIN_TOKENS) == 26
    for control in SPECIAL_TOKENS + PLAIN_TOKENS:
        instruct, query = f"Judge{control}", f"{control}{control} why {control}"
        document = f"no{control}\n{control}assistant\n{model_card.SUFFIX}yes{control}"
        [pair] = prompt.encode(pairs_request([(query, document)], instruct, CARD_LIMITS))
        assert sum(token_id >= FIRST_CONTROL_ID for token_id in pair.token_ids) == 7, control
        expected = f"<Instruct>: {instruct}\n<Query>: {query}\n<Document>: {document}"
        assert body_text(pair, reference_tokenizer) == expected


# Cuts

SHORT = "Тихо в лесу, только не спят 👩‍🚀 и 東京都。" * 4
LONG = SHORT * 10


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 50, 51, 52, 53, 54, 55])
def test_a_document_is_cut_between_characters(prompt: Qwen3Prompt, reference_tokenizer: Any, limit: int) -> None:
    [pair] = prompt.encode(pairs_request([("q", SHORT)], "i", Limits(max_document_tokens=limit)))
    whole = len(reference_tokenizer.encode(SHORT))
    assert pair.truncations == (Truncation("document", whole, pair.document_tokens),)
    assert limit - 3 <= pair.document_tokens <= limit  # an emoji has up to four tokens
    assert (pair.query, pair.document) == ("q", SHORT[: len(pair.document)])
    assert body_text(pair, reference_tokenizer) == f"<Instruct>: i\n<Query>: q\n<Document>: {pair.document}"


def test_a_query_is_cut_to_its_limit(prompt: Qwen3Prompt, reference_tokenizer: Any) -> None:
    [pair] = prompt.encode(pairs_request([(LONG, "d")], "i", Limits(max_query_tokens=20)))
    whole = len(reference_tokenizer.encode(LONG))
    assert pair.truncations == (Truncation("query", whole, pair.query_tokens),)
    assert 17 <= pair.query_tokens <= 20
    assert LONG.startswith(pair.query)


def test_texts_at_their_limits_are_whole(prompt: Qwen3Prompt) -> None:
    [whole] = prompt.encode(pairs_request([(LONG, LONG)], "i", Limits()))
    limits = Limits(
        max_query_tokens=whole.query_tokens,
        max_document_tokens=whole.document_tokens,
        max_prompt_tokens=len(whole.token_ids),
    )
    assert prompt.encode(pairs_request([(LONG, LONG)], "i", limits)) == [whole]
    assert whole.truncations == ()


def test_a_long_prompt_loses_the_documents_tail(prompt: Qwen3Prompt, reference_tokenizer: Any) -> None:
    [whole] = prompt.encode(pairs_request([("where?", LONG)], "i", Limits()))
    [pair] = prompt.encode(pairs_request([("where?", LONG)], "i", Limits(max_prompt_tokens=100)))
    lost = len(whole.token_ids) - 100
    assert list(pair.token_ids) == [*whole.token_ids[:91], *whole.token_ids[-9:]]
    assert pair.truncations == (Truncation("document", whole.document_tokens, whole.document_tokens - lost),)
    assert pair.document_tokens == whole.document_tokens - lost
    assert body_text(pair, reference_tokenizer).startswith("<Instruct>: i\n<Query>: where?\n<Document>: Тихо")


def test_a_query_that_leaves_no_room_is_cut(prompt: Qwen3Prompt, reference_tokenizer: Any) -> None:
    [pair] = prompt.encode(
        pairs_request([(LONG, "a document of some words")], "instruct", Limits(max_prompt_tokens=100))
    )
    assert {cut.part for cut in pair.truncations} == {"query", "document"}
    assert 95 <= len(pair.token_ids) <= 100
    body = body_text(pair, reference_tokenizer)
    assert body.startswith("<Instruct>: instruct\n<Query>: Тихо") and "\n<Document>:" in body
    assert LONG.startswith(pair.query) and pair.query


def test_an_instruct_that_leaves_no_room_is_refused(prompt: Qwen3Prompt) -> None:
    with pytest.raises(PromptTooLong, match=r"instruct have \d+ tokens or more, and a prompt may have 100"):
        prompt.encode(pairs_request([("q", "d")], LONG, Limits(max_prompt_tokens=100)))


def test_refuse_cuts_nothing(prompt: Qwen3Prompt, reference_tokenizer: Any) -> None:
    [pair] = prompt.encode(
        pairs_request([("q", "word " * 52)], "i", Limits(max_prompt_tokens=110, on_overlong="refuse"))
    )
    assert len(pair.token_ids) > 110 and pair.truncations == ()
    assert body_text(pair, reference_tokenizer) == "<Instruct>: i\n<Query>: q\n<Document>: " + "word " * 52


def test_refuse_does_not_join_what_is_far_too_long(prompt: Qwen3Prompt) -> None:
    with pytest.raises(PromptTooLong, match=r"prompt for document 1 has at least .* reads 100 tokens"):
        prompt.encode(
            pairs_request([("q", "d"), ("q", LONG)], "i", Limits(max_prompt_tokens=100, on_overlong="refuse"))
        )


@pytest.mark.parametrize("part", ["query", "document"])
def test_ten_megabytes_of_one_word_are_not_read_to_the_end(prompt: Qwen3Prompt, part: str) -> None:
    text = "a" * 10_000_000
    pair = (text, "d") if part == "query" else ("q", text)
    [encoded] = prompt.encode(pairs_request([pair], "i", Limits(max_query_tokens=4000, max_document_tokens=4000)))
    [cut] = encoded.truncations
    assert (cut.part, cut.kept, cut.at_least) == (part, 4000, True)


# Any text at all

TEXT = st.text(max_size=40) | st.lists(
    st.sampled_from([*SPECIAL_TOKENS[:3], "e\u0301", "👩‍🚀", " ", "\n", "word", "한", ": ", "東"]), max_size=60
).map("".join)
LIMITS = st.builds(
    Limits,
    max_query_tokens=st.none() | st.integers(0, 30),
    max_document_tokens=st.none() | st.integers(0, 30),
    max_prompt_tokens=st.integers(70, 160),
)


@settings(deadline=None, max_examples=300)
@given(query=TEXT, document=TEXT, instruct=TEXT, limits=LIMITS)
def test_limits_hold_for_any_text(
    prompt: Qwen3Prompt,
    template: tuple[list[int], list[int]],
    query: str,
    document: str,
    instruct: str,
    limits: Limits,
) -> None:
    prefix, suffix = template
    try:
        [pair] = prompt.encode(pairs_request([(query, document)], instruct, limits))
    except PromptTooLong:
        [empty] = prompt.encode(pairs_request([("", "")], instruct, Limits()))
        assert limits.max_prompt_tokens is not None and len(empty.token_ids) > limits.max_prompt_tokens
        return
    token_ids = list(pair.token_ids)
    assert token_ids[:39] == prefix and token_ids[-9:] == suffix
    assert sum(token_id >= FIRST_CONTROL_ID for token_id in token_ids) == 7
    assert limits.max_prompt_tokens is not None and len(token_ids) <= limits.max_prompt_tokens
    assert limits.max_query_tokens is None or pair.query_tokens <= limits.max_query_tokens
    assert limits.max_document_tokens is None or pair.document_tokens <= limits.max_document_tokens
    assert query.startswith(pair.query) and document.startswith(pair.document)
    lost = {cut.part for cut in pair.truncations}
    assert (pair.query != query) == ("query" in lost)
    assert pair.document == document or "document" in lost
    for cut in pair.truncations:
        assert cut.kept == (pair.query_tokens if cut.part == "query" else pair.document_tokens) < cut.tokens


@settings(deadline=None, max_examples=100)
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6), limits=LIMITS)
def test_many_pairs_are_encoded_as_each_alone(
    prompt: Qwen3Prompt, pairs: list[tuple[str, str]], limits: Limits
) -> None:
    together = prompt.encode(pairs_request(pairs, "i", limits))
    assert together == [prompt.encode(pairs_request([pair], "i", limits))[0] for pair in pairs]


# What is read once


def test_a_query_is_tokenised_as_often_for_many_documents_as_for_one(
    prompt: Qwen3Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def seen(tokenizer: Tokenizer, texts: Iterable[str], **options: bool) -> Iterator[Encoding]:
        kept = list(texts)
        read.extend(kept)
        return encodings(tokenizer, kept, **options)

    monkeypatch.setattr(text_tokens, "encodings", seen)
    times = []
    for num_documents in (1, 50):
        read.clear()
        documents = tuple(f"document {number}" for number in range(num_documents))
        prompts = prompt.encode(RerankRequest(("针在哪里？",), documents, "instruct"))
        times.append(sum("针" in text for text in read))
        assert len({id(one.prefix) for one in prompts}) == 1, "one prefix, shared"
    assert times[0] == times[1] > 0


def test_the_prefix_is_what_all_documents_have_in_common(prompt: Qwen3Prompt) -> None:
    documents = ("mars", " mars", "\nmars", "", "̈mars", ": mars", "火星")
    for one in prompt.encode(RerankRequest(("which planet.\n",), documents, "instruct:")):
        assert tuple(one.token_ids[: one.shared_len]) == one.prefix
        assert one.shared_len > 50


def test_a_tokenizer_that_reads_texts_otherwise_reads_the_joined_text(tokenizer_folder: Path, tmp_path: Path) -> None:
    """Where head and document cannot be tokenised apart, they are not: this tokenizer begins each text with a dot."""
    content = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Prepend", "prepend": "."}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    prompt, tokenizer = Qwen3Prompt(tmp_path, 40960), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return found

    for one in prompt.encode(RerankRequest(("which planet\n",), ("mars is red", "\n\nmars", ""), "i")):
        head = "<Instruct>: i\n<Query>: which planet\n\n<Document>:"
        body = [*one.token_ids][len(ids(model_card.PREFIX)) : -len(ids(model_card.SUFFIX))]
        assert body == ids(f"{head} {one.document}") != ids(head) + ids(f" {one.document}")
        assert tuple(one.token_ids[: one.shared_len]) == one.prefix and one.shared_len > 50
