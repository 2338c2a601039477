"""Calls in every API while upstreams are killed, restarted, slowed and broken: no wrong score, hang or charge."""

from __future__ import annotations

from pathlib import Path

from rerankd.apis.facts import ALL
from support.chaos import storm

CALLS_OF_EACH = 60
"""A thousand in all; `python -m support.chaos` makes a thousand of each."""


def test_a_thousand_calls_in_all_apis_while_upstreams_come_and_go(tmp_path: Path) -> None:
    outcome = storm(CALLS_OF_EACH, 1, f"sqlite:///{tmp_path / 'accounts.db'}", tmp_path)
    assert outcome.wrong == []
    assert len(outcome.seconds) == CALLS_OF_EACH * len(ALL) >= 1000
    assert all(outcome.answered[facts.name] >= CALLS_OF_EACH / 2 for facts in ALL)
    assert {status for _, status in outcome.refused} <= {502, 503, 504, 424, 429}
    assert {"killed", "restarted", "slowed", "broken"} <= outcome.events.keys()
