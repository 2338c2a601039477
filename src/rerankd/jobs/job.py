"""One job: what it scores, its folder, and the loop over its queries.

OUT.job/job.json           what the job's scores depend on
OUT.job/documents.sqlite   the texts of the run's documents
OUT.job/journal.jsonl      the scores so far
"""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from rerankd.disk import lock_alone, remove_unfinished, replacement
from rerankd.errors import InvalidRequest
from rerankd.jobs.journal import Journal, Scored
from rerankd.jobs.scoring import score_query
from rerankd.jobs.store import Documents, build
from rerankd.rankers import PassageRanker
from rerankd.resumable import Pace, differences, to_json
from rerankd.runs.about import About, path_of, write_about
from rerankd.runs.run import Candidate, Run, decreasing
from rerankd.runs.texts import Query
from rerankd.runs.written import RankedPair, RankedPassage, check_ids, format_of, write_ranked
from rerankd.types import Passages

Corpus = Callable[[set[str]], Iterable[tuple[str, str]]]
"""Wanted ids → (id, text) of those that there are."""

Patience = Callable[[Exception, int], float | None]
"""An error of a query, and how many there were in a row → seconds until it is asked again; None: the job ends."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a job's scores depend on.

    Attributes:
        inputs: (path, size, mtime in ns) of the run, the queries, the corpus and the judgements that choose queries.
        model: what scores, as `model_identity` describes it; or a server's address and model.
        instruct: of queries that have none of their own; None for the default of the model or server.
        depth: candidates of a query that are scored.
        first: what found the candidates, where that is not one of the input files.
        passages: how documents are split; None: they are not.
    """

    inputs: tuple[tuple[str, int, int], ...]
    model: Mapping[str, str]
    instruct: str | None
    depth: int
    skip_missing: bool
    first: str = ""
    passages: Passages | None = None


@dataclass
class Progress(Pace):
    """How far a job is. `share` counts characters of the documents.

    Attributes:
        queries, of: those that are done, and all.
        pairs, missing: of this run of the command.
    """

    of: int
    queries: int = 0
    pairs: int = 0
    missing: int = 0
    warnings: dict[str, None] = field(default_factory=dict)


def check(out: Path, run: Run, queries: Mapping[str, Query]) -> None:
    """Refuses a job that cannot be written or asked, before a model is loaded.

    Raises:
        InvalidRequest: a query has no text, or the result's format is unknown or cannot hold an id.
    """
    check_ids(format_of(out), run)
    if absent := [qid for qid in run.ranked if qid not in queries]:
        have = "has" if len(absent) == 1 else "have"
        raise InvalidRequest(
            f"{len(absent):,} of {len(run.ranked):,} queries of the run {have} no text, the first one: {absent[0]}."
        )


