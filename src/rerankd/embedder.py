"""`Embedder`: an embedding model in the caller's own process, for the dense first stage of an `Index`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rerankd.errors import InferenceError, MissingExtra
from rerankd.types import LoadProgress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT = "embedded"


class Embedder:
    """Loads an embedding model once. Thread-safe: one call computes at a time.

        embedder = Embedder("Qwen/Qwen3-Embedding-0.6B")
        hits = Index("docs", first="hybrid", embedder=embedder).search("how are keys rotated?")

    Args:
        model: `embedded` (16 languages, no hub), Qwen3-Embedding or an encoder of sentence-transformers, by hub id or
            folder.
        dimensions: cuts the vectors of models that were trained for it; None: all.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: of Qwen3-Embedding: `auto`, `float32`, `bfloat16`, `int8`.
        offline: use local folders and the cache only, never the model hub.
        progress: called with the stage of loading and the share that is done, in [0, 1]. Without it, a download shows
            progress bars on a terminal.

    Attributes:
        name: of the model; a folder with its whole path.
        digest: what the vectors depend on: weights, tokenizer, configuration.
        dimensions: of a vector.

    Raises:
        ModelError: the model cannot be loaded.
        MissingExtra: a package that it needs is not installed.
        SettingsError: an argument is invalid.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT,
        *,
        dimensions: int | None = None,
        device: str = "auto",
        dtype: str = "auto",
        offline: bool = False,
        progress: LoadProgress | None = None,
    ) -> None:
        try:
            from rerankd.engine.loading.open import Choice
            from rerankd.engine.loading.open_embedder import open_embedder
        except ImportError as error:
            raise MissingExtra("An embedder", error, "search by words with first='bm25'") from None
        opened = open_embedder(Choice(os.fspath(model), device, dtype, offline=offline), dimensions, progress)
        self.name, self.digest, self._model = opened.name, opened.digest, opened.model
        self.dimensions = opened.model.dimensions
        self._lock = threading.Lock()

    @property
    def num_truncated(self) -> int:
        """The documents so far of which the model has not read the end."""
        return self._model.num_truncated

    def queries(self, texts: Sequence[str], instruct: str | None = None) -> NDArray[np.float32]:
        """The vectors of queries.

        Args:
            instruct: the task, for models that read one; None for their default.

        Returns:
            (len(texts), dimensions), each row of length 1, or of zeros where the model knows nothing of a text.

        Raises:
            InferenceError: the model failed.
        """
        with self._computing():
            return self._model.queries(texts, instruct)

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts that are searched; see `queries`."""
        with self._computing():
            return self._model.documents(texts)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """One call at a time."""
        with self._lock:
            try:
                yield
            except (RuntimeError, MemoryError) as error:
                raise InferenceError(f"The embedder {self.name} failed.") from error

    def __repr__(self) -> str:
        return f"<Embedder: {self.name}, {self.dimensions} dimensions>"


@dataclass(frozen=True, slots=True)
class EmbedderChoice:
    """An embedder that loads when it is needed; see `Embedder`. model: None for the usual one."""

    model: str | None = None
    dimensions: int | None = None
    device: str = "auto"
    offline: bool = False

    def load(self, usual: str = DEFAULT) -> Embedder:
        """Raises as `Embedder` does."""
        return Embedder(self.model or usual, dimensions=self.dimensions, device=self.device, offline=self.offline)
