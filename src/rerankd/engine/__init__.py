"""Pairs → logits, on this machine. Knows no HTTP, no key and no API."""
