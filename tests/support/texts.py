"""Texts in 16 scripts, with noise."""

from __future__ import annotations

import random
import unicodedata

# script: (words, what stands between them, code points to draw noise from)
SCRIPTS: dict[str, tuple[str, str, range]] = {
    "Latin": ("The quick brown fox doesn't naïvely über-jump façade Ænima żółć 2024's I'll", " ", range(0x20, 0x180)),
    "Cyrillic": ("Съешь же ещё этих мягких французских булок, да выпей чаю её", " ", range(0x400, 0x500)),
    "Greek": ("Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία ᾅδης καί λόγος", " ", range(0x370, 0x400)),
    "Arabic": ("نص حكيم له سر قاطع وذو شأن عظيم مُحَمَّد", " ", range(0x600, 0x700)),
    "Hebrew": ("דג סקרן שט בים מאוכזב ולפתע מצא שָׁלוֹם", " ", range(0x591, 0x5F5)),
    "Devanagari": ("ऋषियों को सताने वाले दुष्ट राक्षसों के राजा क़लम", " ", range(0x900, 0x980)),
    "Thai": ("เป็นมนุษย์ สุดประเสริฐ เลิศคุณค่า กว่าบรรดา ฝูงสัตว์ น้ำ", "", range(0xE01, 0xE5C)),
    "Han": ("天地玄黄 宇宙洪荒 日月盈昃 辰宿列张 寒来暑往 秋收冬藏 機器學習", "", range(0x4E00, 0x9FA6)),
    "Kana": ("いろはにほへと ちりぬるを ワカヨタレソ ツネナラム ガギグ ﾊﾝｶｸ", "", range(0x3041, 0x3100)),
    "Hangul": ("다람쥐 헌 쳇바퀴에 타고파 키스의 고유조건은 한국어", " ", range(0xAC00, 0xD7A4)),
    "Tamil": ("யாமறிந்த மொழிகளிலே தமிழ்மொழி போல் இனிதாவது எங்கும் காணோம் கொ", " ", range(0xB80, 0xC00)),
    "emoji": ("🙂 👩‍👩‍👧‍👦 🇯🇵 👍🏽 ❤️ 🏴‍☠️ 1️⃣ 🧑🏿‍🚀", "", range(0x1F300, 0x1F700)),
    "code": (
        "def f(x): return x**2 if(a!=b){i++;} </div> \t\tself._q[0] http://a.b/c?d=e&f=%20 0x1F 3.14",
        "\n    ",
        range(0x21, 0x7F),
    ),
    "digits": ("2024-01-31 1,000,000.00 ٣٤٥ ３４５ Ⅻ ½ 10⁻³ +49(0)30", " ", range(0x30, 0x3A)),
    "whitespace": ("a \n \r\n \t \u3000 \u00a0 \u2028 \u200b \v\f \n\n\n .", "  \n", range(0x2000, 0x2010)),
    "combining": (
        "e\u0301 a\u0308\u0304 q\u0307\u0323 \u1112\u1161\u11ab \u212b \u0958 \ufb1d s\u0323\u0307",
        "",
        range(0x300, 0x370),
    ),
}


def make_text(rng: random.Random, num_words: int) -> str:
    """Words of one script (or of several), some decomposed, with noise between them."""
    scripts = rng.sample(sorted(SCRIPTS), 3 if rng.random() < 0.2 else 1)
    parts = []
    for _ in range(num_words):
        words, separator, noise = SCRIPTS[rng.choice(scripts)]
        word = rng.choice(words.split(" "))
        if rng.random() < 0.05:
            word = unicodedata.normalize(rng.choice(["NFD", "NFKC"]), word)
        if rng.random() < 0.05:
            word += "".join(chr(rng.choice(noise)) for _ in range(rng.randint(1, 4)))
        if rng.random() < 0.1:
            word += rng.choice([".", "?\n", "!", ":", "\n\n", "。\n", " \n ", "...", "\t", "  "])
        parts.append(word + separator)
    text = "".join(parts)
    return text if rng.random() < 0.1 else text.strip()
