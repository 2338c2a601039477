"""Search tokens of many scripts, and the parts of files."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankd.files.lines import Line
from rerankd.search.parts import PART_CHARS, Part, parts_of
from rerankd.search.tokens import tokens_of


def parts(text: str, *headings: str) -> list[Part]:
    """The parts of a text, of which these lines are headings: `# one`, `## below it`."""
    lines = (Line(number, line, line in headings and line.find(" ")) for number, line in enumerate(text.split("\n"), 1))
    return list(parts_of(lines))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("How are keys rotated?", ["how", "are", "keys", "rotated"]),
        ("Straße, ＡＢＣ １２ ﬁne", ["strasse", "abc", "12", "fine"]),
        ("don't snake_case x86-64", ["don", "t", "snake", "case", "x86", "64"]),
        ("北京是中国的首都。", ["北京", "京是", "是中", "中国", "国的", "的首", "首都"]),
        ("東", ["東"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("한국어 문장", ["한국", "국어", "문장"]),
        ("مُحَمَّد كـــتاب", ["محمد", "كتاب"]),
        ("ที่นี่ไทย", ["ที่นี่", "นี่ไ", "ไท", "ทย"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("GPT模型v2", ["gpt", "模型", "v2"]),
        ("Ελλάδα Россия", ["ελλάδα", "россия"]),
        ("👍🏽 — …", []),
        ("x" * 81 + " short", ["short"]),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokens_of(text) == tokens


@given(st.text())
def test_tokens_hold_no_white_space_and_do_not_depend_on_case_or_form(text: str) -> None:
    found = tokens_of(text)
    assert all(token and not any(character.isspace() for character in token) for token in found)
    assert tokens_of(unicodedata.normalize("NFD", text)) == tokens_of(unicodedata.normalize("NFC", text)) == found


@given(st.text(alphabet="ab \n", max_size=6000))
def test_parts_hold_every_word_with_its_lines(text: str) -> None:
    made, lines = parts(text), text.split("\n")
    assert "".join("".join(part.text.split()) for part in made) == "".join(text.split())
    assert all(part.text.strip() and len(part.text) <= PART_CHARS + 1 for part in made)
    for part in made:
        assert 1 <= part.first <= part.last <= len(lines)
        if max(map(len, lines)) <= PART_CHARS:
            assert part.text.split() == "\n".join(lines[part.first - 1 : part.last]).split()


def test_a_part_ends_at_an_empty_line_where_one_is_near() -> None:
    paragraph = "\n".join(["word " * 15] * 10)
    made = parts(f"{paragraph}\n\n{paragraph}\n")
    assert [(part.first, part.last) for part in made] == [(1, 10), (12, 21)]


def test_a_heading_begins_a_part_and_stands_above_those_that_follow() -> None:
    paragraph = "\n".join(["word " * 15] * 10)
    text = f"# Keys\n{paragraph}\n\n## Rotation\n{paragraph}\n\n{paragraph}\n# Bills\n{paragraph}"
    made = parts(text, "# Keys", "## Rotation", "# Bills")
    assert [part.heading for part in made] == ["", "Keys", "Keys > Rotation", ""]
    assert [part.text.split("\n")[0] for part in made][1::2] == ["## Rotation", "# Bills"]


def test_a_short_section_stays_with_the_next_one() -> None:
    assert len(parts("# Keys\nshort\n# Bills\nshort", "# Keys", "# Bills")) == 1
