"""A cross-encoder for MTEB (https://github.com/embeddings-benchmark/mteb, version 2): `pip install mteb`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rerankd.rankers import Ranker

Batch = Mapping[str, Any]
"""A batch of a data loader of MTEB: its `text` holds texts."""


class RerankdCrossEncoder:
    """Scores the pairs of MTEB's reranking tasks.

        model = RerankdCrossEncoder(Reranker("Qwen/Qwen3-Reranker-0.6B"), "Qwen/Qwen3-Reranker-0.6B")
        task = mteb.get_task("SciFact").convert_to_reranking("predictions", top_k=100)
        mteb.evaluate(model, task)

    It satisfies `mteb.models.CrossEncoderProtocol` by shape. The scores are logits: probabilities near 1 are equal as
    32-bit numbers, and ties change the measures.

    Args:
        ranker: a `Reranker` (a model in this process) or a `Client`.
        name: of the model, as MTEB writes it into its results, `organisation/model`.
        revision: of the model, for the same place.
        instruct: in place of the task's own prompt, or of the default where a task has none.
    """

    def __init__(self, ranker: Ranker, name: str, revision: str | None = None, instruct: str | None = None) -> None:
        self._ranker, self._name, self._revision, self._instruct = ranker, name, revision, instruct

    @property
    def mteb_model_meta(self) -> Any:
        """MTEB's `ModelMeta`, which names the model in the results."""
        from mteb.models import ModelMeta

        return ModelMeta.create_empty({"name": self._name, "revision": self._revision})

    def predict(
        self,
        inputs1: Iterable[Batch],
        inputs2: Iterable[Batch],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **options: Any,
    ) -> npt.NDArray[np.float64]:
        """The logit of each pair, in order.

        Args:
            inputs1, inputs2: batches of queries and of documents; the i-th query belongs to the i-th document.
            task_metadata: of the task; its `prompt` is the instruct.
            hf_split, hf_subset, prompt_type, options: change nothing here.

        Raises:
            ValueError: there are not as many queries as documents.
            RerankdError: see `Reranker.rank` and `Client.rank`.
        """
        queries, documents = _texts(inputs1), _texts(inputs2)
        if len(queries) != len(documents):
            raise ValueError(f"{len(queries)} queries for {len(documents)} documents")
        places: dict[str, list[int]] = {}
        for place, query in enumerate(queries):
            places.setdefault(query, []).append(place)
        instruct = self._instruct or _prompt_of(task_metadata)
        logits = np.zeros(len(queries))
        for query, found in places.items():
            ranking = self._ranker.rank(query, [documents[place] for place in found], instruct=instruct)
            for score in ranking.ranked:
                logits[found[score.index]] = score.raw_score
        return logits


def _texts(batches: Iterable[Batch]) -> list[str]:
    return [text for batch in batches for text in batch["text"]]


def _prompt_of(task_metadata: Any) -> str | None:
    """The task's prompt, or that of its queries, where it has one."""
    prompt = getattr(task_metadata, "prompt", None)
    return (prompt.get("query") if isinstance(prompt, Mapping) else prompt) or None
