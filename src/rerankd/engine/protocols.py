"""The protocols of the engine: prompts from texts, logits from prompts, and the engine itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rerankd.stats import CacheStats, EngineStats
from rerankd.types import Logits, ModelInfo, Prompt, RerankRequest


class Prompts(Protocol):
    """From texts to token ids and back. Called from any thread."""

    def encode(self, request: RerankRequest) -> list[Prompt]:
        """One Prompt for each document, in order.

        Raises:
            PromptTooLong: what is never truncated (template and instruct) does not fit.
            InvalidRequest: the prompts together have more tokens than a call may have.
        """
        ...

    def room(self, request: RerankRequest) -> int:
        """See `ranking.Encodes`."""
        ...

    def lens(self, texts: Sequence[str]) -> list[int]:
        """See `ranking.Encodes`."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, control tokens included."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, control strings read as text, nothing added."""
        ...


class Model(Protocol):
    """A network that scores prompts. Called by one thread at a time."""

    @property
    def info(self) -> ModelInfo:
        """The model's description."""
        ...

    def logits(self, batch: Sequence[Prompt]) -> list[float]:
        """The logit of each prompt, in order, independent of the others."""
        ...


class LoadedModel(Model, Protocol):
    """A network with its tokenizer."""

    @property
    def prompts(self) -> Prompts:
        """Makes its prompts."""
        ...


@runtime_checkable
class SharesPrefixes(Protocol):
    """A model that computes once what several prompts begin with."""

    @property
    def prefix_stats(self) -> CacheStats:
        """Prefixes looked up; tokens that prompts had in common with others or with kept ones."""
        ...

    @property
    def tokens_computed(self) -> int:
        """Since the start."""
        ...


class Reading(Protocol):
    """The beginning of a prompt, read in chunks. It holds memory until it is dropped."""

    @property
    def num_read(self) -> int:
        """Tokens so far."""
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """Read on until `end` tokens are read."""

    reading: Reading
    end: int


@dataclass(frozen=True, slots=True)
class LastChunk:
    """The rest of a prompt, whose logit is wanted.

    Attributes:
        after: the part of it that was read already, if any.
        owner: see `types.RerankRequest`.
    """

    prompt: Prompt
    after: Reading | None = None
    owner: str = ""


@runtime_checkable
class ReadsInChunks(Protocol):
    """A model that can read a prompt in several passes."""

    def begin(self, prompt: LastChunk, num_tokens: int) -> Reading:
        """Prepares to read the first tokens of a prompt, from `after` or from a cached prefix."""
        ...

    def read(self, chunks: Sequence[Chunk], last: Sequence[LastChunk]) -> list[float]:
        """One pass: reads on, and gives the logit of each prompt, which may continue from what the chunks leave.

        If it raises, nothing was read.
        """
        ...


@runtime_checkable
class SizesBatches(Protocol):
    """A model that knows how many tokens fit into the memory of its GPU."""

    @property
    def max_batch_tokens(self) -> int:
        """Of a batch, at the start."""
        ...


class QueuesPrompts(Protocol):
    """An engine: `engine.engine.Engine` in this process, or one over replicas. Each member is described there."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def num_queued(self) -> int: ...

    @property
    def max_batch_tokens(self) -> int: ...

    @property
    def seconds_in_batch(self) -> float: ...

    @property
    def failure(self) -> BaseException | None: ...

    @property
    def stats(self) -> EngineStats: ...

    def submit(
        self,
        prompts: Sequence[Prompt],
        progress: Callable[[int], None] | None = None,
        priority: int = 0,
        owner: str = "",
        deadline: float | None = None,
    ) -> Future[Logits]: ...

    def watch(self, on_failure: Callable[[BaseException], None]) -> None: ...

    def refuse_after_fork(self) -> None: ...

    def close(self) -> None: ...


class EmbeddingModel(Protocol):
    """A network that makes vectors of texts. Called by one thread at a time.

    dimensions: of a vector. num_truncated: texts of which it has not read the end, since the start.
    """

    @property
    def dimensions(self) -> int: ...

    @property
    def num_truncated(self) -> int: ...

    def queries(self, texts: Sequence[str], instruct: str | None = None) -> NDArray[np.float32]:
        """(len(texts), dimensions) of length 1; of zeros where the model knows nothing of a text.

        Args:
            instruct: the task, for models that read one; None for their default.
        """
        ...

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same of texts that are found."""
        ...
