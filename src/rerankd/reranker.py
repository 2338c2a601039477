"""The engine in the caller's own process, without a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rerankd.engine.open import Choice
from rerankd.errors import Closed, Stopping
from rerankd.rerank import finish, prepare
from rerankd.startup import start_engine
from rerankd.types import DEFAULT_INSTRUCT, LoadProgress, ModelInfo, Pair, Ranking, RerankRequest, Score


class Reranker:
    """Loads a model once and ranks with it. Safe to use from several threads: their pairs share batches.

        with Reranker("Qwen/Qwen3-Reranker-0.6B") as reranker:
            for score in reranker.rank("capital of China?", documents, top_n=3).ranked:
                print(score.index, score.score, score.document)

    Args:
        model: hub id, folder, `embedded`, or `auto` (Qwen3-Reranker-0.6B, else the embedded English model).
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: `auto`, `float32`, `bfloat16`, `int8`.
        deterministic: the same bits for a pair whatever else is scored with it; slower.
        skip_self_test: use the model even if it fails its known-answer check.
        progress: called with what is being loaded and the share that is done, in [0, 1].

    Raises:
        ModelError: the model cannot be loaded, or fails its known-answer check.
    """

    def __init__(
        self,
        model: str = "auto",
        *,
        device: str = "auto",
        dtype: str = "auto",
        deterministic: bool = False,
        skip_self_test: bool = False,
        progress: LoadProgress = lambda stage, share: None,
    ) -> None:
        choice = Choice(model, device, dtype, deterministic)
        self._engine = start_engine(choice, skip_self_test=skip_self_test, progress=progress)

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        return self._engine.info

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruct: str = DEFAULT_INSTRUCT,
        progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """Scores every document for the query, best first.

        Args:
            documents: any number, of any length; what does not fit the model is cut, with a warning.
            top_n: how many `Ranking.ranked` holds, None for all.
            progress: called on another thread with the number of documents done.

        Raises:
            InvalidRequest: top_n below 1, or an instruct that leaves no room.
            InferenceError: the model failed.
            Closed: `close` was called.
            MadeBeforeFork: this process was forked after the model was loaded.
        """
        request = RerankRequest(tuple(Pair(query, document) for document in documents), instruct, top_n)
        pairs = prepare(request, self._engine)
        try:
            logits = self._engine.submit(pairs, progress).result()
        except Stopping:
            raise Closed("Reranker") from None
        return finish(request, pairs, logits, self._engine.info)

    def prompt_of(self, score: Score) -> str:
        """The exact text that the model read for a pair that `rank` scored, control tokens included."""
        assert score.encoded is not None
        return self._engine.text_of(score.encoded.token_ids)

    def close(self) -> None:
        """Finishes what is queued and ends the engine's thread."""
        self._engine.close()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
