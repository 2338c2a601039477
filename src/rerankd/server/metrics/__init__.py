"""Counts calls, and reads what the engine and the accounts count: for Prometheus and the administrator's page."""
