"""`rerankd rank QUERY [FILE|DIR|- …]`: reads documents, has them scored, prints the ranking."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter, Token, UnknownOptionError

from rerankd.cli import ranked
from rerankd.cli.cuts import in_words
from rerankd.cli.documents import Reading, read_documents
from rerankd.cli.options import COUNT, FLAG, NONE_GIVEN, NUMBER, Given, command, converter, settings_from, takes
from rerankd.cli.passage_options import WHOLE, PassageOptions
from rerankd.cli.records import FIELDS, Format, SourcedDocument
from rerankd.cli.scoring import LOCAL, Outcome, RemoteOptions, Task, ask, score
from rerankd.config import RankSettings
from rerankd.errors import SettingsError
from rerankd.files.folders import Selection

UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}

app = command("rank")


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError(f"{text!r} is not a size such as 500K or 2M")
    return int(float(found[1]) * UNITS[found[2].upper()])


PATTERNS = Parameter(metavar="PATTERN", show_default=False)
SIZE = Parameter(metavar="SIZE", converter=converter(_size), show_default="1M")
FIELD = Parameter(
    metavar="NAME",
    help="field or column that holds the text, outer.inner for a nested one "
    f"(default: the first of {', '.join(FIELDS)})",
)
OUTPUT_HELP = "default: a table on a terminal; in a pipe tsv, which cuts nothing: rank, score, source, document"
if TYPE_CHECKING:
    Source = str
else:
    Source = Path  # for the completion of file names; the converter keeps the typed text

SOURCES = Parameter(
    name="FILE|DIR|-",
    converter=converter(str),
    allow_leading_hyphen=True,
    help="the documents: each line of a file or of stdin (-); each record of a JSONL, JSON, CSV or TSV file; each text "
    "file of a folder. Without one: stdin. gzip is unpacked",
)


@Parameter(name="*", group=Group("Documents", sort_key=1))
@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How the documents are read.

    Attributes:
        format: format of all sources; without it, the suffix decides, else lines; JSON is recognized
        whole: read each file as one document, like --format whole
        include: in folders, only such files: '*.md', 'docs/**'; repeatable
        exclude: in folders, no such files; repeatable
        no_ignore: in folders, also read what .gitignore names, and node_modules, dist, minified and lock files
        max_filesize: in folders, skip larger files: 500K, 2M
    """

    format: Format | None = None
    field: Annotated[str | None, FIELD] = None
    whole: Annotated[bool, FLAG] = False
    include: Annotated[tuple[str, ...], PATTERNS] = ()
    exclude: Annotated[tuple[str, ...], PATTERNS] = ()
    no_ignore: Annotated[bool, FLAG] = False
    max_filesize: Annotated[int, SIZE] = 1_000_000

    def reading(self) -> Reading:
        selection = Selection(self.include, self.exclude, self.max_filesize, not self.no_ignore)
        return Reading("whole" if self.whole else self.format, self.field, selection)


@Parameter(name="*", group=Group("Ranking and output", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class RankingOptions:
    """What is ranked, and how the result is printed.

    Attributes:
        top_n: results to show, 0 for all
        instruct: the task that the model sorts for (default: web search; with --url, the server's)
        min_score: leave out the results with a lower score; 'keep' or 'relevant' with --calibration
        calibration: print probabilities by this file of 'rerankd calibrate'; with --url, by the server's of this name
        as_json: the same as --output json
        deadline: answer within this time; documents without a score by then come last
        explain: show logit, tokens and truncations of each result; local models only
        prompt: print the exact prompt of one document, counted from 0, and exit
    """

    top_n: Annotated[int, NUMBER] = 10
    instruct: Annotated[str | None, Parameter(metavar="TEXT")] = None
    min_score: Annotated[str | None, Parameter(metavar="SCORE")] = None
    calibration: Annotated[str | None, Parameter(metavar="FILE")] = None
    output: Annotated[ranked.Output | None, Parameter(help=OUTPUT_HELP)] = None
    as_json: Annotated[bool, FLAG, Parameter("--json")] = False
    deadline: Annotated[int | None, COUNT, Parameter(metavar="MS")] = None
    explain: Annotated[bool, FLAG] = False
    prompt: Annotated[int | None, NUMBER, Parameter(metavar="INDEX")] = None

    @property
    def deadline_s(self) -> float | None:
        """Seconds."""
        return None if self.deadline is None else self.deadline / 1000


READ = ReadingOptions()
PRINT = RankingOptions()


@app.default
@takes(RankSettings)
def rank(
    query: str,
    /,
    *sources: Annotated[Source, SOURCES],
    reading: ReadingOptions = READ,
    options: RankingOptions = PRINT,
    passages: PassageOptions = WHOLE,
    remote: RemoteOptions = LOCAL,
    given: Given = NONE_GIVEN,
) -> int:
    """Rank documents.

    Args:
        query: what the documents are ranked for
    """
    _refuse_unknown_options(sources)
    if remote.url and (options.explain or options.prompt is not None):
        raise SettingsError(
            '--explain and --prompt need a local model; a rerankd server explains with "explain": true.'
        )
    settings, divided = None if remote.url else settings_from(RankSettings, given), passages.split
    found = read_documents(sources or ["-"], reading.reading())
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    documents = found.documents
    if options.prompt is not None and not 0 <= options.prompt < len(documents):
        raise SettingsError(f"--prompt {options.prompt}: there are {len(documents)} documents, the first is 0.")
    texts = [document.text for document in documents]
    own = options.min_score, options.calibration, options.deadline_s
    task = Task(query, texts, options.top_n or None, options.instruct, divided, *own)
    with redirect_stdout(sys.stderr):  # what libraries print must not mix with the result
        if settings is None:
            outcome = ask(task, remote, given.get("model"))
        else:
            outcome = score(task, settings, options.explain, options.prompt)
    warnings = in_words(outcome.warnings, [document.source for document in documents])
    if options.prompt is not None:
        print(outcome.prompt)
    else:
        ranked.write(_ranking(outcome, documents, warnings), options.output or output_of(options.as_json))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _refuse_unknown_options(sources: Sequence[str]) -> None:
    """`-` is stdin, so the parser takes everything with a hyphen for a source."""
    for source in sources:
        if source.startswith("-") and source != "-" and not Path(source).exists():
            raise UnknownOptionError(
                token=Token(keyword=source.partition("=")[0], source="cli"),
                argument_collection=app.assemble_argument_collection(),
                command_chain=("rank",),
                verbose=False,
            )


def output_of(as_json: bool) -> ranked.Output:
    """The form of the output where none is asked for."""
    if as_json:
        return "json"
    return "table" if sys.stdout is not None and sys.stdout.isatty() else "tsv"


def _ranking(outcome: Outcome, documents: Sequence[SourcedDocument], warnings: Sequence[str]) -> ranked.Ranking:
    results = [
        ranked.Ranked(
            place,
            score.index,
            score.score,
            score.logit,
            documents[score.index],
            outcome.explanations.get(score.index),
            score.passages,
        )
        for place, score in enumerate(outcome.ranked, 1)
    ]
    return ranked.Ranking(results, outcome.model, warnings)
