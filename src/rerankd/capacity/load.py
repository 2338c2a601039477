"""The calls of a load: when each arrives, and the tokens of its documents. Pure, seeded."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from rerankd.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Call:
    """arrives: seconds from the start. documents: the tokens of each, without the template."""

    arrives: float
    documents: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mix:
    """The shape of calls, as a server saw them, or as they are assumed.

    Attributes:
        sizes: (documents, tokens of a document, mean) of calls; one after the other, in random order.
        gaps: seconds between two calls, on the scale of any rate; empty: Poisson arrivals.
        spread: standard deviation of the documents' lengths, as a share of the mean.
    """

    sizes: Sequence[tuple[int, int]]
    gaps: Sequence[float] = ()
    spread: float = 0.3

    @property
    def documents(self) -> float:
        """The mean number of documents of a call."""
        return sum(documents for documents, _ in self.sizes) / len(self.sizes)

    @property
    def tokens(self) -> float:
        """The mean number of tokens of a document."""
        return sum(documents * tokens for documents, tokens in self.sizes) / sum(size[0] for size in self.sizes)

    def calls(self, documents_per_s: float, number: int, seed: int) -> list[Call]:
        """The calls of a seed: the same at every rate, but closer together or farther apart."""
        rng = random.Random(seed)
        gaps = _gaps(self.gaps, rng)
        mean = self.documents / documents_per_s
        calls, now = [], 0.0
        for _ in range(number):
            now += mean * next(gaps)
            documents, tokens = rng.choice(self.sizes)
            lengths = tuple(max(1, round(rng.gauss(tokens, self.spread * tokens))) for _ in range(documents))
            calls.append(Call(now, lengths))
        return calls


def _gaps(measured: Sequence[float], rng: random.Random) -> Iterator[float]:
    """Gaps of mean 1. Measured ones keep their order, so bursts stay bursts; they begin at a random place."""
    if not measured:
        while True:
            yield rng.expovariate(1)
    mean = sum(measured) / len(measured)
    place = rng.randrange(len(measured))
    while True:
        yield measured[place] / mean
        place = (place + 1) % len(measured)


def mix_of_log(lines: Iterable[str]) -> Mix:
    """The mix of a server's log (`rerankd serve --log-format json`): sizes and gaps of its answered calls.

    Raises:
        InvalidRequest: fewer than two answered calls are in it.
    """
    calls = sorted(call for line in lines if (call := _logged(line)) is not None)
    if len(calls) < 2 or calls[-1][0] == calls[0][0]:
        raise InvalidRequest("The log has fewer than two answered calls: pass one of --log-format json.")
    gaps = [after - before for (before, *_), (after, *_) in pairwise(calls)]
    return Mix([(documents, max(1, round(tokens / documents))) for _, documents, tokens in calls], gaps)


def _logged(line: str) -> tuple[float, int, int] | None:
    """(arrival, documents, billed tokens) of an answered call."""
    try:
        entry = json.loads(line)
        ended = datetime.fromisoformat(entry["time"]).timestamp()
        documents, tokens, seconds = int(entry["documents"]), int(entry["tokens"]), float(entry["seconds"])
    except (ValueError, KeyError, TypeError):
        return None
    return (ended - seconds, documents, tokens) if documents > 0 and entry.get("status") == 200 else None
