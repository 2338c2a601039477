"""`Reranker`: a model in the caller's own process, without a server."""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, NoReturn

from rerankd.arguments import Documents, checked
from rerankd.calibration.apply import Cut, Named, min_score_of
from rerankd.calibration.profile import Calibration
from rerankd.cascade import ONE_MODEL, THEN_TOP, Chosen, choose, failed, merge
from rerankd.deprecation import warn_renamed
from rerankd.errors import Busy, Closed, InferenceError, MissingExtra, SettingsError, Stopping
from rerankd.ranking import Prepared
from rerankd.types import LoadProgress, ModelInfo, Passages, Ranking, Score

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rerankd.engine.scorer import EngineScorer  # needs torch, and this module is imported without it
    from rerankd.types import Logits

Progress = Callable[[int], None]
"""Called on another thread with the number of documents done."""


class Reranker:
    """Loads a model once and ranks with it. Thread-safe: the prompts of several threads share batches.

        with Reranker("Qwen/Qwen3-Reranker-0.6B") as reranker:
            for result in reranker.rank("capital of China?", documents, top_n=3):
                print(result.index, result.score, result.document)

    With asyncio: `await reranker.arank(…)`. After a fork, every call in the child raises `MadeBeforeFork`: load
    the model there.

    Args:
        model: hub id, folder, `embedded`, or `auto` (Qwen3-Reranker-0.6B, else the embedded model of 16 languages).
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: `auto`, `float32`, `bfloat16`, `int8`.
        deterministic: the same bits for a document whatever else is scored with it; slower.
        offline: use local folders and the cache only, never the model hub.
        skip_self_test: use the model even if it fails its known-answer check.
        then: a second, larger model, which scores the `then_top` best documents of each call again.
        progress: called with the stage of loading and the share that is done, in [0, 1]. Without it, a download shows
            progress bars on a terminal.

    Raises:
        ModelError: the model cannot be loaded, or fails its known-answer check.
        MissingExtra: a package that a model needs is not installed.
        SettingsError: an argument is invalid.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "auto",
        *,
        device: str = "auto",
        dtype: str = "auto",
        deterministic: bool = False,
        offline: bool = False,
        skip_self_test: bool = False,
        then: str | os.PathLike[str] | None = None,
        then_top: int = THEN_TOP,
        progress: LoadProgress | None = None,
    ) -> None:
        if isinstance(then_top, bool) or not isinstance(then_top, int) or then_top < 1:
            raise SettingsError(f"then_top is {then_top!r}: give the number of documents for the second model.")
        how = _name("device", device), _name("dtype", dtype), deterministic, offline, skip_self_test, progress
        self._scorer = _start(_name("model", model), *how)
        self._then, self._then_top = None, then_top
        if then is not None:
            try:
                self._then = _start(_name("model", then), *how)
            except BaseException:
                self._scorer.close()
                raise

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        return self._scorer.info

    def rank(
        self,
        query: str,
        documents: Documents,
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        passages: bool | Passages = False,
        min_score: float | Named | None = None,
        calibration: Calibration | None = None,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> Ranking:
        """Scores every document for the query, best first.

        Args:
            documents: strings, or objects with their text as `text`, in a list, an array, a table's column, or a
                generator. Any number, of any length: a text that does not fit the model is truncated, with a warning,
                or split.
            top_n: how many results, None for all.
            instruct: the sorting task; None: the model card's.
            passages: True splits texts that do not fit at sentences, `Passages(512)` all that have more tokens. A
                document has the score of its best passage, and `Score.passages` says where it is.
            min_score: leaves out the results with a lower score; `keep` and `relevant` are thresholds of the
                calibration.
            calibration: of `rerankd calibrate`; each score becomes the probability that the document is relevant.
            deadline_s: seconds from now. Documents that cannot be scored by then come last, with `Score.scored` False.
            progress: called on another thread with the number of documents done.

        Raises:
            NothingInTime: the deadline came before the first score.
            InvalidRequest: an argument has the wrong type or is out of range, or the instruct leaves no room.
            InferenceError: the model failed.
            Closed: `close` was called.
            MadeBeforeFork: this process was forked after the model was loaded.
        """
        cut = Cut(min_score_of(min_score), calibration)
        asked = checked(query, documents, top_n, instruct, passages, deadline_s)
        prepared = self._scorer.prepare(asked.request())
        warnings = (*asked.warnings, *self._about_stages(prepared))
        ranking = prepared.finish(self._submit(prepared, progress).result(), warnings)
        if self._then is not None and not prepared.request.wants_sentences:
            chosen = choose(prepared.request, ranking, self._then_top)
            again = replace(self._then.prepare(chosen.request), indices=chosen.indices)
            ranking = _merged(prepared, ranking, chosen, again, self._submit(again, None, self._then))
        request = prepared.request
        ranking = cut.of(ranking, self.info, request.instruct, request.passages)
        return self._scorer.with_sentences(prepared, ranking)

    def rerank(self, query: str, documents: Documents, **options: Any) -> Ranking:
        """Deprecated: use `rank`."""
        warn_renamed("Reranker.rerank", "rank")
        return self.rank(query, documents, **options)

    async def arank(
        self,
        query: str,
        documents: Documents,
        *,
        top_n: int | None = None,
        instruct: str | None = None,
        passages: bool | Passages = False,
        min_score: float | Named | None = None,
        calibration: Calibration | None = None,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> Ranking:
        """`rank` for asyncio: it does not block the event loop, and a cancelled call frees its work."""
        cut = Cut(min_score_of(min_score), calibration)
        asked = checked(query, documents, top_n, instruct, passages, deadline_s)
        prepared = await asyncio.to_thread(self._scorer.prepare, asked.request())
        warnings = (*asked.warnings, *self._about_stages(prepared))
        ranking = prepared.finish(await asyncio.wrap_future(self._submit(prepared, progress)), warnings)
        if self._then is not None and not prepared.request.wants_sentences:
            chosen = choose(prepared.request, ranking, self._then_top)
            again = replace(await asyncio.to_thread(self._then.prepare, chosen.request), indices=chosen.indices)
            logits = self._submit(again, None, self._then)
            with suppress(Busy, InferenceError):
                await asyncio.wrap_future(logits)
            ranking = _merged(prepared, ranking, chosen, again, logits)
        request = prepared.request
        ranking = cut.of(ranking, self.info, request.instruct, request.passages)
        return await self._scorer.highlight(prepared, ranking) if request.wants_sentences else ranking

    def prompt_of(self, score: Score) -> str:
        """The exact text that the model read for a score of `rank`, control tokens included."""
        assert score.prompt is not None
        scorer = self._then if self._then is not None and score.stage == 2 else self._scorer
        return scorer.prompts.decode(score.prompt.token_ids)

    def close(self) -> None:
        """Finishes the queued calls and ends the engine's thread."""
        self._scorer.close()
        if self._then is not None:
            self._then.close()

    def _about_stages(self, prepared: Prepared) -> tuple[str, ...]:
        return (ONE_MODEL,) if self._then is not None and prepared.request.wants_sentences else ()

    def _submit(
        self, prepared: Prepared, progress: Progress | None, scorer: EngineScorer | None = None
    ) -> Future[Logits]:
        try:
            return (scorer or self._scorer).submit(prepared, _of_documents(progress, prepared))
        except Stopping:
            raise Closed("Reranker") from None

    def __repr__(self) -> str:
        info = self._scorer.info
        return f"<Reranker: {info.name}, {info.dtype} on {info.device}>"

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> Reranker:
        """Itself: what holds a model shares it with its copies."""
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Reranker holds a loaded model and cannot be pickled: make one in the process that uses it.")


