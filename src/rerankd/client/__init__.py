"""Talks to a server over HTTP. Knows no engine."""
