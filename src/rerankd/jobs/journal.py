"""The scores of a job so far: a line for each query, appended, never changed."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankd.errors import InvalidRequest

SYNC_S = 2.0
"""Seconds after which what was written is on disk, too."""


PassageLogit = tuple[int, int, float]
"""Start and end of a passage in code points, and its logit, float32."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of a query's documents, in the order of `doc_ids`.

    Attributes:
        logits: float32.
        tokens: of the prompts of each document.
        passages: of each document, in the order of its text; empty where the job splits none.
        billed: tokens of query and documents, once for each prompt; as a server counted them; 0 where unknown.
    """

    qid: str
    doc_ids: Sequence[str]
    logits: Sequence[float]
    scores: Sequence[float]
    tokens: Sequence[int]
    passages: Sequence[Sequence[PassageLogit]] = ()
    billed: int = 0


@dataclass(frozen=True, slots=True)
class Total:
    """What a journal holds in all. seconds: between its lines, without the time between two runs of the job.

    billed: see `Scored`.
    """

    queries: int
    documents: int
    tokens: int
    seconds: float
    billed: int


class Journal:
    """Appends to a file. Opening it looks at what it holds; a line that was cut off at its end is removed.

    Raises:
        InvalidRequest: a line in the middle is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._synced = path, time.monotonic()
        self._places: dict[str, int] = {}
        whole = self._look() if path.exists() else 0
        self._file = path.open("ab", buffering=0)
        self._file.truncate(whole)

    def _look(self) -> int:
        """Finds every query's line; returns how many bytes the whole lines have."""
        at = 0
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._places[self._parse(line, at).qid] = at
                at += len(line)
        return at

    def _parse(self, line: bytes, at: int) -> Scored:
        try:
            value = json.loads(line)
            passages = [[(start, end, logit) for start, end, logit in some] for some in value.get("p", ())]
            ids, logits, scores, tokens = (value[key] for key in "dlst")
            if any(len(one) != len(ids) for one in (logits, scores, tokens, passages or ids)):
                raise ValueError("lists of different lengths")
            return Scored(value["q"], ids, logits, scores, tokens, passages, value.get("b", 0))
        except (ValueError, KeyError, TypeError):
            raise InvalidRequest(
                f"{self._path} is damaged at byte {at}. --restart begins the job again; to keep what stands before the "
                "damage, cut the file off there."
            ) from None

    def __contains__(self, qid: str) -> bool:
        return qid in self._places

    def read(self, qid: str) -> Scored:
        """The scores of a query that the journal has."""
        with self._path.open("rb") as file:
            file.seek(self._places[qid])
            return self._parse(file.readline(), self._places[qid])

    def total(self) -> Total:
        """The sum over all queries."""
        documents, tokens, billed, seconds = 0, 0, 0, 0.0
        with self._path.open("rb") as file:
            for line in file:
                value = json.loads(line)
                documents += len(value["d"])
                tokens += sum(value["t"])
                billed += value.get("b", 0)
                seconds += value["e"]
        return Total(len(self._places), documents, tokens, seconds, billed)

    def add(self, scored: Scored, seconds: float = 0.0) -> None:
        """Appends the scores of a query.

        Args:
            seconds: since the line before, or since this run of the job began to score.

        Raises:
            InvalidRequest: there is no space; the line is not kept.
        """
        value = {"q": scored.qid, "d": scored.doc_ids, "l": scored.logits, "s": scored.scores, "t": scored.tokens}
        rest = {**({"p": scored.passages} if scored.passages else {}), "b": scored.billed, "e": round(seconds, 6)}
        line = f"{json.dumps({**value, **rest})}\n".encode()
        size = self._path.stat().st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if time.monotonic() - self._synced >= SYNC_S:
                self.sync()
        except OSError as error:
            self._file.truncate(size)
            raise InvalidRequest(
                f"{self._path} cannot be written: {error.strerror or error}. The same command continues."
            ) from error
        self._places[scored.qid] = size

    def sync(self) -> None:
        """Waits until everything is on disk."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        self._file.close()
