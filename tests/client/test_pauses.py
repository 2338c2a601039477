"""How long the clients wait before they ask again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rerankd.client.retry import FIRST_WAIT_S, LONGEST_WAIT_S, wait_s


@given(attempt=st.integers(0, 50))
def test_pauses_grow_within_bounds(attempt: int) -> None:
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)
    assert longest / 2 <= wait_s(attempt, None) <= longest


@given(attempt=st.integers(0, 50), asked_s=st.floats(0, 1e6))
def test_what_the_server_asks_for_is_never_undercut(attempt: int, asked_s: float) -> None:
    assert asked_s <= wait_s(attempt, asked_s) <= asked_s * 1.1


def test_two_clients_that_failed_together_do_not_come_back_together() -> None:
    assert len({wait_s(3, asked_s) for asked_s in (None, 5.0) for _ in range(50)}) > 90
