"""rerankd: Qwen3-Reranker on your own hardware.

    from rerankd import Reranker
    Reranker("Qwen/Qwen3-Reranker-0.6B").rank("capital of China?", ["Beijing is …", "Gravity is …"])

Importing the package imports nothing heavy: torch comes with the first `Reranker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rerankd.errors import RerankdError
from rerankd.types import Pair, Ranking, Score, Usage
from rerankd.version import __version__

if TYPE_CHECKING:
    from rerankd.reranker import Reranker

__all__ = ["Pair", "Ranking", "RerankdError", "Reranker", "Score", "Usage", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Reranker":
        from rerankd.reranker import Reranker

        return Reranker
    raise AttributeError(f"module 'rerankd' has no attribute {name!r}")
