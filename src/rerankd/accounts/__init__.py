"""Accounts, keys, and a ledger of the cost of calls, in a SQL database. Knows no HTTP and no model.

Everything is synchronous: a server calls it on threads. Only this package uses SQLAlchemy and Alembic.
"""
