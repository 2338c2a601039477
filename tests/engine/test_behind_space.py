"""A text behind a space has the tokens that the tokenizer gives the whole; only its beginning is read again."""

from __future__ import annotations

import random
from array import array
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from rerankd.engine import text_tokens
from rerankd.engine.qwen3.prompt import Qwen3Prompt
from rerankd.engine.text_tokens import behind_space
from rerankd.types import Limits, RerankRequest

BEGINNINGS = (
    *(
        "中国的首都是北京。",
        "北京，中國 3 月",
        "「日本」の首都は",
        "한국의 수도는 서울이다.",
        "العاصمة، هي",
        "दिल्ली भारत की",
        "กรุงเทพฯ",
    ),
    *(
        "ção já",
        "'s mine",
        "'ſ",
        "'ll",
        "  two",
        "\n中",
        "\t\t",
        "—dash",
        "…中",
        "12中",
        "3",
        "é́",
        "́̈a",
        "ㅎㅏㄴ",
        "각각",
    ),
    *(
        "が゙",
        "😀😀 中",
        "‍",
        " 中",
        "　中",
        " ",
        "",
        "ﬁ",
        "Ⅷ",
        "中" * 40,
        "中" * 31 + "，",
        " " * 40 + "中",
        "。" * 40 + "\n",
    ),
)

SPACES = " \n\r\t\u3000\xa0\u0301\u3099,.、。'"


def wild_text(chance: random.Random) -> str:
    """Words, spaces, marks and characters of every block, in any order."""
    parts = []
    for _ in range(chance.randrange(1, 12)):
        anything = chr(
            chance.choice([chance.randrange(0x3000), chance.randrange(0xD800), 0x1F300 + chance.randrange(800)])
        )
        parts.append(chance.choice([anything, chance.choice(SPACES), chance.choice(BEGINNINGS)[:6]]))
    return "".join(parts)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    """Without the added tokens, as prompts use it."""
    full = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    plain = Tokenizer(full.model)
    plain.normalizer, plain.pre_tokenizer = full.normalizer, full.pre_tokenizer
    return plain


def ids_of(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [list(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False)]


def check(tokenizer: Tokenizer, texts: list[str]) -> None:
    bare = [array("i", ids) for ids in ids_of(tokenizer, texts)]
    expected = ids_of(tokenizer, [f" {text}" for text in texts])
    for text, found, wanted in zip(texts, behind_space(tokenizer, texts, bare), expected, strict=True):
        assert found.tolist() == wanted, repr(text)


def test_every_beginning_before_every_other(tokenizer: Tokenizer) -> None:
    check(
        tokenizer, [first + second + third for first in BEGINNINGS for second in BEGINNINGS for third in ("", "中文")]
    )


def test_random_texts_of_all_characters(tokenizer: Tokenizer) -> None:
    chance = random.Random(7)
    check(tokenizer, [wild_text(chance) for _ in range(5000)])


@pytest.mark.parametrize("head_chars", [1, 2, 5])
def test_a_beginning_of_any_length_will_do(
    head_chars: int, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_tokens, "HEAD_CHARS", head_chars)
    chance = random.Random(head_chars)
    check(tokenizer, [*BEGINNINGS, *(wild_text(chance) for _ in range(1000))])


def test_prompts_of_long_and_short_texts_are_those_of_the_joined_text(tokenizer_folder: Path) -> None:
    prompts = Qwen3Prompt(tokenizer_folder, 2048)
    chance = random.Random(9)
    documents = [*BEGINNINGS, *(first * 300 for first in BEGINNINGS[:8]), *(wild_text(chance) for _ in range(200))]
    for limit in (None, 40):
        request = RerankRequest(("哪里?",), tuple(documents), limits=Limits(max_document_tokens=limit))
        for document, prompt in zip(documents, prompts.encode(request), strict=True):
            body = list(prompt.token_ids[prompt.shared_len : len(prompt.token_ids) - 9])
            assert prompt.truncations or prompt.document == document
            assert body == prompts.tokenize(f" {prompt.document}")[: len(body)]
            assert limit is None or prompt.document_tokens == len(prompts.tokenize(prompt.document)) <= limit
