"""The playground's page: the models, the instructs and the samples that it offers, and what its visitor may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rerankd.errors import Unavailable
from rerankd.types import DEFAULT_INSTRUCT
from rerankd.web.context import WebContext
from rerankd.web.pages import Page
from rerankd.web.samples import Sample, samples, samples_for_page

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.sessions import Session

SORTING_MODES = {
    "Question answering": f"{DEFAULT_INSTRUCT}.",
    "Similarity": "Retrieve semantically similar text.",
}
"""The two instructs that DashScope documents."""

MORE_INSTRUCTS = {
    "Code search": "Given a programming question, retrieve code that answers it.",
    "Fact checking": "Given a claim, retrieve passages that support or refute it.",
    "Duplicate questions": "Given a question, retrieve questions that ask the same.",
    "Customer support": "Given a customer's question, retrieve help articles that solve the problem.",
    "Product search": "Given a shopping query, retrieve products that fit it.",
    "Legal search": "Given a legal question, retrieve statutes and rulings that answer it.",
}
"""Further instructs, in the words in which Qwen3-Reranker was trained: given …, retrieve …."""

ENOUGH_FREE = 10_000
"""Free tokens that are left: many more than a sample has."""

SCRIPTS = tuple(
    f"{name}.js"
    for name in (
        *("api", "base", "compare", "csv", "documents", "dom", "drops", "estimate", "export", "fields", "files"),
        *("history", "python-code", "refusal", "results", "share", "snippet-dialog", "snippets"),
    )
)
"""The modules that playground.js imports: the page names them, so that the browser asks for all of them at once."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A served model in the playground's menu. price: of a million tokens, in the list's currency."""

    name: str
    aliases: tuple[str, ...]
    reads_instruct: bool
    notice: str | None
    price: str


@dataclass(frozen=True, slots=True)
class PlaygroundPage(Page):
    """`/`. modes, presets: instructs by name. samples: by task. state: read by the script."""

    template: ClassVar[str] = "playground.html"
    models: tuple[ModelEntry, ...]
    modes: Mapping[str, str]
    presets: Mapping[str, str]
    samples: Mapping[str, list[Sample]]
    state: Mapping[str, Any]
    needs_key: bool
    scripts: tuple[str, ...]


def playground_page(context: WebContext, session: Session | None) -> PlaygroundPage:
    """The page for a visitor, who may be signed in."""
    models, by_task = _entries(context), dict[str, list[Sample]]()
    for sample in samples().values():
        by_task.setdefault(sample.task, []).append(sample)
    state = {
        "needsKey": context.needs_key,
        "csrf": session.csrf if session and session.may("member") else None,
        "free": _costs_nothing(context, session),
        "accounts": context.accounts is not None,
        "maxDocuments": context.settings.max_documents,
        "maxTokens": context.settings.max_total_tokens,
        "currency": context.prices.current().currency,
        "models": [
            {"name": one.name, "aliases": one.aliases, "readsInstruct": one.reads_instruct, "price": one.price}
            for one in models
        ],
        "modes": SORTING_MODES,
        "defaultInstruct": SORTING_MODES["Question answering"],
        "samples": samples_for_page(),
        "ready": context.models.default.ready,
    }
    return PlaygroundPage(models, SORTING_MODES, MORE_INSTRUCTS, by_task, state, context.needs_key, SCRIPTS)


def _entries(context: WebContext) -> tuple[ModelEntry, ...]:
    """One for each served model that is ready, the default first."""
    entries = []
    for served in context.models:
        if served.ready:
            own, *others = context.models.names_of(served)
            info, price = served.scorer.info, context.prices.current().of((own, *others))
            aliases = tuple(others)
            entries.append(ModelEntry(own, aliases, info.reads_instruct, info.notice, f"{price.input_price:f}"))
    return tuple(entries)


def _costs_nothing(context: WebContext, session: Session | None) -> bool:
    """Whether the page may send calls by itself: nobody pays, or a free quota does."""
    if context.accounts is None:
        return True
    if session is None or not session.may("member") or not context.names():
        return False
    price = context.prices.current().of(context.models.names_of(context.models.default))
    try:
        return not price.input_price or context.accounts.ledger.quota(session.payer.id, price).left >= ENOUGH_FREE
    except Unavailable:
        return False
