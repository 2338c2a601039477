"""The options of commands that split long documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter

from rerankd.cli.options import COUNT, FLAG, NUMBER
from rerankd.errors import InvalidRequest
from rerankd.types import MAX_PASSAGES, OVERLAP_TOKENS, Passages

OVERLAP = Parameter(show_default=f"{OVERLAP_TOKENS} with --passage-tokens")


@Parameter(name="*", group=Group("Long documents", sort_key=12))
@dataclass(frozen=True, kw_only=True)
class PassageOptions:
    """How long documents are scored.

    Attributes:
        passages: split documents that do not fit at sentences; the best passage counts
        passage_tokens: split all documents with more tokens, into passages of at most so many
        passage_overlap: tokens that a passage repeats of the one before it
        max_passages: of a document; the text after them is not read
    """

    passages: Annotated[bool, FLAG] = False
    passage_tokens: Annotated[int | None, COUNT, Parameter(show_default=False)] = None
    passage_overlap: Annotated[int | None, NUMBER, OVERLAP] = None
    max_passages: Annotated[int, COUNT] = MAX_PASSAGES

    @property
    def split(self) -> Passages | None:
        """None: documents are scored whole.

        Raises:
            InvalidRequest: a number is out of range, or says something about passages where there are none.
        """
        if self.passages or self.passage_tokens is not None:
            return Passages(self.passage_tokens, self.passage_overlap, self.max_passages)
        if self != WHOLE:
            raise InvalidRequest("--passage-overlap and --max-passages belong to --passages or --passage-tokens.")
        return None


WHOLE = PassageOptions()
