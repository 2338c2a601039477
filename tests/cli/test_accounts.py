"""`rerankd accounts`, `keys`, `credits` and `usage`: one story from an empty database on, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from alembic import command as alembic
from alembic.config import Config
from sqlalchemy import create_engine, text

from rerankd.accounts.decision import CallCost
from rerankd.accounts.store import Store, open_store
from rerankd.accounts.usage import usage
from rerankd.cli.main import main
from rerankd.prices import Price
from rerankd.types import CallLimits

Command = Callable[..., tuple[int, str, str]]
NUMBERS = count()
PRICE = Price(model="qwen3-rerank", input_price=Decimal("0.1"), free_tokens=1000)


@pytest.fixture
def command(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Runs the command on an empty database: its status, stdout and stderr."""
    monkeypatch.setenv("RERANKD_DATABASE", database_url)

    def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = main(arguments)
        done = capsys.readouterr()
        return status, done.out, done.err

    return run


@pytest.fixture
def ann(command: Command) -> str:
    """An account of that address."""
    assert command("accounts", "create", "ann@example.org", "--no-password")[0] == 0
    return "ann@example.org"


def call(store: Store, secret: str, tokens: int) -> int:
    """What a call with the key costs."""
    caller = store.keys.find(secret)
    assert caller is not None
    return store.ledger.settle(store.ledger.reserve(caller, PRICE, CallCost(tokens, f"{next(NUMBERS)}", b""))).cost


def test_from_an_empty_database_to_a_bill(command: Command, store: Store) -> None:
    made = command("accounts", "create", "Ann@Example.org", "--admin", "--password-stdin", stdin="hunter2 hunter2\n")
    assert made == (0, "Made the administrator ann@example.org.\n", "")
    ann = store.accounts.check_password("ann@example.org", "hunter2 hunter2")
    assert ann is not None and ann.role == "admin"

    assert command("credits", "add", "ann@example.org", "25.00", "--note", "welcome")[1] == (
        "ann@example.org: 25.00 USD; the balance is 25.00 USD.\n"
    )
    status, secret, told = command("keys", "create", "--account", "ann@example.org", "--name", "laptop [1]")
    assert status == 0 and re.fullmatch(r"rk-[\w-]{43}\n", secret)
    assert "Made key 1 of ann@example.org" in told and secret.strip() not in told
    assert call(store, secret.strip(), 51_000) == 5000

    header, line = command("keys", "list")[1].splitlines()
    assert header.split() == "id account name key models own limits spent this month created last used".split()
    assert "laptop [1]" in line and secret[:7] in line and "all" in line and "never" not in line
    assert secret.strip() not in line
    assert "24.995 USD" in command("accounts", "list")[1]
    header, line = command("usage", "--by", "key,model")[1].splitlines()
    assert header.split("  ")[-1] == "cost, USD"
    assert line.split()[-6:] == ["qwen3-rerank", "1", "51,000", "1,000", "50,000", "0.005"]

    assert command("keys", "revoke", "1")[:2] == (0, "Key 1 is revoked.\n")
    assert store.keys.find(secret.strip()) is None
    assert command("keys", "list", "--account", "ann@example.org")[1].splitlines()[1].endswith("revoked")
    assert command("accounts", "check")[:2] == (0, "All balances add up.\n")


def test_a_key_with_everything(command: Command, store: Store, ann: str) -> None:
    options = ("--expires", "90d", "--model", "a", "--model", "b", "--requests-per-minute", "60", "--concurrency", "2")
    status, secret, _ = command("keys", "create", "--account", ann, "--name", "k", *options)
    assert status == 0
    caller = store.keys.find(secret.strip())
    assert caller is not None and caller.models == ("a", "b") and caller.key_limits == CallLimits(60, None, 2)
    (key,) = store.keys.all()
    assert key.expires is not None
    assert timedelta(days=89.9) < key.expires - datetime.now(UTC) <= timedelta(days=90)
    line = command("keys", "list")[1].splitlines()[1]
    assert "a, b" in line and "60 requests/min, 2 at a time" in line and f"expires {key.expires:%Y-%m-%d}" in line


@pytest.mark.parametrize(("when", "day"), [("2999-12-31", "2999-12-31"), ("48h", None), ("2w", None)])
def test_when_a_key_expires(command: Command, store: Store, ann: str, when: str, day: str | None) -> None:
    assert command("keys", "create", "--account", ann, "--name", "k", "--expires", when)[0] == 0
    (key,) = store.keys.all()
    assert key.expires is not None and key.expires > datetime.now(UTC)
    assert day is None or str(key.expires.date()) == day


