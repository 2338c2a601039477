"""What the engine runs: a model that turns pairs into prompts, and prompts into logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rerankd.types import CacheStats, EncodedPair, Limits, ModelInfo, Pair


class Model(Protocol):
    """One loaded model."""

    @property
    def info(self) -> ModelInfo:
        """What it is."""
        ...

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]:
        """One EncodedPair a pair, in order. Called from any thread.

        Raises:
            PromptTooLong: what cannot be cut (template and instruct) does not fit.
            InvalidRequest: the prompts together are more than a call may hold.
        """
        ...

    def text_of(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, control tokens included."""
        ...

    def token_ids_of(self, text: str) -> list[int]:
        """The tokens of a text, control strings read as text, nothing added."""
        ...

    def logits(self, batch: Sequence[EncodedPair]) -> list[float]:
        """The logit of each pair, in order, not depending on the others. Called by one thread at a time."""
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
class Prompt:
    """A prompt whose logit is wanted.

    after: what is read of its beginning, if anything. owner: on whose behalf; nothing that is kept of one owner's
    prompts speeds up another's.
    """

    pair: EncodedPair
    after: Reading | None = None
    owner: str = ""


@runtime_checkable
class ReadsInChunks(Protocol):
    """A model that can read a prompt in several passes."""

    def begin(self, prompt: Prompt, num_tokens: int) -> Reading:
        """Prepares to read the first tokens of a prompt; starts with what is known of them, of `after` among others."""
        ...

    def read(self, chunks: Sequence[Chunk], prompts: Sequence[Prompt]) -> list[float]:
        """One pass: reads on, and gives the logit of each prompt; it may go on from what the chunks leave.

        If it raises, nothing was read.
        """
        ...
