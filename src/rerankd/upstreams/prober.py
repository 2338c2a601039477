"""Probes the upstreams of a pool beside the calls: closes breakers, and opens them where health or scores are gone."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from rerankd.upstreams.breaker import Breaker
from rerankd.upstreams.pool import Pool
from rerankd.upstreams.probe import Verdict, check, check_health
from rerankd.upstreams.upstream import Upstream

logger = logging.getLogger(__name__)

TICK_S = 0.1
"""Seconds between two rounds of the prober."""

HEALTH_S, MISSES = 10.0, 2
"""Seconds between two checks of the health of a server, if it has a path for it; failed checks in a row that open its
breaker."""

CHECK_S, HOSTED_CHECK_S = 900.0, 86_400.0
"""Seconds between two known-answer checks of an upstream that answers: a server, and a hosted service, where each costs
money."""


@dataclass(slots=True)
class _Plan:
    """When an upstream that answers is looked at next."""

    health_at: float
    check_at: float
    misses: int = 0


class Prober:
    """Runs until it is cancelled."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._plans: dict[Upstream, _Plan] = {}
        self._running: dict[Upstream, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Probes whatever is due."""
        try:
            while True:
                self.tick()
                await asyncio.sleep(TICK_S)
        finally:
            for task in self._running.values():
                task.cancel()

    def tick(self) -> None:
        """Starts the probes that are due now."""
        now = self._pool.clock()
        upstreams = [member for member in self._pool.members if isinstance(member, Upstream)]
        self._plans = {one: self._plans.get(one) or _plan(one, now) for one in upstreams}
        self._running = {one: task for one, task in self._running.items() if not task.done()}
        for one in upstreams:
            if one in self._running:
                continue
            plan = self._plans[one]
            if one.breaker.state != "closed":
                due = one.breaker.probe_at <= now
            else:
                due = min(plan.health_at, plan.check_at) <= now
            if due:
                self._running[one] = asyncio.get_running_loop().create_task(self._look(one, plan))

    async def _look(self, upstream: Upstream, plan: _Plan) -> None:
        try:
            now = self._pool.clock()
            if upstream.breaker.state != "closed" or plan.check_at <= now:
                await self.probe(upstream)
            elif await check_health(upstream):
                plan.misses = 0
            else:
                plan.misses += 1
                if plan.misses >= MISSES and upstream.breaker.state == "closed":
                    upstream.breaker.open(self._pool.clock())
                    self._say(upstream, "closed", "its health path does not answer")
        except Exception:
            logger.exception("The probe of upstream %s failed: this is a bug", upstream.name)
            upstream.breaker.probe_failed(self._pool.clock())  # and is not repeated at once
        finally:
            now = self._pool.clock()
            plan.health_at = now + HEALTH_S if upstream.health else plan.check_at

    async def probe(self, upstream: Upstream) -> Verdict:
        """Checks one upstream now, and opens or closes its breaker."""
        verdict = await check(upstream)
        now, breaker, before = self._pool.clock(), upstream.breaker, upstream.breaker.state
        upstream.stats.last_probe = verdict.sentence
        self._plans.setdefault(upstream, _plan(upstream, now)).check_at = now + _pause_s(upstream)
        if verdict.status in ("published", "sane"):
            breaker.probe_passed(now)
            self._pool.wake()
        elif verdict.status == "wrong":
            breaker.probe_failed(now, "wrong")
        elif before != "closed" or verdict.kind == "refused":
            _put_off(breaker, now, verdict)
        self._say(upstream, before, verdict.sentence)
        return verdict

    def _say(self, upstream: Upstream, before: str, reason: str) -> None:
        state = upstream.breaker.state
        if state != before:
            level = logging.ERROR if state in ("wrong", "refused") else logging.WARNING
            level = logging.INFO if state == "closed" else level
            logger.log(level, "Upstream %s of %s is %s now: %s", upstream.name, self._pool.name, state, reason)


def _plan(upstream: Upstream, now: float) -> _Plan:
    return _Plan(now + HEALTH_S, now + _pause_s(upstream))


def _pause_s(upstream: Upstream) -> float:
    return CHECK_S if upstream.health else HOSTED_CHECK_S


def _put_off(breaker: Breaker, now: float, verdict: Verdict) -> None:
    """It gave no scores. If an upstream refuses a probe as a mistake, our settings are wrong."""
    breaker.probe_failed(now, "refused" if verdict.kind in ("refused", "caller") else "open")
    if verdict.wanted_pause_s is not None:
        breaker.rest(now, verdict.wanted_pause_s)
        breaker.probe_at = max(breaker.probe_at, breaker.rests_until)
