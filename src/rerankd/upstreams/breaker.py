"""Whether one upstream may be asked. Pure: the time and the chance are passed in.

An upstream is `unknown` until a probe has checked its scores, and `closed` while it answers. It leaves that state after
failures (`open`), after it refused our key, our bill or our model (`refused`), or after wrong scores (`wrong`). Only a
probe that passes closes it again: a caller's call is never the trial. A closed upstream that said "later" rests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

State = Literal["unknown", "closed", "open", "refused", "wrong"]

STATES: tuple[State, ...] = ("unknown", "closed", "open", "refused", "wrong")

FAILURES_IN_A_ROW = 5

SHARE_OF_FAILURES, OF_ATTEMPTS, WITHIN_S = 0.5, 20, 30.0
"""This share of failures opens it, too, among at least this many attempts within this many seconds."""

FIRST_REST_S, LONGEST_REST_S = 1.0, 30.0
"""The first and the longest pause of a full upstream that does not name one. The pause doubles each time."""

LONGEST_WANTED_REST_S = 300.0
"""The longest accepted `Retry-After`."""

FIRST_PROBE_S, LONGEST_PROBE_S, JITTER = 1.0, 60.0, 0.2
"""Seconds until the first probe, which double with each that fails; and how much chance changes them."""

REFUSED_S = 75.0
"""Seconds until the first probe after a refusal, 60 at least: somebody has to correct a setting."""


class Breaker:
    """The state of one upstream. Times are seconds of one monotonic clock.

    Args:
        chance: a number in [0, 1), so that the probes of several servers do not meet.
    """

    def __init__(self, chance: Callable[[], float], now: float) -> None:
        self._chance = chance
        self.state: State = "unknown"
        self.probe_at = now  # when the next probe is due; has no meaning while closed
        self.rests_until = now
        self._failures = 0  # in a row
        self._recent: deque[tuple[float, bool]] = deque()  # (when, whether it failed)
        self._probe_s = FIRST_PROBE_S
        self._rest_s = FIRST_REST_S

    def may_be_asked(self, now: float) -> bool:
        """Whether a call may go there."""
        return self.state == "closed" and now >= self.rests_until

    def ready_at(self, now: float) -> float:
        """The soonest moment at which it may be asked; now, if it may be."""
        return max(now, self.rests_until if self.state == "closed" else self.probe_at)

    def succeeded(self, now: float) -> None:
        """A call was answered."""
        self._failures, self._rest_s = 0, FIRST_REST_S
        self._count(now, failed=False)

    def failed(self, now: float) -> None:
        """A call was not answered as it should."""
        self._failures += 1
        self._count(now, failed=True)
        failures = sum(failed for _, failed in self._recent)
        is_often = len(self._recent) >= OF_ATTEMPTS and failures >= SHARE_OF_FAILURES * len(self._recent)
        if self.state == "closed" and (self._failures >= FAILURES_IN_A_ROW or is_often):
            self.open(now)

    def open(self, now: float) -> None:
        """It answers nothing: calls stay away until a probe passes."""
        self._leave("open", now, FIRST_PROBE_S)

    def refuse(self, now: float) -> None:
        """It refused our key, our bill or our model's name."""
        if self.state == "closed":
            self._leave("refused", now, REFUSED_S)

    def rest(self, now: float, wanted_s: float | None) -> None:
        """It is full, which is not a failure. wanted_s: how long, if it says so."""
        seconds = min(wanted_s, LONGEST_WANTED_REST_S) if wanted_s else self._rest_s
        if not wanted_s:  # none, or a date that is past: one of the clocks is wrong
            self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)
        self.rests_until = max(self.rests_until, now + seconds)

    def probe_passed(self, now: float) -> None:
        """Its scores are right: calls may go there."""
        self.state = "closed"
        self._failures, self._probe_s = 0, FIRST_PROBE_S
        self._recent.clear()

    def probe_failed(self, now: float, state: State = "open") -> None:
        """It did not answer a probe (`open`), refused it, or gave scores that cannot be right (`wrong`)."""
        if self.state == "closed" or state == "refused":
            self._leave(state, now, REFUSED_S if state == "refused" else FIRST_PROBE_S)
        else:
            self.state = state
            self._plan(now)

    def _leave(self, state: State, now: float, probe_s: float) -> None:
        self.state = state
        self._probe_s = probe_s
        self._plan(now)

    def _plan(self, now: float) -> None:
        """Plans the next probe, and the one after it later."""
        self.probe_at = now + self._probe_s * (1 + JITTER * (2 * self._chance() - 1))
        self._probe_s = min(2 * self._probe_s, LONGEST_PROBE_S)

    def _count(self, now: float, failed: bool) -> None:
        self._recent.append((now, failed))
        while self._recent[0][0] < now - WITHIN_S:
            self._recent.popleft()