def test_credit_is_exact_and_may_be_taken_back(command: Command, store: Store, ann: str) -> None:
    for amount, balance in (
        ("0.1", "0.10"),
        ("0.2", "0.30"),
        ("-0.300001", "-0.000001"),
        ("999999999", "999999998.999999"),
    ):
        assert command("credits", "add", ann, amount)[1].endswith(f"the balance is {balance} USD.\n")
    account = store.accounts.by_email(ann)
    assert account is not None and account.balance == 999999998_999999


def test_the_currency_is_that_of_the_price_list(command: Command, ann: str, tmp_path: Path) -> None:
    file = tmp_path / "rerankd.toml"
    file.write_text('[rates."qwen3-rerank"]\ninput_price = 0.1\ncurrency = "EUR"\n')
    assert "25.00 EUR" in command("credits", "add", ann, "25", "--config", str(file))[1]
    assert "25.00 EUR" in command("accounts", "list", "--config", str(file))[1]


def test_limits_are_shown_and_changed_one_by_one(command: Command, ann: str) -> None:
    def limits(*options: str) -> str:
        return command("accounts", "limits", ann, *options)[1].removeprefix("ann@example.org: ").strip()

    assert limits() == "no limits of its own."
    assert limits("--requests-per-minute", "60") == "60 requests/min."
    assert limits("--tokens-per-minute", "9", "--concurrency", "2") == "60 requests/min, 9 tokens/min, 2 at a time."
    assert limits("--requests-per-minute", "none") == "9 tokens/min, 2 at a time."
    assert "9 tokens/min, 2 at a time" in command("accounts", "list")[1]


def test_a_disabled_account(command: Command, store: Store, ann: str) -> None:
    secret = command("keys", "create", "--account", ann, "--name", "k")[1].strip()
    assert command("accounts", "disable", "ANN@example.org")[:2] == (0, "ann@example.org is disabled.\n")
    assert store.keys.find(secret) is None
    assert command("accounts", "list")[1].splitlines()[1].endswith("disabled")
    assert command("accounts", "enable", ann)[:2] == (0, "ann@example.org is enabled.\n")
    assert store.keys.find(secret)


def test_a_password_is_changed(command: Command, store: Store, ann: str) -> None:
    account = store.accounts.by_email(ann)
    assert account is not None
    session = store.sessions.open(account.id)
    assert command("accounts", "password", ann, "--password-stdin", stdin="hunter3 hunter3")[0] == 0
    assert store.accounts.check_password(ann, "hunter3 hunter3")
    assert store.sessions.find(session) is None


def test_check_says_what_does_not_add_up(command: Command, store: Store, ann: str) -> None:
    with store.database.transaction() as connection:
        connection.execute(text("UPDATE accounts SET balance = 7"))
    assert command("accounts", "check")[:2] == (1, "Account 1: balance is 7, but adds up to 0.\n")


