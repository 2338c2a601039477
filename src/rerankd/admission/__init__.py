"""Decides whether a call may run: identity, rate limits, credit. Knows no API, no model, and writes no reply."""
