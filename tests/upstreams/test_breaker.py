"""When an upstream may be asked, with a clock and a chance of the test's own."""

from __future__ import annotations

import pytest

from rerankd.upstreams.breaker import FAILURES_IN_A_ROW, Breaker

NO_CHANCE = 0.5
"""The middle of the jitter: the planned seconds exactly."""


def closed_breaker(chance: float = NO_CHANCE) -> Breaker:
    breaker = Breaker(lambda: chance, 0)
    breaker.probe_passed(0)
    return breaker


def test_nothing_is_asked_before_a_probe() -> None:
    breaker = Breaker(lambda: NO_CHANCE, 5)
    assert (breaker.state, breaker.may_be_asked(5), breaker.probe_at) == ("unknown", False, 5)
    breaker.succeeded(5)
    assert not breaker.may_be_asked(5)
    breaker.probe_passed(6)
    assert breaker.may_be_asked(6)


def test_five_failures_in_a_row_open_it() -> None:
    breaker = closed_breaker()
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed(1)
    breaker.succeeded(1)
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed(2)
    assert breaker.may_be_asked(2)
    breaker.failed(2)
    assert (breaker.state, breaker.may_be_asked(2)) == ("open", False)


@pytest.mark.parametrize(("seconds_apart", "state"), [(1.0, "open"), (2.0, "closed")])
def test_half_of_twenty_attempts_in_thirty_seconds_open_it(seconds_apart: float, state: str) -> None:
    breaker = closed_breaker()
    for number in range(20):
        breaker.succeeded(number * seconds_apart) if number % 2 else breaker.failed(number * seconds_apart)
    breaker.failed(20 * seconds_apart)
    assert breaker.state == state  # two seconds apart, only sixteen of them are in thirty seconds


def test_probes_come_later_and_later_and_only_a_passed_one_closes_it() -> None:
    breaker = closed_breaker()
    breaker.open(10)
    now, pauses = 10.0, []
    for _ in range(8):
        pauses.append(breaker.probe_at - now)
        now = breaker.probe_at
        assert not breaker.may_be_asked(now)
        breaker.probe_failed(now)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    breaker.probe_passed(now)
    assert breaker.may_be_asked(now)
    breaker.open(now)
    assert breaker.probe_at == now + 1  # begins again


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 0.8), (1.0, 1.2)])
def test_chance_moves_a_probe_by_a_fifth(chance: float, pause: float) -> None:
    breaker = closed_breaker(chance)
    breaker.open(0)
    assert breaker.probe_at == pytest.approx(pause)


def test_later_is_no_failure() -> None:
    breaker = closed_breaker()
    for _ in range(10):
        breaker.rest(100, 2)
    assert (breaker.state, breaker.may_be_asked(101.9), breaker.may_be_asked(102)) == ("closed", False, True)
    assert breaker.ready_at(101) == 102 and breaker.ready_at(103) == 103


def test_later_without_a_time_doubles_until_an_answer_and_a_long_time_is_not_believed() -> None:
    breaker = closed_breaker()
    ends = []
    for _ in range(7):
        breaker.rest(0, None)
        ends.append(breaker.rests_until)
    assert ends == [1, 2, 4, 8, 16, 30, 30]
    breaker.succeeded(30)
    breaker.rest(30, None)
    assert breaker.rests_until == 31
    breaker.rest(31, 86_400)
    assert breaker.rests_until == 331


def test_a_time_that_is_past_is_no_time() -> None:
    breaker = closed_breaker()
    breaker.rest(0, 0.0)
    assert (breaker.state, breaker.rests_until) == ("closed", 1)
    breaker.rest(1, 0.0)
    assert breaker.rests_until == 3


@pytest.mark.parametrize("chance", [0.0, 0.999])
def test_a_refusal_opens_it_for_a_minute_at_least(chance: float) -> None:
    breaker = closed_breaker(chance)
    breaker.refuse(0)
    assert breaker.state == "refused" and breaker.probe_at >= 60
    breaker.probe_failed(100, "refused")
    assert breaker.state == "refused" and breaker.probe_at >= 160
    breaker.probe_passed(200)
    assert breaker.may_be_asked(200)


def test_wrong_scores_open_it_also_while_it_answers() -> None:
    breaker = closed_breaker()
    breaker.probe_failed(0, "wrong")
    assert (breaker.state, breaker.may_be_asked(0), breaker.probe_at) == ("wrong", False, 1)
    breaker.probe_failed(1)
    assert breaker.state == "open"


def test_failures_of_calls_under_way_move_no_probe() -> None:
    breaker = closed_breaker()
    breaker.open(0)
    for _ in range(20):
        breaker.failed(0.5)
    assert breaker.probe_at == 1
    breaker.refuse(0.5)
    assert breaker.state == "open"
