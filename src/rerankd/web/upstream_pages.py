"""The upstreams on the page for administrators: a row for each, and the form that checks one now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from anyio import from_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.sessions import Session
from rerankd.errors import InvalidRequest
from rerankd.server.models import Models
from rerankd.server.served_pool import ServedPool
from rerankd.upstreams.member import Member
from rerankd.upstreams.outcomes import FAILURES
from rerankd.upstreams.pool import Pool
from rerankd.upstreams.upstream import Upstream
from rerankd.web.forms import Form
from rerankd.web.guards import Guards, PageHandler

PROBE_PATH = "/admin/upstreams/probe"

STATES = {
    "closed": ("answers", "good"),
    "resting": ("asked to come later", "warn"),
    "unknown": ("not checked yet", "warn"),
    "open": ("does not answer", "bad"),
    "refused": ("refuses our key, credit or model", "bad"),
    "wrong": ("wrong scores", "bad"),
}
"""The state of a breaker, in words for a person, and the kind of its badge."""


@dataclass(frozen=True, slots=True)
class UpstreamRow:
    """An upstream, as the page shows it.

    Attributes:
        pool: the model that it answers for.
        place: that model, the one that it is asked for, its tier and its weight.
        badge: good, warn or bad.
        notes: its last error, and the verdict of its last check.
        share: of the model's tokens since the start, in [0, 1]; None before the first.
        seconds: the mean of its answered calls; None before the first.
        failures: calls that it did not answer as it should.
        can_be_probed: whether it is another server.
    """

    pool: str
    name: str
    place: str
    state: str
    badge: str
    notes: tuple[str, ...]
    share: float | None
    seconds: float | None
    answered: int
    failures: int
    can_be_probed: bool


def upstream_rows(models: Models) -> tuple[UpstreamRow, ...]:
    """The upstreams of every model, in the order of the settings."""
    return tuple(row for pool in _pools(models) for row in _rows(pool.pool))


class UpstreamForms:
    """`POST /admin/upstreams/probe`. page: shows the form again if it is refused."""

    def __init__(self, models: Models, guards: Guards, page: PageHandler) -> None:
        self._models = models
        self._guards = guards
        self._page = page

    def add_to(self, router: APIRouter) -> None:
        self._guards.form(router, PROBE_PATH, self.probe, self._page, "admin")

    def probe(self, request: Request, session: Session, form: Form) -> Response:
        """Checks one upstream, in the event loop that owns it."""
        for served in _pools(self._models):
            if served.pool.name == form["model"] and _probed(served.pool, form["upstream"]):
                from_thread.run(served.probe_now, form["upstream"])
                return RedirectResponse("/admin/server#upstreams", 303)
        raise InvalidRequest("There is no such upstream any more.")


def _pools(models: Models) -> Iterator[ServedPool]:
    return (served for served in models if isinstance(served, ServedPool))


def _probed(pool: Pool, name: str) -> bool:
    return any(member.name == name and isinstance(member, Upstream) for member in pool.members)


def _rows(pool: Pool) -> Iterator[UpstreamRow]:
    members, now = pool.members, pool.clock()
    tokens = sum(member.stats.tokens for member in members)
    return (_row(pool.name, member, tokens, now) for member in members)


def _row(pool: str, member: Member, tokens: int, now: float) -> UpstreamRow:
    stats = member.stats
    state, badge = STATES[member.state(now)]
    seconds, num_timed = stats.seconds, sum(stats.seconds.counts)
    is_server = isinstance(member, Upstream)
    return UpstreamRow(
        pool=pool,
        name=member.name,
        place=_place(pool, member) if is_server else f"{pool}: in this process",
        state=state,
        badge=badge,
        notes=tuple(_notes(member)),
        share=stats.tokens / tokens if tokens else None,
        seconds=seconds.total / num_timed if num_timed else None,
        answered=stats.outcomes["answered"],
        failures=sum(stats.outcomes[kind] for kind in FAILURES),
        can_be_probed=is_server,
    )


def _place(pool: str, member: Member) -> str:
    asked_for = f", asked for {member.model}" if member.model not in (None, pool) else ""
    return f"{pool}{asked_for}: tier {member.tier}, weight {member.weight:g}"


def _notes(member: Member) -> Iterator[str]:
    if member.stats.last_error:
        yield f"Last error: {member.stats.last_error}"
    if member.stats.last_probe:
        yield f"Last check: {member.stats.last_probe}"
