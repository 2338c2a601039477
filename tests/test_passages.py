"""Passages: cut at sentences, within an exact budget of tokens, in any script."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rerankd.passages import Cutter, sentences

SENTENCES = {
    "en": "Dr. Smith paid 3.5 dollars on Jan. 5. He left at once! Did he return?",
    "zh": "价格是3.5元。他说:“去过。”后来呢?再见!",
    "ja": "猫が好きです。犬も好きですか?はい、とても!",
    "ko": "저는 학교에 갑니다. 날씨가 좋습니까? 네!",
    "ar": "ذهبت إلى السوق. هل تريد خبزا؟ نعم!",
    "hi": "मैं घर जाता हूँ। क्या तुम आओगे? हाँ!",
    "th": "ฉันไปโรงเรียน แล้วกลับบ้าน เขากินข้าวแล้ว",
    "am": "ሰላም ለዓለም። እንዴት ነህ። ደህና ነኝ።",
    "hy": "Բարեւ աշխարհ։ Ինչպես ես։ Լավ։",
    "ru": "Он пришёл в 5 ч. вечера. Что дальше? Ничего.",
}
EXAMPLES = int(os.environ.get("RERANKD_TEST_EXAMPLES", "400"))
"""Texts of the two properties below; 10,000 take some minutes."""

CLUSTERS = ("👩‍👩‍👧‍👦", "🇫🇷🇩🇪", "🏴󠁧󠁢󠁷󠁬󠁳󠁿", "e\u0301\u0323", "각", "\r\n", "👍🏽", "क्षि", "กำ", "☺️")
WORDS = st.sampled_from([*" ".join(SENTENCES.values()).split(), *CLUSTERS])
ENDS = st.sampled_from([" ", ". ", "\n\n", "。", "? ", ", ", "؟ ", "।", "", "\r\n"])
TEXTS = st.one_of(
    st.lists(st.tuples(WORDS, ENDS), max_size=120).map(lambda pairs: "".join(word + end for word, end in pairs)),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
)


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))


@pytest.fixture(scope="session")
def count(tokenizer: Tokenizer) -> Callable[[Sequence[str]], list[int]]:
    return lambda texts: [len(one.ids) for one in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def fitted(cutter: Cutter, text: str, count: Callable[[Sequence[str]], list[int]], most: int) -> list[tuple[int, int]]:
    """The spans, once each has as few tokens as allowed."""
    for _ in range(20):
        spans = cutter.spans
        tokens = count([text[start:end] for start, end in spans])
        if not (over := {place: number for place, number in enumerate(tokens) if number > most}):
            return spans
        cutter.shrink(over)
    raise AssertionError(over)


@given(text=TEXTS, most=st.integers(16, 80), overlap=st.integers(0, 40), full=st.booleans())
@settings(max_examples=EXAMPLES, deadline=None)
def test_passages_cover_any_text_in_order_within_the_budget(
    text: str, most: int, overlap: int, full: bool, count: Callable[[Sequence[str]], list[int]]
) -> None:
    spans = fitted(Cutter(text, count, most, overlap, 1000, full=full), text, count, most)
    assert spans[0][0] == 0 and spans[-1][1] == len(text)
    for (start, end), (following, end_of_it) in pairwise(spans):
        assert start < following <= end < end_of_it, "every character is in a passage, and each adds some"
        assert count([text[following:end]])[0] <= overlap + 2, "a text has up to two tokens more than in its sentence"
    if not overlap:
        assert "".join(text[start:end] for start, end in spans) == text


@given(text=TEXTS, most=st.integers(16, 40))
@settings(max_examples=EXAMPLES // 2, deadline=None)
def test_no_character_is_cut_that_people_see_as_one(
    text: str, most: int, count: Callable[[Sequence[str]], list[int]]
) -> None:
    clusters = {found.end(): found.group() for found in regex.finditer(r"\X", text)}
    if max(count(list(clusters.values())), default=0) > most // 4:
        return  # it has to be cut
    spans = fitted(Cutter(text, count, most), text, count, most)
    assert {end for _, end in spans} <= clusters.keys() | {0}


@pytest.mark.parametrize("language", SENTENCES)
def test_cuts_are_at_the_ends_of_sentences(language: str, count: Callable[[Sequence[str]], list[int]]) -> None:
    paragraph = SENTENCES[language] + ("" if language in ("zh", "ja") else " ")
    text = paragraph * 60
    most = max(count([paragraph])) + 20
    spans = fitted(Cutter(text, count, most, 0, 1000), text, count, most)
    assert len(spans) > 20
    marks = " " if language == "th" else ".!?。！？؟।።։”"
    for _, end in spans[:-1]:
        assert text[:end].rstrip(" " if language != "th" else "")[-1] in marks


@pytest.mark.parametrize(
    "parts",
    [
        ["Rounding modes\n\n", "decimal.ROUND_UP rounds away from zero. ", "See os.Path too.\n", "Done."],
        ["It came in version 3.11.", "Others follow."],
        ["数字。", "这里 decimal.Decimal 是一种类型。", "好。"],
    ],
)
def test_a_full_stop_within_a_name_ends_no_sentence(parts: list[str]) -> None:
    text = "".join(parts)
    assert [text[start:end] for start, end in sentences(text)] == parts


def test_a_text_that_fits_is_one_passage_and_others_are_about_equal(
    count: Callable[[Sequence[str]], list[int]],
) -> None:
    sentence = "The harbour town ships nutmeg and cinnamon in wooden boats. "
    text = sentence * 50
    [tokens] = count([text])
    [of_one] = count([sentence])
    assert Cutter(text, count, tokens).spans == [(0, len(text))]
    for most in (tokens - 1, tokens // 2, 200, 100):
        spans = fitted(Cutter(text, count, most), text, count, most)
        lengths = count([text[start:end] for start, end in spans])
        assert max(lengths) - min(lengths) <= 2 * of_one
        assert len(spans) <= -(-tokens // most) + 1


@pytest.mark.parametrize("most", [64, 128, 256])
def test_full_passages_are_too_long_with_the_next_sentence(
    most: int, count: Callable[[Sequence[str]], list[int]]
) -> None:
    """At least 95 % of them, in nine languages with marks of sentences; the last two passages may be shorter, so that
    none is very short."""
    rng, number, full = random.Random(most), 0, 0
    for language, paragraph in SENTENCES.items():
        if language == "th":
            continue
        some = [paragraph[slice(*span)].strip() for span in sentences(paragraph)]
        text = ("" if language in ("zh", "ja") else " ").join(rng.choices(some, k=12 * most // len(some)))
        spans = fitted(Cutter(text, count, most, 0, 1000, full=True), text, count, most)
        ends = [end for _, end in sentences(text)]
        longer = [text[start : next(one for one in ends if one > end)] for start, end in spans[:-1]]
        number += len(longer)
        full += sum(tokens > most for tokens in count(longer))
        assert len(spans) > 4 and count([text[slice(*spans[-1])]])[0] > most // 8
    assert full >= 0.95 * number


def test_a_text_that_grows_keeps_its_full_passages(count: Callable[[Sequence[str]], list[int]]) -> None:
    text = "".join(f"In the year {year} the harbour town shipped nutmeg. " for year in range(1700, 2000))
    texts = text, text + "Then it fell. " * 9
    before, after = (fitted(Cutter(one, count, 100, 20, 1000, full=True), one, count, 100) for one in texts)
    assert len(before) > 20 and after[: len(before) - 2] == before[:-2]


def test_a_long_sentence_is_cut_at_lines_then_commas_then_spaces(
    count: Callable[[Sequence[str]], list[int]],
) -> None:
    for joint in ("\n", ", ", " "):
        text = "word number" + f"{joint}word number" * 400
        cutter = Cutter(text, count, 64, 0, 1000)
        for _, end in fitted(cutter, text, count, 64)[:-1]:
            assert text[:end].endswith(joint)


def test_what_is_beyond_the_last_passage_is_not_read() -> None:
    read = 0

    def count(texts: Sequence[str]) -> list[int]:
        nonlocal read
        read += sum(map(len, texts))
        return [len(text.split()) for text in texts]

    for text in ("A sentence of six short words. " * 300_000, "word " * 2_000_000):
        read = 0
        spans = Cutter(text, count, 100, 0, 10).spans
        assert len(spans) == 10 and spans[-1][1] < 40_000
        assert read < 300_000, "of nine megabytes"


@pytest.mark.parametrize("unit", ["x", "🎉", "\u0301", " ", "\n", "a b", "。", "\u200d", "🇫", "ﷺ"])
def test_texts_without_an_end_of_a_sentence(unit: str, count: Callable[[Sequence[str]], list[int]]) -> None:
    text = unit * 5_000
    spans = fitted(Cutter(text, count, 50, 0, 10_000), text, count, 50)
    assert "".join(text[start:end] for start, end in spans) == text


@pytest.mark.parametrize(
    "phrase", ["ฉันไปโรงเรียนแล้วกลับบ้าน ", "鉴于对人类家庭所有成员的固有尊严,", "사람은 모두 자유롭고, "]
)
def test_a_long_sentence_ends_at_the_best_place_that_it_has_anywhere(
    phrase: str, count: Callable[[Sequence[str]], list[int]]
) -> None:
    text = phrase * 100
    spans = fitted(Cutter(text, count, 100, 0, 1000), text, count, 100)
    assert len(spans) > 5 and all(text[:end].endswith(phrase) for _, end in spans)
