"""Codes of an authenticator app, with the published values, on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest

from rerankd.accounts.second_factor import SECRET, SecondFactors, code_of, new_secret
from rerankd.accounts.store import Store
from rerankd.errors import InvalidRequest
from support.payers import Clock

RFC_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ],
)
def test_the_codes_of_the_rfc(seconds: int, code: str) -> None:
    assert code_of(RFC_SECRET, seconds // 30) == code


def test_a_code_signs_in_once_and_not_for_long(store: Store) -> None:
    clock = Clock(NOW)
    factors = SecondFactors(store.database, clock)
    account, secret = store.accounts.create("ann@example.org"), new_secret()
    assert SECRET.fullmatch(secret) and secret != new_secret()
    assert factors.check(account.id, "") and not factors.check(99, "")
    session = store.sessions.open(account.id)

    def code(steps: int = 0) -> str:
        return code_of(secret, int(clock.now) // 30 + steps)

    for wrong_secret, wrong_code in ((secret, "000000x"), (secret.lower(), code()), ("A" * 16, code())):
        with pytest.raises(InvalidRequest):
            factors.turn_on(account.id, wrong_secret, wrong_code)
    factors.turn_on(account.id, secret, code())
    assert store.sessions.find(session) is None
    found = store.accounts.by_id(account.id)
    assert found and found.has_second_factor and secret not in repr(found)
    assert not factors.check(account.id, code()), "it was used to turn it on"
    assert not factors.check(account.id, code(-1)), "it is older than the one used"
    clock.now += 60
    assert not any(factors.check(account.id, wrong) for wrong in ("", "١٢٣٤٥٦", code(-2), code(2), code()[:5]))
    assert factors.check(account.id, f" {code()[:3]} {code()[3:]} ") and not factors.check(account.id, code())
    assert factors.check(account.id, code(1)), "the app's clock may be ahead"
    factors.turn_off(account.id)
    factors.turn_off(account.id)
    assert factors.check(account.id, "")
    assert [one.action for one in store.admin_log.find(10)] == ["second factor removed", "account created"]