def test_usage_as_csv_and_as_a_table_with_a_sum(command: Command, store: Store, ann: str) -> None:
    command("accounts", "create", "bob@example.org", "--no-password")
    for email in (ann, "bob@example.org"):
        command("credits", "add", email, "1")
        call(store, command("keys", "create", "--account", email, "--name", "=k")[1].strip(), 2000)
    out = command("usage", "--by", "key,day", "--csv")[1]
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [(line["calls"], line["billed_tokens"], line["cost"]) for line in lines] == [("1", "1000", "0.0001")] * 2
    assert all(line["key"].startswith("'=k (rk-") for line in lines)
    records = json.loads(command("usage", "--by", "account,day", "--json")[1])
    assert [(one["account"], one["calls"], one["cost"], one["currency"]) for one in records] == [
        (ann, 1, 100, "USD"),
        ("bob@example.org", 1, 100, "USD"),
    ]
    assert all(one["day"] == str(datetime.now(UTC).date()) for one in records)
    assert command("usage", "--by", "account")[1].splitlines()[-1].split() == [
        *("all", "2", "4,000", "2,000", "2,000", "0.0002"),
    ]
    assert len(command("usage", "--account", ann)[1].splitlines()) == 2
    today, tomorrow = (str((datetime.now(UTC) + timedelta(days=days)).date()) for days in (0, 1))
    assert len(command("usage", "--since", today, "--until", today)[1].splitlines()) == 2
    assert len(command("usage", "--since", tomorrow)[1].splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("accounts create ann@example.org", "ann@example.org has an account already"),
        ("accounts create nonsense", "not an e-mail address"),
        ("accounts create bob@example.org", "no terminal to ask for the password on: pass --password-stdin"),
        ("accounts create bob@example.org --password-stdin", "The password must have from 8"),
        ("accounts password bob@example.org", "There is no account bob@example.org"),
        ("accounts limits ann@example.org --concurrency 0", "concurrency: must be from 1"),
        ("keys create --account bob@example.org --name k", "There is no account bob@example.org"),
        ("keys create --account ann@example.org --name k --expires 2000-01-01", "expire immediately"),
        ("keys revoke 99", "There is no key 99"),
        *(
            (f"credits add ann@example.org {amount}", "must be a number such as 25.00")
            for amount in ("1e400000000", "NaN", "Infinity", "0.0000001", "1.00000000000000000000000000001", "1,5", "٣")
        ),
        ("credits add ann@example.org 0", "not 0"),
        ("usage --by colour", "not by colour"),
        ("accounts list --database mysql://host/name", "neither sqlite:///FILE nor postgresql"),
    ],
)
def test_mistakes_are_told_in_one_line(command: Command, ann: str, arguments: str, error: str) -> None:
    status, out, told = command(*arguments.split())
    assert (status, out) == (1, "")
    assert told.startswith(f"rerankd {arguments.split()[0]}: ") and error in told and told.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "keys create --account a --name b --expires soon",
        "keys create --account a --name b --expires 99999d",
        "usage --since yesterday",
        "accounts",
        "accounts limits a --concurrency many",
        "accounts create a --no-password --password-stdin",
    ],
)
def test_a_bad_command_line_is_refused(command: Command, arguments: str) -> None:
    status, out, told = command(*arguments.split())
    assert (status, out) == (2, "")
    assert told.startswith("rerankd ") or arguments == "accounts"  # which shows its actions


def in_a_dialogue(arguments: list[str], *dialogue: tuple[bytes, bytes]) -> tuple[int, bytes]:
    """Runs the command on a terminal where somebody types: its status, and all that it showed.

    Args:
        dialogue: words to wait for, and what is typed then.
    """
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "rerankd", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    for words, typed in dialogue:
        while words not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, typed)
    with suppress(OSError):  # the end of a terminal
        while more := os.read(terminal, 1000):
            shown += more
    os.close(terminal)
    return process.wait(60), shown


@pytest.mark.parametrize(("again", "status"), [("hunter2 hunter2", 0), ("hunter2 hunter", 1)])
def test_a_password_is_asked_for_twice_and_not_shown(tmp_path: Path, again: str, status: int) -> None:
    create = ["accounts", "create", "ann@example.org", "--database", f"sqlite:///{tmp_path / 'a.db'}"]
    dialogue = (b"Password: ", b"hunter2 hunter2\n"), (b"again: ", again.encode() + b"\n")
    ended, shown = in_a_dialogue(create, *dialogue)
    assert ended == status and b"hunter" not in shown
    assert (b"Made the account" if status == 0 else b"The two passwords differ.") in shown


def test_no_password_is_typed(tmp_path: Path) -> None:
    create = ["accounts", "create", "ann@example.org", "--database", f"sqlite:///{tmp_path / 'a.db'}"]
    ended, shown = in_a_dialogue(create, (b"Password: ", b"\x04"))
    assert ended == 1 and b"No password was typed." in shown and b"Traceback" not in shown


def test_a_deletion_is_confirmed(command: Command, ann: str, database_url: str) -> None:
    status, out, told = command("accounts", "delete", ann)
    assert (status, out) == (1, "") and "pass --yes" in told
    delete = ["accounts", "delete", ann, "--database", database_url]
    refused, shown = in_a_dialogue(delete, (b"to continue: ", b"bob@example.org\n"))
    assert refused == 1 and b"ann@example.org is not deleted" in shown
    assert "deleted" not in command("accounts", "list")[1]
    assert in_a_dialogue(delete, (b"to continue: ", b"Ann@example.org\n"))[0] == 0
    assert "deleted" in command("accounts", "list")[1]


def test_a_deletion_without_a_question(command: Command, ann: str) -> None:
    assert command("accounts", "delete", ann, "--yes")[:2] == (
        *(0, "Deleted ann@example.org. Its entries stay, as those of account 1.\n"),
    )