class Job:
    """Scores the candidates of a run and writes them in their new order.

    Args:
        out: the result; its suffix says the format. The job's folder stands beside it.
        queries: by id.
        at_once: queries that are scored at the same time.
        prompt_text: see `About`.

    Raises:
        InvalidRequest: see `check`.
    """

    def __init__(
        self,
        out: Path,
        plan: Plan,
        run: Run,
        queries: Mapping[str, Query],
        at_once: int = 16,
        prompt_text: str = "",
    ) -> None:
        check(out, run, queries)
        self._out, self._plan, self._queries, self._at_once = out, plan, queries, at_once
        self._prompt_text = prompt_text
        self._folder = out.with_name(f"{out.name}.job")
        self._first = {qid: found[: plan.depth] for qid, found in run.ranked.items()}

    @property
    def folder(self) -> Path:
        """The folder of the job's finished work."""
        return self._folder

    def score(
        self,
        ranker: PassageRanker,
        corpus: Corpus,
        report: Callable[[Progress], None] = lambda progress: None,
        *,
        restart: bool = False,
        patience: Patience = lambda error, failures: None,
    ) -> Progress:
        """Scores what is missing, writes the result and removes the job's folder.

        Args:
            corpus: read once, at the beginning.
            restart: forget what an earlier run of this job has scored.
            patience: whether a query that failed is asked again; meanwhile no other one is begun.

        Raises:
            InvalidRequest: an input cannot be read, the folder belongs to another job or cannot be written.
            InferenceError, RemoteError: the model or the server failed; what is scored is kept.
        """
        with self._locked(restart=restart):
            missing = self._keep_documents(corpus)
            with (
                closing(Documents(self._folder / "documents.sqlite")) as documents,
                closing(Journal(self._folder / "journal.jsonl")) as journal,
            ):
                progress = Progress(len(self._first), missing=missing)
                try:
                    self._loop(ranker, documents, journal, progress, report, patience)
                finally:
                    journal.sync()
                name, has_passages = self._plan.model.get("name", "rerankd"), self._plan.passages is not None
                write_ranked(self._out, self._pairs(journal), name, has_passages)
                write_about(self._out, self._about(journal))
        shutil.rmtree(self._folder)
        return progress

    def _about(self, journal: Journal) -> About:
        done = journal.total()
        own = sum(self._queries[qid].instruct is not None for qid in self._first)
        plan = json.loads(to_json(self._plan))
        return About(plan, done.seconds, done.queries, done.documents, done.tokens, own, done.billed, self._prompt_text)

    @contextmanager
    def _locked(self, *, restart: bool) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / "lock").open("w")
        except OSError as error:
            raise InvalidRequest(f"{self._folder} cannot be written: {error.strerror or error}.") from None
        with lock:
            lock_alone(lock, f"Another process works on {self._folder}.")
            if restart:
                self._forget()
            self._check_plan()
            for path in (self._out, path_of(self._out)):
                remove_unfinished(path)
            yield

    def _forget(self) -> None:
        for name in ("job.json", "documents.sqlite", "journal.jsonl"):
            (self._folder / name).unlink(missing_ok=True)

    def _check_plan(self) -> None:
        kept = self._folder / "job.json"
        if not kept.exists():
            self._forget()  # an earlier job was killed while it removed its folder
            with replacement(kept) as unfinished:
                unfinished.write_text(to_json(self._plan))
        elif found := differences(kept.read_text(), self._plan):
            raise InvalidRequest(
                f"{self._folder} holds an unfinished job that differs in {'; '.join(found)}. Pass --restart to forget "
                "it, another result, or the same input and settings to continue."
            )

    def _keep_documents(self, corpus: Corpus) -> int:
        path = self._folder / "documents.sqlite"
        if path.exists():
            return 0
        wanted = {one.doc_id for found in self._first.values() for one in found}
        return build(path, corpus(wanted), wanted, self._plan.skip_missing)

    def _loop(
        self,
        ranker: PassageRanker,
        documents: Documents,
        journal: Journal,
        progress: Progress,
        report: Callable[[Progress], None],
        patience: Patience,
    ) -> None:
        lengths = documents.characters()
        sizes = {qid: sum(lengths.get(one.doc_id, 0) for one in found) + 1 for qid, found in self._first.items()}
        total = sum(sizes.values())
        left = [qid for qid in self._first if qid not in journal]
        progress.queries = progress.of - len(left)
        progress.share = progress.begun_at = 1 - sum(map(sizes.__getitem__, left)) / total
        before = time.monotonic()
        with ThreadPoolExecutor(self._at_once, thread_name_prefix="rerankd-job") as pool:
            for qid, scored, warnings in self._in_turn(pool, ranker, documents, left, patience):
                now = time.monotonic()
                journal.add(scored, now - before)
                before = now
                progress.queries += 1
                progress.pairs += len(scored.doc_ids)
                progress.share = min(1.0, progress.share + sizes[qid] / total)
                progress.warnings.update(dict.fromkeys(warnings))
                report(progress)

    def _in_turn(
        self,
        pool: ThreadPoolExecutor,
        ranker: PassageRanker,
        documents: Documents,
        left: Sequence[str],
        patience: Patience,
    ) -> Iterator[tuple[str, Scored, Sequence[str]]]:
        """Each query's scores, in order; `at_once` of them are being scored at any time."""
        coming, failures = iter(left), 0
        waiting: deque[tuple[str, Future[tuple[Scored, Sequence[str]]]]] = deque()

        def submitted(qid: str) -> tuple[str, Future[tuple[Scored, Sequence[str]]]]:
            ids = [one.doc_id for one in self._first[qid]]
            return qid, pool.submit(self._rank, ranker, qid, ids, documents.texts(ids))

        try:
            while True:
                waiting.extend(submitted(qid) for qid in islice(coming, self._at_once - len(waiting)))
                if not waiting:
                    return
                qid, future = waiting[0]
                try:
                    scored, warnings = future.result()
                except Exception as error:
                    failures += 1
                    if (pause := patience(error, failures)) is None:
                        raise
                    time.sleep(pause)
                    waiting[0] = submitted(qid)
                    continue
                failures = 0
                waiting.popleft()
                yield qid, scored, warnings
        finally:  # after an error or Ctrl-C nobody wants the rest
            for _, future in waiting:
                future.cancel()

    def _rank(
        self, ranker: PassageRanker, qid: str, ids: Sequence[str], texts: Sequence[str | None]
    ) -> tuple[Scored, Sequence[str]]:
        there = [(doc_id, text) for doc_id, text in zip(ids, texts, strict=True) if text is not None]
        return score_query(ranker, qid, self._queries[qid], there, self._plan.instruct, self._plan.passages)

    def _pairs(self, journal: Journal) -> Iterator[RankedPair]:
        for qid, first in self._first.items():
            yield from _ranked_pairs(first, journal.read(qid))


def _ranked_pairs(first: Sequence[Candidate], scored: Scored) -> Iterator[RankedPair]:
    """The scored documents of a query by logit; ties keep the order of the first stage."""
    before = {one.doc_id: (rank, one.score) for rank, one in enumerate(first, 1)}
    order = sorted(range(len(scored.doc_ids)), key=lambda i: -scored.logits[i])
    logits = decreasing(scored.logits[i] for i in order)
    for rank, (i, logit) in enumerate(zip(order, logits, strict=True), 1):
        doc_id = scored.doc_ids[i]
        passages = tuple(RankedPassage(*one) for one in scored.passages[i]) if scored.passages else ()
        yield RankedPair(scored.qid, doc_id, rank, logit, scored.scores[i], *before[doc_id], scored.tokens[i], passages)
