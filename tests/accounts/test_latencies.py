"""Percentiles of the calls of a day are those of the calls themselves, within the error that is promised."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from math import ceil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerankd.accounts.call_record import CallRecord
from rerankd.accounts.daily_latencies import latencies_by_day
from rerankd.accounts.latencies import class_of, percentile, together
from rerankd.accounts.store import Store
from support.payers import Payer, new_payer

MIDNIGHT = datetime(2027, 3, 2, tzinfo=UTC)
FROM_ON = date(2000, 1, 1), date(2100, 1, 1)

TIMES = st.one_of(st.integers(0, 100), st.integers(0, 10_000), st.integers(0, 10**9))


def exact(times: Sequence[int], percent: int) -> int:
    """The nearest rank, from the times themselves."""
    return sorted(times)[ceil(percent * len(times) / 100) - 1]


@given(st.lists(TIMES, min_size=1), st.integers(1, 100))
def test_a_percentile_is_at_most_a_32nd_above_the_exact_one(times: list[int], percent: int) -> None:
    found, true = percentile(Counter(map(class_of, times)), percent), exact(times, percent)
    assert found is not None and 0 <= (found - true) * 32 <= true
    assert found == true or true >= 64


@given(st.lists(st.lists(TIMES)), st.integers(1, 100))
def test_days_together_are_as_if_they_were_one(days: list[list[int]], percent: int) -> None:
    counted = together(Counter(map(class_of, day)) for day in days)
    assert counted == Counter(class_of(one) for day in days for one in day)
    assert percentile(counted, percent) == percentile(Counter(class_of(one) for day in days for one in day), percent)


def test_no_calls_have_no_percentile() -> None:
    assert percentile({}, 95) is None


@pytest.mark.parametrize("milliseconds", [0, 1, 63, 64, 65, 127, 128, 1_000, 10**7])
def test_classes_are_in_the_order_of_their_times(milliseconds: int) -> None:
    assert class_of(milliseconds) <= class_of(milliseconds + 1) <= class_of(milliseconds) + 1


CALLS = st.lists(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3 * 86_400), TIMES, st.booleans()), max_size=12), max_size=4
)
"""Batches of calls: (account, second, milliseconds, answered)."""


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CALLS)
def test_the_percentiles_of_each_day_are_those_of_its_answered_calls(
    store: Store, batches: list[list[tuple[int, int, int, bool]]]
) -> None:
    payers = [new_payer(store) for _ in range(2)]
    before = latencies_by_day(store.database, None, *FROM_ON)
    times: defaultdict[tuple[int | None, date], list[int]] = defaultdict(list)
    for batch in batches:
        store.calls.add([called(payers[one], second, ms, ok) for one, second, ms, ok in batch])
        for one, second, ms, ok in batch:
            day = (MIDNIGHT + timedelta(seconds=second)).date()
            if ok:
                times[payers[one].account_id, day].append(ms)
                times[None, day].append(ms)
    for account_id in (None, *(payer.account_id for payer in payers)):
        found = latencies_by_day(store.database, account_id, *FROM_ON)
        if account_id is None:  # other examples have calls on the same days
            found = {day: Counter(found[day]) - Counter(before.get(day, {})) for day in found}
            found = {day: counts for day, counts in found.items() if counts}
        assert set(found) == {day for account, day in times if account == account_id}
        for day, counts in found.items():
            own = times[account_id, day]
            p95 = percentile(counts, 95)
            assert sum(counts.values()) == len(own) and p95 is not None
            assert 0 <= (p95 - exact(own, 95)) * 32 <= exact(own, 95)


def called(payer: Payer, second: int, milliseconds: int, is_answered: bool) -> CallRecord:
    """A call of the payer's key."""
    at, error = MIDNIGHT + timedelta(seconds=second), None if is_answered else "RateLimited"
    who = payer.caller
    return CallRecord(at, who.account_id, who.key_id, "r", "jina", 200, milliseconds, "m", 1, 1, 1, error)