def test_lists_that_a_program_reads(command: Command, store: Store, ann: str) -> None:
    command("credits", "add", ann, "2.5", "--note", "=welcome")
    for number in range(30):
        options = ("--requests-per-minute", "60", "--expires", "90d", "--model", "a", "--model", "b")
        command("keys", "create", "--account", ann, "--name", f"{'a very long name ' * 5}{number}", *options)
    [account] = json.loads(command("accounts", "list", "--json")[1])
    assert (account["email"], account["balance"], account["currency"], account["disabled"]) == (
        *(ann, 2_500_000, "USD", False),
    )
    keys = json.loads(command("keys", "list", "--json")[1])
    assert len(keys) == 30 and keys[0]["requests_per_minute"] == 60 and keys[0]["models"] == "a b"
    assert datetime.fromisoformat(keys[0]["expires"]) > datetime.now(UTC) + timedelta(days=89)
    [row] = csv.DictReader(io.StringIO(command("accounts", "list", "--csv")[1]))
    assert (row["email"], row["balance"]) == (ann, "2500000")
    assert len(list(csv.DictReader(io.StringIO(command("keys", "list", "--csv")[1])))) == 30
    assert len(command("keys", "list")[1].splitlines()) == 31, "piped, a line for each"


def test_a_statement_says_why_a_balance_is_what_it_is(command: Command, store: Store, ann: str) -> None:
    secret = command("keys", "create", "--account", ann, "--name", "k")[1].strip()
    command("credits", "add", ann, "25", "--note", "invoice 17")
    call(store, secret, 1000)  # free
    call(store, secret, 100_000)
    command("credits", "add", ann, "-5", "--note", "correction")
    call(store, secret, 10)
    lines = json.loads(command("credits", "list", ann, "--json")[1])
    assert [(line["kind"], line["calls"], line["note"], line["amount"], line["balance"]) for line in lines] == [
        ("credit", 0, "invoice 17", 25_000_000, 25_000_000),
        ("charges", 2, None, -10_000, 24_990_000),
        ("credit", 0, "correction", -5_000_000, 19_990_000),
        ("charges", 1, None, -1, 19_989_999),
    ]
    header, *rows = command("credits", "list", ann)[1].splitlines()
    assert header.split() == ["time,", "UTC", "what", "note", "by", "amount", "balance"]
    assert "2 calls" in rows[1] and "-0.01 USD" in rows[1] and rows[2].split()[-4:] == ["-5.00", "USD", "19.99", "USD"]
    table = csv.DictReader(io.StringIO(command("credits", "list", ann, "--csv")[1]))
    assert [row["amount"] for row in table] == ["25000000", "-10000", "-5000000", "-1"]
    tomorrow = str((datetime.now(UTC) + timedelta(days=1)).date())
    assert json.loads(command("credits", "list", ann, "--since", tomorrow, "--json")[1]) == []


def test_the_only_administrator_stays(command: Command) -> None:
    command("accounts", "create", "ada@example.org", "--admin", "--no-password")
    status, _, told = command("accounts", "disable", "ada@example.org")
    assert status == 1 and "the only administrator: make another one first" in told
    command("accounts", "create", "bob@example.org", "--admin", "--no-password")
    assert command("accounts", "disable", "ada@example.org")[0] == 0


