"""A ranking on standard output: a table for people, or TSV, CSV, JSON and JSONL for programs. Scores nothing."""

from __future__ import annotations

import csv
import json
import re
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from rerankd.apis.explained import explained
from rerankd.cli.console import OutputConsole, can_print, output_console, printable
from rerankd.cli.records import SourcedDocument
from rerankd.types import Explanation, Passage

Output = Literal["table", "tsv", "csv", "json", "jsonl"]
OUTPUTS: tuple[Output, ...] = get_args(Output)

COUNTS = ("prompt_tokens", "query_tokens", "document_tokens")
"""The counts of an explanation that are printed."""

GAP = 2
BAR_WIDTHS = (16, 8, 0)
"""Tried in this order: the bar shrinks first."""
MAX_SOURCE_WIDTH = 40
LEAST_SOURCE_WIDTH = 4
LEAD_SHARE = 4
"""The text before the mark has one of this many columns of a document."""
FIT_DOCUMENT_WIDTH = 30
"""Columns that the document needs before a bar is shown."""

EIGHTHS = " ▏▎▍▌▋▊▉"
BREAKS = re.compile(r"[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
DIRECTIONS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
"""Characters that change the direction of the text after them, our columns included."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One result.

    Attributes:
        explanation: how the score came about, if it was asked for and is known.
        passages: the best first, if the document was split.
        mark: where in the text its best sentence is; a table shows the text around it.
    """

    place: int
    index: int
    score: float
    logit: float | None
    document: SourcedDocument
    explanation: Explanation | None = None
    passages: Sequence[Passage] = ()
    mark: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """The scored text: the best passage, or the document."""
        text = self.document.text
        return text[self.passages[0].start : self.passages[0].end] if self.passages else text


@dataclass(frozen=True, slots=True)
class Ranking:
    """Results, best first.

    Attributes:
        model: the name of the model that scored them.
    """

    results: Sequence[Ranked]
    model: str
    warnings: Sequence[str] = field(default_factory=tuple)


class Widths(NamedTuple):
    """Columns of the terminal for each part of a line; 0 leaves it out."""

    place: int
    score: int
    bar: int
    source: int
    document: int


def write(ranking: Ranking, output: Output) -> None:
    """Prints a ranking."""
    _WRITERS[output](ranking)


def widths(columns: int, place: int, score: int, source: int) -> Widths:
    """Divides a line between its columns.

    The document gets the remaining columns; if they are few, first the bar is dropped, then the source is shortened.

    Args:
        place: columns of the longest rank.
        score: columns of the longest score.
        source: columns of the longest source.
    """
    room = columns - place - score - 3 * GAP
    source = min(source, MAX_SOURCE_WIDTH)
    bar = next(bar for bar in BAR_WIDTHS if not bar or room - source - bar - GAP >= FIT_DOCUMENT_WIDTH)
    source = max(min(source, room // 2), min(source, LEAST_SOURCE_WIDTH))
    return Widths(place, score, bar, source, max(1, room - source - (bar + GAP if bar else 0)))


def _table(ranking: Ranking) -> None:
    console = output_console()
    results = ranking.results
    scores = [f"{result.score:.4f}" for result in results]
    sources = [_shown(result.document.source) for result in results]
    shares = widths(
        console.width,
        len(str(len(results))),
        max(map(len, [*scores, "score"])),
        max(map(cell_len, [*sources, "source"])),
    )
    _print(console, _line(shares, Text("#"), Text("score"), Text(), Text("source"), Text("document")), "bold")
    for result, score, source in zip(results, scores, sources, strict=True):
        bar = Text(_bar(result.score, shares.bar), style="green" if result.score >= 0.5 else "yellow")
        place = Text(str(result.place), style="dim")
        document = _document(result, shares.document)
        _print(console, _line(shares, place, Text(score), bar, Text(cut_left(source, shares.source), "cyan"), document))
        for line in _explained(result, console.width - shares.place - GAP):
            _print(console, Text(" " * (shares.place + GAP) + line), "dim")
    caption = f"scored by {_shown(ranking.model)}{_prompt_and_dtype(results)}"
    _print(console, Text("\n".join(textwrap.wrap(caption, console.width))), "italic dim")


def _document(result: Ranked, width: int) -> Text:
    if result.mark is not None:
        return around(result.text, result.mark, width)
    return Text(cut_right(_shown(result.text[: 8 * width]), width))


def around(text: str, mark: tuple[int, int], width: int) -> Text:
    """The text around its marked part, which is bold, in at most `width` columns."""
    start, end = mark
    most = 8 * width
    before, best, after = (_shown(one) for one in (text[:start][-most:], text[start:end], text[end:][:most]))
    lead = max(0, min(width // LEAD_SHARE, width - cell_len(best) - GAP))
    before = before if cell_len(f"{before} {best}") <= width else cut_left(before, lead)
    gaps = [" " if cut and text[at - 1 : at].isspace() else "" for cut, at in ((before, start), (best, end))]
    whole = Text.assemble(before, gaps[0], (best, "bold"), gaps[1], after)
    if cell_len(whole.plain) <= width:
        return whole
    ellipsis = _ellipsis(width)
    shown = whole[: len(cut_right(whole.plain, width)) - len(ellipsis)]
    shown.rstrip()
    return shown.append(ellipsis)


def _print(console: OutputConsole, line: Text, style: str = "") -> None:
    line.rstrip()
    console.print(line, style=style, soft_wrap=True)


def _line(shares: Widths, place: Text, score: Text, bar: Text, source: Text, document: Text) -> Text:
    gap = Text(" " * GAP)
    parts = [_padded(place, shares.place, right=True), _padded(score, shares.score, right=True)]
    if shares.bar:
        parts.append(_padded(bar, shares.bar))
    return gap.join([*parts, _padded(source, shares.source), document])


def _padded(text: Text, width: int, right: bool = False) -> Text:
    """Rich counts the columns of wide characters, str.ljust does not."""
    padding = " " * max(0, width - cell_len(text.plain))
    return Text(padding) + text if right else text + Text(padding)


def cut_right(text: str, width: int) -> str:
    """The beginning of a text that fits into the columns."""
    if cell_len(text) <= width:
        return text
    ellipsis = _ellipsis(width)
    return set_cell_size(text, width - len(ellipsis)).rstrip() + ellipsis


def cut_left(text: str, width: int) -> str:
    """The end of a text: of a path, the file's name and the line."""
    if cell_len(text) <= width:
        return text
    ellipsis = _ellipsis(width)
    rest = text[-width:]
    while rest and (cell_len(rest) > width - len(ellipsis) or unicodedata.combining(rest[0])):
        rest = rest[1:]
    return ellipsis + rest


def _ellipsis(width: int) -> str:
    return "…" if can_print("…") else "..."[: width // 3]


def _shown(text: str) -> str:
    """In one line, and without what would move the cursor or turn the direction of writing."""
    line = " ".join(text.translate(DIRECTIONS).split())
    return printable("".join("\ufffd" if unicodedata.category(char) == "Cc" else char for char in line))


def _bar(score: float, width: int) -> str:
    eighths = round(min(max(score, 0), 1) * width * 8)  # other servers' scores may be outside [0, 1]
    if not can_print("█" + EIGHTHS):
        return "#" * round(eighths / 8)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def _explained(result: Ranked, width: int) -> list[str]:
    if not result.explanation:
        return []
    of = result.explanation
    tokens = (f"{getattr(of, name):,} {name.replace('_', ' ')}" for name in COUNTS)
    line = ", ".join([f"logit {of.logit:.3f}", *tokens, *([f"cut: {_cuts(of)}"] if of.truncations else [])])
    return textwrap.wrap(printable(line), max(width, 10))


def _cuts(explanation: Explanation) -> str:
    arrow = "→" if can_print("→") else "to"
    return ", ".join(f"{one.part} {one.tokens} {arrow} {one.kept}" for one in explanation.truncations)


def _prompt_and_dtype(results: Sequence[Ranked]) -> str:
    first = next((result.explanation for result in results if result.explanation), None)
    if first is None:
        return ""
    prompt = "" if first.prompt_id == "none" else f", prompt {first.prompt_id}"
    return f"{prompt}, {first.dtype}"


def _tsv(ranking: Ranking) -> None:
    """No header, like grep; tabs and line breaks in a text become spaces."""
    for cells in _cells(ranking):
        print("\t".join(BREAKS.sub(" ", cell).strip() for cell in cells))


def _csv(ranking: Ranking) -> None:
    more = ("logit", *COUNTS, "cuts") if any(result.explanation for result in ranking.results) else ()
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["rank", "score", "source", "document", *more])
    rows.writerows(_cells(ranking))


def _cells(ranking: Ranking) -> Iterator[list[str]]:
    for result in ranking.results:
        of = result.explanation
        more = [str(of.logit), *(str(getattr(of, name)) for name in COUNTS), _cuts(of)] if of else []
        yield [str(result.place), f"{result.score:.6f}", result.document.source, result.text, *more]


def _json(ranking: Ranking) -> None:
    results = [_as_json(result) for result in ranking.results]
    _print_json({"model": ranking.model, "results": results, "warnings": list(ranking.warnings)}, indent=2)


def _jsonl(ranking: Ranking) -> None:
    for result in ranking.results:
        _print_json(_as_json(result))


def _print_json(value: object, indent: int | None = None) -> None:
    """Escaped where the encoding lacks a character: JSON has escapes of its own."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    print(text if can_print(text) else json.dumps(value, indent=indent))


def _as_json(result: Ranked) -> dict[str, object]:
    record = dict(result.document.record)
    return {
        "index": result.index,
        **({"id": record.pop("id")} if "id" in record else {}),
        "score": result.score,
        "logit": result.logit,
        "source": result.document.source,
        "document": result.document.text,
        **({"passages": [passage.to_dict() for passage in result.passages]} if result.passages else {}),
        **({"fields": record} if record else {}),
        **({"explain": explained(result.explanation)} if result.explanation else {}),
    }


_WRITERS: Mapping[Output, Callable[[Ranking], None]] = {
    "table": _table,
    "tsv": _tsv,
    "csv": _csv,
    "json": _json,
    "jsonl": _jsonl,
}
