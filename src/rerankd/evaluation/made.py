"""How a run was made, and what it would cost at a price."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rerankd.runs.about import About

PriceOf = Callable[[str], float | None]
"""A model's name → the price of a million tokens; None where there is none."""


@dataclass(frozen=True, slots=True)
class Made:
    """How a run was made.

    Attributes:
        dtype, prompt: empty where a server scored.
        instruct: None for the default.
        seconds: of scoring a query, in the mean over a run in which several queries share batches.
        tokens: of all prompts; 0 where a server scored.
        passage_tokens: the most of a passage; None where documents were scored whole.
        billed_tokens: of queries and documents, without the template, once for each prompt; as a server counted them
            where one scored; 0 where they are unknown.
        prompt_text: see `About`. own_instructs: queries that have an instruct of their own.
        cost: of 1,000 queries, at a price for billed tokens; None without a price.
    """

    model: str
    dtype: str
    prompt: str
    instruct: str | None
    depth: int
    seconds: float
    documents_per_second: float
    tokens: int
    passage_tokens: int | None
    billed_tokens: int
    prompt_text: str
    own_instructs: int
    cost: float | None


def made(about: About | None, price_of: PriceOf = lambda model: None) -> Made | None:
    """None where nothing is known."""
    if about is None or not about.queries:
        return None
    model, seconds = about.model, max(about.seconds, 1e-9)
    price = price_of(model["name"]) if about.billed_tokens else None
    return Made(
        model["name"],
        model.get("dtype", ""),
        model.get("prompt", ""),
        about.instruct,
        int(about.plan["depth"]),
        about.seconds / about.queries,
        about.documents / seconds,
        about.tokens,
        (about.plan.get("passages") or {}).get("max_tokens"),
        about.billed_tokens,
        about.prompt_text,
        about.own_instructs,
        None if price is None else price * about.billed_tokens / 1_000_000 / about.queries * 1_000,
    )
