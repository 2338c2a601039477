"""The data between a front and a replica: prompts as arrays, outcomes as values.

Errors of ours do not survive pickling, so a replica never raises one: it answers with `Failed`. Knows no ray.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from rerankd.stats import EngineStats
from rerankd.types import ModelInfo, Prompt

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PackedPrompts:
    """Prompts of one call.

    Attributes:
        prefixes: the distinct prefixes, int32.
        prefix_of: the place of each prompt's prefix in `prefixes`, (num_prompts,) int32.
        rests: the token ids after the prefixes, of all prompts, (num_tokens,) int32.
        ends: where each prompt's rest ends in `rests`, (num_prompts,) int32.
        counts: query tokens and document tokens, (num_prompts, 2) int32.
        texts: query and document of each prompt; empty for a model that reads token ids only.
    """

    prefixes: tuple[Ints, ...]
    prefix_of: Ints
    rests: Ints
    ends: Ints
    counts: Ints
    texts: tuple[tuple[str, str], ...]


def pack(prompts: Sequence[Prompt], *, with_texts: bool) -> PackedPrompts:
    """with_texts: the model reads texts, as an encoder does."""
    places: dict[tuple[int, ...], int] = {}
    prefix_of = [places.setdefault(prompt.prefix, len(places)) for prompt in prompts]
    rests = [np.asarray(prompt.token_ids[prompt.shared_len :], np.int32) for prompt in prompts]
    return PackedPrompts(
        tuple(np.asarray(prefix, np.int32) for prefix in places),
        np.asarray(prefix_of, np.int32),
        np.concatenate(rests) if rests else np.zeros(0, np.int32),
        np.asarray(list(accumulate(map(len, rests))), np.int32),
        np.asarray([(prompt.query_tokens, prompt.document_tokens) for prompt in prompts], np.int32).reshape(-1, 2),
        tuple((prompt.query, prompt.document) for prompt in prompts) if with_texts else (),
    )


def unpack(packed: PackedPrompts) -> list[Prompt]:
    """The prompts, as far as an engine reads them: without truncations, and without texts if there are none."""
    prefixes = [tuple(prefix.tolist()) for prefix in packed.prefixes]
    texts = packed.texts or (("", ""),) * len(packed.ends)
    prompts = []
    for place, (start, end) in enumerate(pairwise((0, *packed.ends.tolist()))):
        prefix = prefixes[packed.prefix_of[place]]
        token_ids = array("i", prefix)
        token_ids.extend(packed.rests[start:end].tolist())
        query_tokens, document_tokens = packed.counts[place].tolist()
        query, document = texts[place]
        prompts.append(Prompt(query, document, token_ids, query_tokens, document_tokens, (), prefix))
    return prompts


@dataclass(frozen=True, slots=True)
class Scored:
    """The outcome of a replica.

    Attributes:
        logits: of each prompt of the part, float64.
        replica: its name.
        stats: of its engine, since it started.
    """

    logits: npt.NDArray[np.float64]
    replica: str
    stats: EngineStats


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a replica computed nothing.

    Attributes:
        kind: `model`: the model failed on these prompts; `leaving`: the replica ends, another one can compute them.
        cause: for the log of the front.
    """

    kind: Literal["model", "leaving"]
    cause: str


@dataclass(frozen=True, slots=True)
class Described:
    """The description of a replica.

    Attributes:
        settings: those that it was deployed with, as text.
        reads_texts: its prompts need their texts.
        version: of rerankd.
    """

    info: ModelInfo
    settings: str
    max_batch_tokens: int
    reads_texts: bool
    version: str
    pid: int