def test_a_backup_is_whole_while_servers_write(
    command: Command, store: Store, ann: str, tmp_path: Path, database_url: str
) -> None:
    secret = command("keys", "create", "--account", ann, "--name", "k")[1].strip()
    command("credits", "add", ann, "25")
    file = tmp_path / "backup.db"
    if database_url.startswith("postgresql"):
        assert "pg_dump" in command("accounts", "backup", str(file))[2]
        return
    stop, calls = threading.Event(), [0]

    def write() -> None:
        while not stop.is_set():
            call(store, secret, 2000)
            calls[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    while calls[0] < 50:
        time.sleep(0.01)
    before = calls[0]
    assert command("accounts", "backup", str(file))[:2] == (0, f"Copied the database to {file}.\n")
    stop.set()
    writer.join()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = command("accounts", "backup", str(file))
    assert again[0] == 1 and "File exists" in again[2]
    restored = open_store(f"sqlite:///{file}")
    (row,) = usage(restored.database, [])
    assert before <= row.calls <= calls[0] and restored.ledger.check() == []
    assert restored.keys.find(secret)
    restored.database.close()
    assert not list(tmp_path.glob("backup.db-*"))


def test_a_backup_upgrades_nothing(command: Command, tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", "rerankd.accounts:migrations")
    old, file = tmp_path / "old.db", tmp_path / "backup.db"
    engine = create_engine(f"sqlite:///{old}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.upgrade(config, "0002")
    engine.dispose()
    assert command("accounts", "backup", str(file), "--database", f"sqlite:///{old}")[0] == 0
    for path in (old, file):
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]


def test_a_backup_of_nothing_is_a_mistake(command: Command, tmp_path: Path) -> None:
    missing, file = tmp_path / "typo.db", tmp_path / "backup.db"
    status, _, told = command("accounts", "backup", str(file), "--database", f"sqlite:///{missing}")
    assert status == 1 and f"There is no database {missing}" in told
    assert not missing.exists() and not file.exists()


def test_a_missing_folder_is_a_mistake(command: Command, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nonexistent/x.db"
    status, _, told = command("accounts", "create", "ann@example.org", "--no-password", "--database", url)
    assert status == 1 and "there is no folder" in told and not (tmp_path / "nonexistent").exists()


def test_the_default_folder_is_made_or_another_place_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("RERANKD_DATABASE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "new"))
    assert main(["accounts", "create", "ann@example.org", "--no-password"]) == 0
    assert (tmp_path / "new" / "rerankd" / "rerankd.db").exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert main(["accounts", "list"]) == 1
    assert "--database" in capsys.readouterr().err


def test_a_budget_is_given_shown_changed_and_removed(command: Command, store: Store, ann: str) -> None:
    command("credits", "add", ann, "25.00")
    made = command("keys", "create", "--account", ann, "--name", "job", "--budget", "5")
    assert made[0] == 0
    (key,) = store.keys.all()
    assert key.budget == 5_000_000 and call(store, made[1].strip(), 11_001_000) == 1_100_000
    assert "1.10 USD of 5.00 USD" in command("keys", "list")[1]
    [listed] = json.loads(command("keys", "list", "--json")[1])
    assert (listed["budget"], listed["spent_this_month"], listed["currency"]) == (5_000_000, 1_100_000, "USD")
    told = "Key 1 may spend 2.50 USD a month; it has spent 1.10 USD in this month.\n"
    assert command("keys", "budget", "1", "2.50") == (0, told, "")
    assert command("keys", "budget", "1", "none")[1].startswith("Key 1 may spend any amount;")
    assert "  1.10 USD  " in command("keys", "list")[1]
    for wrong, why in (("0", "must be more than 0"), ("much", "must be a number such as 25.00")):
        status, _, error = command("keys", "budget", "1", wrong)
        assert status and why in error
    assert "There is no key 9." in command("keys", "budget", "9", "5")[2]
    assert command("keys", "create", "--account", ann, "--name", "k", "--budget", "0")[0]


def test_members_are_added_listed_changed_and_removed(command: Command, store: Store, ann: str) -> None:
    added = command("accounts", "add-member", ann, "Bob@example.org", "--password-stdin", stdin="hunter2 hunter2\n")
    assert added == (0, "bob@example.org is member of ann@example.org.\n", "")
    assert store.accounts.check_password("bob@example.org", "hunter2 hunter2")
    header, *lines = command("accounts", "members", ann)[1].splitlines()
    assert header.split() == "e-mail name role second factor since".split()
    assert [line.split()[0] for line in lines] == ["ann@example.org", "bob@example.org"]
    assert command("accounts", "member-role", ann, "bob@example.org", "owner")[1] == (
        "bob@example.org is owner of ann@example.org.\n"
    )
    records = json.loads(command("accounts", "members", ann, "--json")[1])
    assert [(one["email"], one["role"]) for one in records] == [(ann, "owner"), ("bob@example.org", "owner")]
    assert command("accounts", "member-role", ann, "bob@example.org", "king")[0] == 2
    assert command("accounts", "member-role", ann, "bob@example.org", "viewer")[0] == 0
    assert "only owner" in command("accounts", "member-role", ann, ann, "viewer")[2]
    assert "viewer of account 1" in command("accounts", "list")[1]
    assert "pays" in command("keys", "create", "--account", "bob@example.org", "--name", "k")[2]
    assert "is a member of this account already" in command("accounts", "add-member", ann, ann)[2]
    store.accounts.create("carl@example.org")
    joined = command("accounts", "add-member", ann, "carl@example.org", "--role", "owner")  # asks for no password
    assert joined == (0, "carl@example.org is owner of ann@example.org.\n", "")
    assert "carl@example.org" in command("accounts", "members", ann)[1]
    assert command("accounts", "remove-member", ann, "carl@example.org")[0] == 0
    removed = command("accounts", "remove-member", ann, "bob@example.org")[1]
    assert removed == "Removed bob@example.org from ann@example.org.\n"
    assert "is not a member of" in command("accounts", "remove-member", ann, "bob@example.org")[2]
    assert store.accounts.check_password("bob@example.org", "hunter2 hunter2") is None
