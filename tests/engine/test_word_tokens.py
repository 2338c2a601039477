"""Words from memory have the tokens that the tokenizer gives the whole text."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from rerankd.engine import text_tokens
from rerankd.engine.qwen3.prompt import Qwen3Prompt
from rerankd.engine.text_tokens import SPLIT, WordTokens
from rerankd.types import Limits, RerankRequest

ALPHABET = [chr(code) for code in range(0x2030) if WordTokens.reads(chr(code))] + ["€"]
COMMON = " 's 't'S'LL'lL'Re'vE'm'D\n\r\t  ab cd 12,.!?"

Ids = Callable[[str], list[int]]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    """Without the added tokens, as prompts use it."""
    full = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    plain = Tokenizer(full.model)
    plain.normalizer, plain.pre_tokenizer = full.normalizer, full.pre_tokenizer
    return plain


@pytest.fixture(scope="module")
def expected(tokenizer: Tokenizer) -> Ids:
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def random_text(chance: random.Random) -> str:
    return "".join(chance.choice(ALPHABET if chance.random() < 0.4 else COMMON) for _ in range(chance.randrange(1, 40)))


def test_random_texts_of_every_character_it_reads(tokenizer: Tokenizer, expected: Ids) -> None:
    words, chance = WordTokens(tokenizer), random.Random(3)
    for _ in range(5000):
        text = random_text(chance)
        assert "".join(SPLIT.findall(text)) == text
        assert words.ids(text).tolist() == expected(text), repr(text)


def test_every_character_beside_every_kind(tokenizer: Tokenizer, expected: Ids) -> None:
    words = WordTokens(tokenizer)
    for one in ALPHABET:
        for text in (
            one,
            f"a{one}",
            f"{one}a",
            f" {one}",
            f"{one} ",
            f"1{one}1",
            f"'{one}",
            f"\n{one}\n",
            f"  {one}'s",
        ):
            assert words.ids(text).tolist() == expected(text), repr(text)


@pytest.mark.parametrize("text", ["日本", "e\u0301", "'ſ", "\u2000", "\u2028", "Ω", "😀", "a" * 16_385])
def test_other_texts_are_left_to_the_tokenizer(text: str) -> None:
    assert not WordTokens.reads(text)


def test_words_are_forgotten_before_they_are_too_many(
    tokenizer: Tokenizer, expected: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_tokens, "MAX_WORDS", 50)
    words, chance = WordTokens(tokenizer), random.Random(5)
    for _ in range(300):
        text = " ".join(f"word{chance.randrange(1000)}" for _ in range(5)) + " " + "x" * 40
        assert words.ids(text).tolist() == expected(text)
        assert len(words._known) <= 50 and all(len(word) <= 32 for word in words._known)


def test_threads_share_what_they_know(tokenizer: Tokenizer, expected: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_tokens, "MAX_WORDS", 100)
    words = WordTokens(tokenizer)

    def read(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(200):
            text = random_text(chance)
            assert words.ids(text).tolist() == expected(text)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))


def test_prompts_of_mixed_scripts_keep_their_order_and_limits(tokenizer_folder: Path) -> None:
    """A call in which some documents are read by words and others are not, and some are too long."""
    prompts = Qwen3Prompt(tokenizer_folder, 8192)
    documents = ["plain words", "一些中文", "one " * 300, "", "naïve café – “quoted”", "中文" * 300, "x" * 20_000]
    limits = Limits(max_document_tokens=100)
    together = prompts.encode(RerankRequest(("which?",), tuple(documents), limits=limits))
    for document, prompt in zip(documents, together, strict=True):
        [alone] = prompts.encode(RerankRequest(("which?",), (document,), limits=limits))
        assert alone == prompt
        assert list(prompt.token_ids[prompt.shared_len : -9]) == prompts.tokenize(f" {prompt.document}")
        assert prompt.document_tokens <= 100 and document.startswith(prompt.document)
        assert bool(prompt.truncations) == (len(document) > 500)
