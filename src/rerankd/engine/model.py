"""What the engine runs: a model that turns pairs into prompts, and prompts into logits."""

from __future__ import annotations

from collections.abc import Sequence
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
        """Prefixes looked up, one a batch; tokens that prompts had in common with others or with kept ones."""
        ...
