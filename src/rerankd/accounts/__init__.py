"""Who may call, how much, and what it cost: accounts, keys, limits, and a ledger that adds up.

SQLAlchemy and Alembic are used in this package only, and not by `limits`, which also serves callers without accounts.
Knows no HTTP and no model. Everything but `limits` is synchronous: a server calls it on threads.
"""
