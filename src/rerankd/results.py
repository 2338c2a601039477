"""How a ranking behaves as a sequence, and how it is printed, shown in a notebook and turned into JSON.

Standard library only. Knows no domain type: `types.Ranking` is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from typing import Any, Generic, Protocol, TypeVar, overload

SHOWN_CHARACTERS = 60
SHOWN_RESULTS = 3
"""In a ranking's `repr`."""

HTML_CHARACTERS = 300
HTML_RESULTS = 50
"""In a notebook."""


class Result(Protocol):
    """One row of a shown ranking."""

    @property
    def index(self) -> int:
        """Its place in the call."""
        ...

    @property
    def score(self) -> float:
        """The higher, the more relevant; from most models in [0, 1]."""
        ...

    @property
    def logit(self) -> float | None:
        """The log-odds of the score, None where they are not known."""
        ...

    @property
    def document(self) -> str | None:
        """The text."""
        ...

    @property
    def scored(self) -> bool:
        """False if a deadline came first."""
        ...

    @property
    def passages(self) -> Sequence[Any]:
        """Dataclasses: where in the text it was scored, if it was split."""
        ...


S = TypeVar("S", bound=Result, covariant=True)


class Results(Generic[S]):
    """A ranking as a sequence of its results, best first: `ranking[0]`, `len(ranking)`, `for result in ranking`."""

    __slots__ = ()

    ranked: tuple[S, ...]
    warnings: tuple[str, ...]
    model: str | None
    request_ids: tuple[str, ...]

    def __iter__(self) -> Iterator[S]:
        return iter(self.ranked)

    def __len__(self) -> int:
        return len(self.ranked)

    @overload
    def __getitem__(self, place: int) -> S: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[S, ...]: ...
    def __getitem__(self, place: int | slice) -> S | tuple[S, ...]:
        return self.ranked[place]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the prompts, ready for `json.dumps`."""
        return {
            "results": [
                {
                    **{"index": r.index, "score": r.score, "logit": r.logit, "document": r.document},
                    **({} if r.scored else {"scored": False}),
                    **({"passages": [one.to_dict() for one in r.passages]} if r.passages else {}),
                }
                for r in self.ranked
            ],
            "model": self.model,
            "usage": asdict(self.usage),  # type: ignore[attr-defined]  # a field of the dataclass that inherits this
            "warnings": list(self.warnings),
            "request_ids": list(self.request_ids),
        }

    def __repr__(self) -> str:
        best = ", ".join(_line(result) for result in self.ranked[:SHOWN_RESULTS])
        more = f", … {len(self) - SHOWN_RESULTS} more" if len(self) > SHOWN_RESULTS else ""
        warnings = f"; {len(self.warnings)} warnings" if self.warnings else ""
        return f"<{type(self).__name__}: {best or 'no results'}{more}{warnings}>"

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        rows = "".join(_row(place, result) for place, result in enumerate(self.ranked[:HTML_RESULTS], 1))
        more = f"<p>… {len(self) - HTML_RESULTS} more</p>" if len(self) > HTML_RESULTS else ""
        warnings = "".join(f"<p>Warning: {escape(warning)}</p>" for warning in self.warnings)
        head = "<tr><th>#</th><th>score</th><th>index</th><th>document</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>{more}{warnings}"


def shortened(text: str, length: int) -> str:
    """The text on one line, of at most `length` characters."""
    line = " ".join(text[: 4 * length].split())
    return line if len(line) <= length and len(text) <= 4 * length else f"{line[: length - 1]}…"


def short_repr(score: Result) -> str:
    """A score with the beginning of its document and without its prompt."""
    text = score.document
    shown = None if text is None else shortened(text, SHOWN_CHARACTERS)
    return f"{type(score).__name__}(index={score.index}, score={score.score:.4f}, document={shown!r})"


def _line(result: Result) -> str:
    text = "" if result.document is None else f" {shortened(result.document, SHOWN_CHARACTERS)!r}"
    return f"[{result.index}] {result.score:.4f}{text}"


def _row(place: int, result: Result) -> str:
    text = escape(shortened(result.document or "", HTML_CHARACTERS))
    document = f'<td dir="auto" style="text-align: start">{text}</td>'
    return f"<tr><td>{place}</td><td>{result.score:.4f}</td><td>{result.index}</td>{document}</tr>"
