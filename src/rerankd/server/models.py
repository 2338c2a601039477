"""The models of one server: which of them answers to a name. Knows no key and no API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rerankd.errors import ModelNotFound
from rerankd.server.served import ServedModel
from rerankd.server.served_pool import ServedPool

HOSTED_ONLY = "qwen3.7-text-rerank"
"""A newer model of DashScope, whose weights are not published."""

ALIASES = ("qwen3-rerank", "gte-rerank", "gte-rerank-v2", HOSTED_ONLY)
"""DashScope's names; some of its clients always send one."""

QWEN3_RERANKERS = tuple(f"Qwen/Qwen3-Reranker-{size}" for size in ("0.6B", "4B", "8B"))

OTHER_MODELS = (*QWEN3_RERANKERS, HOSTED_ONLY)
"""Names of one model each: a warning says if another one scored."""

Served = ServedModel | ServedPool


@dataclass(frozen=True, slots=True)
class Cascade:
    """A second model for the best documents of the default model; see `cascade.SecondStage`."""

    served: Served
    top: int
    required: bool


class Models:
    """Every model answers to its own name; the first one also to the others.

    Args:
        served: the default model first.
        aliases: further names of the default model.
        cascade: the second stage of the default model; its model is one of `served`.
        any_size: the default model also answers to the name of every Qwen3-Reranker.
    """

    def __init__(
        self, *served: Served, aliases: Sequence[str] = (), any_size: bool = False, cascade: Cascade | None = None
    ) -> None:
        self.cascade = cascade
        self.all = served
        self.default = served[0]
        self.stopping = False  # set once the process was asked to end
        self._aliases = tuple(aliases)
        self._more_names = (*self._aliases, *ALIASES, *(QWEN3_RERANKERS if any_size else ()))

    def __iter__(self) -> Iterator[Served]:
        return iter(self.all)

    def load(
        self, on_failure: Callable[[], None], accept: Callable[[Sequence[str]], None] = lambda names: None
    ) -> None:
        """Starts loading all of them and returns at once; see `ServedModel.load`.

        Args:
            accept: given the names of one model before it answers.
        """
        for served in self.all:
            served.load(on_failure, lambda own, served=served: accept(self._names(served, own)))  # type: ignore[misc]

    def close(self) -> None:
        """Drains and ends their engines."""
        for served in self.all:
            served.close()

    async def closed(self) -> None:
        """Waits until the connections to upstreams are closed; `close` begins that."""
        for served in self.all:
            if isinstance(served, ServedPool):
                await served.closed()

    @property
    def ready(self) -> bool:
        """Whether all of them can answer."""
        return all(served.ready for served in self.all)

    @property
    def failure(self) -> Exception | None:
        """Why one of them can answer nothing any more."""
        return next((served.failure for served in self.all if served.failure), None)

    def names(self) -> Mapping[str, Served]:
        """Every name with the model that answers to it; those of models that still load are unknown."""
        names: dict[str, Served] = {}
        for served in (*self.all[1:], self.default):
            if served.ready:
                names = dict.fromkeys(self.names_of(served), served) | names
        return names

    def names_of(self, served: Served) -> tuple[str, ...]:
        """Every name that one model answers to, its own first.

        Raises:
            Loading: they are not known yet.
        """
        others: set[str] = set()
        for other in self.all:
            if other is not served and other.ready:
                others |= {other.scorer.info.name, *other.aliases}
        return tuple(name for name in self._names(served, served.scorer.info.name) if name not in others)

    def names_without_body(self) -> tuple[str, ...]:
        """The names of the only model; none where the body has to say which one is asked. Raises Loading."""
        return self.names_of(self.default) if len(self.all) == 1 else ()

    def _names(self, served: Served, own: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys((own, *served.aliases, *(self._more_names if served is self.default else ()))))

    def find(self, name: str | None, *, any_name: bool = False) -> tuple[Served, tuple[str, ...]]:
        """The model that answers to a name, and a warning where another model than the named one does.

        Args:
            name: None for the default model.
            any_name: the default model answers to unknown names, too.

        Raises:
            Loading: the names are not known yet.
            ModelNotFound: no model answers to it.
        """
        if name is None:
            return self.default, ()
        known = self.names()
        if name not in known and not all(served.ready for served in self.all):
            self._raise_loading()
        if name not in known and not any_name:
            raise ModelNotFound(name, tuple(known))
        served = known.get(name, self.default)
        own = served.scorer.info.name
        if name not in known or (name in OTHER_MODELS and name not in (own, *self._aliases)):
            return served, (f"model substituted: {name[:200]} was asked for, {own} scored",)
        return served, ()

    def _raise_loading(self) -> None:
        """Raises Loading, for the first that is not ready."""
        for served in self.all:
            served.scorer  # noqa: B018