def _of_documents(progress: Progress | None, prepared: Prepared) -> Progress | None:
    """Counts documents where the engine counts their passages."""
    if progress is None or not prepared.parts:
        return progress
    ends = list(accumulate(len(list(parts)) for _, parts in groupby(prepared.parts, lambda part: part.document)))
    return lambda done: progress(bisect_right(ends, done))


def _merged(prepared: Prepared, first: Ranking, chosen: Chosen, again: Prepared, logits: Future[Logits]) -> Ranking:
    """The ranking of both stages; of the first one where the second one failed, or the deadline left it nothing."""
    infos = prepared.info, again.info
    try:
        then = again.finish(logits.result())
    except (Busy, InferenceError) as error:
        return failed(first, infos, error)
    return merge(first, chosen, then, infos, prepared.request.top_n)


def _name(argument: str, value: object) -> str:
    if argument == "model" and isinstance(value, os.PathLike):
        path = os.fsdecode(value)  # a path is a folder, never a name on the hub
        return path if os.path.isabs(path) or path.startswith((".", "~")) else os.path.join(".", path)
    if not isinstance(value, str) or not value.strip():
        problem = "empty" if isinstance(value, str) else f"of type {type(value).__name__}"
        raise SettingsError(f"{argument} is {problem}: give a string, or leave it out for 'auto'.")
    return value


def _start(
    model: str,
    device: str,
    dtype: str,
    deterministic: bool,
    offline: bool,
    skip_self_test: bool,
    progress: LoadProgress | None,
) -> EngineScorer:
    try:
        from rerankd.engine.loading.open import Choice
        from rerankd.startup import start_scorer
    except ImportError as error:
        raise MissingExtra("A model in this process", error, "ask a server with rerankd.Client") from None
    choice = Choice(model, device, dtype, deterministic, offline)
    return start_scorer(choice, skip_self_test=skip_self_test, progress=progress)
